"""Brier-n and BrierLM: how well the next n tokens together are predicted, from paired rollouts.

CALM (Shao et al., 2025) scores language models without a likelihood by the Brier score of n-grams,
2 p(y) - sum_v p(v)^2, estimated without bias from two independent samples. Here a sample is a
chain, of which the probabilities of texts are known: with two chains c, c' and their rollouts a, b,

    p_c(y) + p_c'(y) - (p_c'(a) + p_c(b)) / 2

has the same mean, and far less variance than counting equal samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.evaluation.context import EvalContext, System, TaskResult
from dihal_bench.evaluation.generation import Choice, decode
from dihal_bench.evaluation.incremental import TeacherDecoder, decoder_of
from dihal_bench.evaluation.intervals import DocumentBootstrap, holding
from dihal_bench.evaluation.token_scores import require_law
from dihal_bench.results.metrics import BRIER, BRIER_MINUS_TEACHER, BRIERLM, METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.config.schema import ScoreConfig
    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.evaluation.incremental import IncrementalDecoder
    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.results.record import Score
    from dihal_bench.results.table import Estimate

VERSION = 1
ORDERS = 4  # tokens that are predicted together, at most
_LEAST = 2  # documents
_PAIR = 2  # chains, and their rollouts
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class RolloutTask:
    """Prefixes of real documents, and what follows them.

    Attributes:
        name: of the task.
        lengths: tokens of the prefixes, the one that begins the document among them.
        count: documents per length, at most.
        seed: of the rollouts.
        batch: rows at a time; nothing depends on it.
        version: of the task.
    """

    name: str
    lengths: tuple[int, ...] = (8, 32, 96)
    count: int = 128
    seed: int = 0
    batch: int = 32
    version: float = 1.0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            raise UserError(f"task {self.name}: lengths of prefixes must be 1 or more.")
        for name, least in (("count", 1), ("batch", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"task {self.name}: {name}={getattr(self, name)} must be {least} or more."
                )

    @property
    def gated(self) -> bool:
        """It rests on probabilities of real text."""
        return True

    @property
    def generates(self) -> bool:
        """Real text is read token by token."""
        return True

    @property
    def joint(self) -> bool:
        """All rows are scored on the same prefixes."""
        return True

    def ensemble(self, config: ScoreConfig) -> int:
        """A pair."""
        del config
        return _PAIR

    def to_dict(self) -> dict[str, Any]:
        """Return what its scores depend on."""
        plain = asdict(self)
        plain.pop("batch")
        return {**plain, "scorer": VERSION}

    def perform(self, bench: EvalContext) -> TaskResult:
        """Score every row on the same prefixes; see ``Task``."""
        parts = [_prefixes(bench.validation, length, self.count) for length in self.lengths]
        parts = [part for part in parts if len(part.rows)]
        if len({int(document) for part in parts for document in part.documents}) < _LEAST:
            raise UserError(
                f"task {self.name}: no two validation documents have {min(self.lengths) + ORDERS} "
                "tokens; give a corpus of longer documents, or shorter prefixes."
            )
        longest = max(part.rows.shape[1] for part in parts)
        if not bench.teacher.info.reads(longest):
            raise UserError(
                f"task {self.name}: prefixes of {longest - ORDERS} tokens and what follows exceed "
                f"the backbone's context ({bench.teacher.info.context}); give shorter lengths."
            )
        scores = []
        documents = np.concatenate([part.documents.numpy() for part in parts])
        teacher: Array | None = None
        for source in bench.sources:
            bench.say(f"rollouts: {source.subject} S={source.steps}")
            values = np.concatenate([self._values(source, part, bench) for part in parts], axis=1)
            teacher = values if teacher is None else teacher  # the first of the sources
            scores += self._scores(source, values, teacher, documents, bench)
        return TaskResult(scores)

    def _values(self, source: System, prefixes: _Prefixes, bench: EvalContext) -> Array:
        """Return Brier-1 to Brier-4 of every row, [4, rows]."""
        found, device = [], bench.teacher.device
        with progress(f"rollouts {source.subject}", len(prefixes.rows), unit="texts") as bar:
            for lo in range(0, len(prefixes.rows), self.batch):
                part = prefixes.rows[lo : lo + self.batch].to(device)
                numbers = prefixes.documents[lo : lo + self.batch].to(device)
                found.append(paired_brier(_read_by(source, numbers), part, numbers, self.seed))
                bar.update(len(part))
        return np.concatenate(found, axis=1)

    def _scores(
        self,
        source: System,
        values: Array,
        teacher: Array,
        documents: NDArray[np.int64],
        bench: EvalContext,
    ) -> list[Score]:
        _, place = np.unique(documents, return_inverse=True)
        counts = np.bincount(place).astype(np.float64)
        sums: Array = np.stack([np.bincount(place, own) for own in values])  # (4, documents)
        other: Array = np.stack([np.bincount(place, own) for own in teacher])
        bootstrap = DocumentBootstrap(
            len(counts), resamples=bench.config.resamples, seed=bench.seed
        )
        estimates = {BRIER[n].key: bootstrap.ratio(own, counts) for n, own in enumerate(sums, 1)}
        if source.traits is not None:
            estimates |= {
                BRIER_MINUS_TEACHER[n].key: bootstrap.difference((own, counts), (theirs, counts))
                for n, (own, theirs) in enumerate(zip(sums, other, strict=True), 1)
            }
        if all(estimates[BRIER[n].key].lo > 0 for n in range(1, ORDERS + 1)):
            estimates[BRIERLM.key] = _geometric(sums, counts, bootstrap)
        else:
            bench.say(
                f"task {self.name}: no BrierLM of {source.subject} S={source.steps}: the lower "
                "limit of one of its four scores is not above 0"
            )
        return [
            bench.score(
                source,
                self.name,
                chains=_PAIR,
                metric=name,
                value=own.value,
                lo=own.lo,
                hi=own.hi,
                kind="estimate",
                n=values.shape[1],
                unit=METRICS[name].unit,
                version=VERSION,
                details={"lengths": list(self.lengths), "filter": "none"},
            )
            for name, own in estimates.items()
        ]


def paired_brier(
    read: Callable[[int], IncrementalDecoder], rows: Tensor, documents: Tensor, seed: int
) -> Array:
    """Return unbiased estimates of Brier-1 to Brier-4 of rows, [4, rows].

    Args:
        read: makes a fresh reader of the chain of that number.
        rows: prefixes and the four tokens that follow, int64 [B, T].
        documents: numbers of the rows, which address the tokens' noise, [B].
        seed: of the tokens' noise.
    """
    prefix, true = rows[:, :-ORDERS], rows[:, -ORDERS:]
    choice = Choice(seed=seed)
    drawn = [
        decode(
            read(chain),
            prefix,
            lambda logits, offset, chain=chain: choice.draw(logits, documents, offset, chain),  # type: ignore[misc]
            new=ORDERS,
        )[:, -ORDERS:]
        for chain in (0, 1)
    ]
    of_true = [_probability(read(chain), prefix, true) for chain in (0, 1)]
    across = [_probability(read(1 - chain), prefix, drawn[chain]) for chain in (0, 1)]
    values = of_true[0] + of_true[1] - (across[0] + across[1]) / 2
    return values.T.cpu().numpy()


def _probability(reader: IncrementalDecoder, prefix: Tensor, text: Tensor) -> Tensor:
    """Return the probabilities of the first 1 to 4 tokens of ``text`` together, [B, 4], float64."""
    logs: list[Tensor] = []

    def choose(logits: Tensor, offset: int) -> Tensor:
        token = text[:, offset - prefix.shape[1]]
        require_law(logits, "rollouts")
        own = torch.log_softmax(logits.double(), dim=-1)
        logs.append(own.gather(1, token[:, None])[:, 0])
        return token

    decode(reader, prefix, choose, new=text.shape[1])
    return torch.stack(logs, dim=1).cumsum(1).exp()


def _read_by(source: System, documents: Tensor) -> Callable[[int], IncrementalDecoder]:
    from dihal_bench.interfaces.base import Interface

    def reader(chain: int) -> IncrementalDecoder:
        if not isinstance(source.writer, Interface):
            return TeacherDecoder(source.writer)
        return decoder_of(source.writer, documents, steps=source.steps, chain=chain)

    return reader


@dataclass(frozen=True)
class _Prefixes:
    rows: Tensor  # the prefix and the four tokens that follow, int64 [rows, length + 4]
    documents: Tensor  # their numbers, int64 [rows]


def _prefixes(data: PackedTokens, length: int, count: int) -> _Prefixes:
    """Return the first tokens of documents that are long enough."""
    size = length + ORDERS
    able = np.flatnonzero(data.lengths >= size)
    if not len(able):
        empty = torch.zeros(0, size, dtype=torch.int64)
        return _Prefixes(empty, empty[:, 0])
    wanted = able[
        np.unique(np.linspace(0, len(able) - 1, min(count, len(able))).round().astype(int))
    ]
    rows = np.stack([data.document(int(index))[:size] for index in wanted])
    return _Prefixes(torch.from_numpy(rows), torch.from_numpy(wanted))


def _geometric(sums: Array, counts: Array, bootstrap: DocumentBootstrap) -> Estimate:
    """Return BrierLM: 100 times the geometric mean of the four scores."""
    resampled = np.stack([bootstrap.resampled(own, counts) for own in sums])  # (4, R)
    spread = 100 * np.clip(resampled, 0, None).prod(0) ** (1 / ORDERS)
    lo, hi = np.percentile(spread, _PERCENTILES)
    values = sums.sum(1) / counts.sum()
    return holding(100 * float(values.prod()) ** (1 / ORDERS), lo, hi)
