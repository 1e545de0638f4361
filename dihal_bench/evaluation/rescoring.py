"""The main test of the leak gate: what was scored is computed again by who never held the answer.

See docs/gate.md for what that proves.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from dihal_bench.core import distributed, fresh
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.data.tokens import Windows
from dihal_bench.evaluation.likelihood import TEACHER, Row, distributions, shift
from dihal_bench.evaluation.prefixes import NOWHERE, draw, tested
from dihal_bench.results.fields import AGREEMENT, SAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.evaluation.likelihood import ScoredBatch
    from dihal_bench.evaluation.prefixes import Prefixes
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone

VERSION = 2  # of the gate
_ROUNDINGS = 4  # tolerance over what an unchanged window moves by
_SHARE, _LARGE_SHARE, _LARGE = 0.3, 0.1, 20_000_000  # of scored chains; parameters of a backbone
_IMPORTS = (
    "dihal_bench.runs.execute",
    "dihal_bench.interfaces.hidden",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
)
_ANSWER = "dihal_bench.evaluation.rescoring:answer"


class Passes(Protocol):
    """The batches that rows are scored on."""

    @property
    def backbone(self) -> Backbone:
        """The teacher."""

    @property
    def block(self) -> int:
        """Tokens per block in the sequence regime."""

    def batch_of(self, index: int) -> Windows:
        """Return the windows of a batch."""


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """What came of the test for one row of the score table.

    Attributes:
        verdict: "pass", "leak" or "inconclusive".
        disagreement: largest difference of a log-probability from the scored one, nats.
        yardstick: largest one when the windows are scored unchanged, in another order; None: it
            was not needed.
        tolerance: largest disagreement that counts as none.
        places: how many were computed again.
        chains: how many of the row's were, of how many.
        steps: network evaluations per chain.
        worst: where the disagreement is largest, in words.
    """

    verdict: str
    disagreement: float
    yardstick: float | None
    tolerance: float
    places: int
    chains: tuple[int, int]
    steps: int
    worst: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {**asdict(self), "chains": list(self.chains)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Rescored:
        """Return what ``to_dict`` made values of."""
        return cls(**{**plain, "chains": tuple(plain["chains"])})


@dataclass(frozen=True, kw_only=True)
class Prover:
    """What a fresh process needs to score rows anew.

    Attributes:
        build: ``module:function`` that returns the interfaces and their backbone, from ``facts``.
        facts: plain values, made before any interface saw the text that is scored.
        filler: tokens of other text, which stand where the fresh process must not know them.
        began: time after which no interface may have left anything behind, in seconds.
        own: files and folders that ``build`` reads, however new they are.
        share: of the scored chains that are computed again, about; None: as the backbone allows.
        results: what came of every row, newly tested or read again.
        seconds: is given how long every test took.
    """

    build: str
    facts: Mapping[str, Any]
    filler: NDArray[np.int64]
    began: float
    own: tuple[str, ...] = ()
    share: float | None = None
    results: dict[Row, Rescored] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def ready(self) -> None:
        """Start what fresh processes come from, beside other work."""
        if distributed.is_main():
            fresh.start(_IMPORTS)

    def prove(
        self, scored: Sequence[ScoredBatch], interfaces: Mapping[str, Interface], scorer: Passes
    ) -> dict[Row, Rescored]:
        """Return what came of the test for every row that it can be made of.

        Args:
            scored: everything that the rows were scored on, batch by batch.
            interfaces: that were scored together.
            scorer: what they were scored on.

        Raises:
            UserError: a row did not pass, or cannot be built in a fresh process.
        """
        if not any(tested(row) for row in scored[0].values):
            return {}
        began = time.monotonic()
        size = sum(p.numel() for p in scorer.backbone.model.parameters())
        windows = [scorer.batch_of(batch.index) for batch in scored]
        drawn = draw(
            scored,
            windows,
            self.filler,
            block=scorer.block,
            share=self.share or rescored_share(size),
        )
        distances = distributed.on_main(partial(self._distances, drawn, scored, scorer))
        moved: dict[Row, float] = {}
        if max(distances.values()) > SAME:  # how much of it may be rounding?
            first = drawn[0]
            moved = distributed.on_main(
                partial(_moved, first, scored[first.index], interfaces, scorer)
            )
        found = {row: _judged(row, drawn, distances, moved.get(row)) for row in drawn[0].asked}
        for row, result in found.items():
            _check(row, result)
        self.seconds.append(time.monotonic() - began)
        del found[Row(subject=TEACHER)]
        return found

    def _distances(
        self, drawn: Sequence[Prefixes], scored: Sequence[ScoredBatch], scorer: Passes
    ) -> dict[tuple[Row, int, int, int], float]:
        """Return how far each value moved, nats, by row, chain, batch and row of the batch."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._ask(folder, drawn, scored, scorer)
            return {
                (row, chain, number, int(index)): distance
                for number, own in enumerate(drawn)
                for row, chains in own.asked.items()
                for chain in chains
                for index, distance in _compared(
                    np.load(_file(folder, number, row, chain)),
                    own,
                    scored[own.index],
                    row,
                    chain,
                    scorer,
                )
            }

    def _ask(
        self,
        folder: Path,
        drawn: Sequence[Prefixes],
        scored: Sequence[ScoredBatch],
        scorer: Passes,
    ) -> None:
        passes = []
        for number, own in enumerate(drawn):
            np.savez(folder / f"{number}.npz", mask=own.mask, **vars(own.windows))
            asked = [[asdict(row), chains] for row, chains in own.asked.items()]
            moved = shift(scored[own.index].index, scorer.block)
            passes.append({"asked": asked, "shift": moved, "block": scorer.block})
        request = {
            "build": self.build,
            "facts": dict(self.facts),
            "passes": passes,
            "since": self.began,
            "own": list(self.own),
            "threads": torch.get_num_threads(),
            "precision": torch.get_float32_matmul_precision(),
        }
        total = sum(len(chains) for own in drawn for chains in own.asked.values())
        with progress("leak gate", total, unit="chains") as bar:
            fresh.in_fresh_process(_ANSWER, folder, request, imports=_IMPORTS, tick=bar.update)


def rescored_share(parameters: int) -> float:
    """Return about which share of the scored chains is computed again, by default.

    Args:
        parameters: of the backbone.
    """
    return _LARGE_SHARE if parameters > _LARGE else _SHARE


def answer(folder: Path, request: Mapping[str, Any], tick: Callable[[], object]) -> None:
    """Compute what is asked for, in the fresh process.

    Args:
        folder: of the prefixes; distributions are left there, a file for every row and chain.
        request: what ``Prover`` sent.
        tick: is called after every chain.
    """
    torch.set_num_threads(request["threads"])
    torch.set_float32_matmul_precision(request["precision"])
    arrays = [dict(np.load(folder / f"{number}.npz")) for number in range(len(request["passes"]))]
    fresh.seal(request["since"], but=(*request["own"], str(folder)))
    module, _, name = request["build"].partition(":")
    interfaces, backbone = getattr(importlib.import_module(module), name)(request["facts"])
    for number, (own, one) in enumerate(zip(arrays, request["passes"], strict=True)):
        mask = own.pop("mask")
        asked = {Row(**row): chains for row, chains in one["asked"]}
        for row, chain, log_q in distributions(
            asked,
            interfaces,
            backbone,
            Windows(**own),
            mask,
            block=one["block"],
            shift=one["shift"],
        ):
            np.save(_file(folder, number, row, chain), log_q.cpu().numpy())
            tick()


def _file(folder: Path, number: int, row: Row, chain: int) -> Path:
    return folder / f"{number}-{row.subject}-{row.steps}-{row.chains}-{row.signal}-{chain}.npy"


def _compared(
    found: NDArray[np.float32],
    own: Prefixes,
    scored: ScoredBatch,
    row: Row,
    chain: int,
    scorer: Passes,
) -> list[tuple[int, float]]:
    """Return rows of the batch, and how far what is found [places, V] is from what was scored."""
    index = np.flatnonzero(own.places != NOWHERE)
    place = own.places[index]
    targets = scorer.batch_of(scored.index).tokens[index, place + 1]
    order = scored.places.cumsum().reshape(scored.places.shape) - 1
    at = order[index, place]
    log_p = found[np.arange(len(index)), targets]
    if row.subject == TEACHER:
        return list(zip(index.tolist(), np.abs(log_p - scored.teacher[at]).tolist(), strict=True))
    before = scored.values[row][chain][:, at]
    square = np.exp(2 * found).sum(-1)
    far = np.maximum(np.abs(log_p - before[0]), np.abs(square - before[1]) / 2)
    return list(zip(index.tolist(), np.nan_to_num(far, nan=np.inf).tolist(), strict=True))


def _moved(
    own: Prefixes, scored: ScoredBatch, interfaces: Mapping[str, Interface], scorer: Passes
) -> dict[Row, float]:
    """Return by how much first chains move when the batch's rows are in another order."""
    windows = scorer.batch_of(scored.index)
    rolled = Windows(**{name: np.roll(array, 1, axis=0) for name, array in vars(windows).items()})
    places = np.roll(scored.places, 1, axis=0)
    targets = torch.from_numpy(rolled.tokens[np.roll(places, 1, axis=1)])
    moved = {}
    for row, _, log_q in distributions(
        dict.fromkeys(own.asked, (0,)),
        interfaces,
        scorer.backbone,
        rolled,
        places,
        block=scorer.block,
        shift=shift(scored.index, scorer.block),
    ):
        again = _unrolled(log_q.cpu(), targets, places)
        before = scored.teacher if row.subject == TEACHER else scored.values[row][0, 0]
        moved[row] = float(np.abs(again - before).max(initial=0.0))
    return moved


def _unrolled(log_q: Tensor, targets: Tensor, places: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the targets' log-probabilities in the order of the batch before its rows moved."""
    values = log_q.gather(1, targets[:, None])[:, 0].numpy()
    rows = np.split(values, np.cumsum(places.sum(1))[:-1])
    return np.concatenate([*rows[1:], rows[0]])


def _judged(
    row: Row,
    drawn: Sequence[Prefixes],
    distances: Mapping[tuple[Row, int, int, int], float],
    yardstick: float | None,
) -> Rescored:
    own = {key: distance for key, distance in distances.items() if key[0] == row}
    (_, chain, number, index), far = max(own.items(), key=lambda item: item[1])
    rounding = _ROUNDINGS * (yardstick or 0.0)
    tolerance = min(AGREEMENT, max(SAME, rounding))
    verdict = "pass"
    if far > tolerance:
        verdict = "inconclusive" if (yardstick or 0.0) > AGREEMENT else "leak"
    return Rescored(
        verdict=verdict,
        disagreement=min(far, 1e30),
        yardstick=yardstick,
        tolerance=tolerance,
        places=len({key[2:] for key in own}),
        chains=(len({key[1] for key in own}), row.chains),
        steps=row.steps,
        worst=f"chain {chain} at token {drawn[number].places[index]} of row {index} in batch "
        f"{drawn[number].index}",
    )


def _check(row: Row, result: Rescored) -> None:
    """Refuse what did not pass.

    Raises:
        UserError: it did not.
    """
    if result.verdict == "inconclusive":
        raise UserError(
            f"{row.subject} did not pass the leak gate (inconclusive: in S={row.steps}, the same "
            f"windows scored again move by {result.yardstick:.3g} nats), so no likelihood is "
            "written; draw all noise by the interface's own noise, and give --dtype float32."
        )
    if result.verdict == "leak":
        raise UserError(
            f"{row.subject} did not pass the leak gate (leak: in S={row.steps}, {result.worst}, "
            f"its log-probability is {result.disagreement:.3g} nats from what a fresh process that "
            "knows only the prefix gives), so no likelihood is written; make condition, chains and "
            "recover functions of weights, noise and earlier tokens alone."
        )
