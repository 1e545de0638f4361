"""Evaluation of trained interfaces: the leak gate first, then every row on the same windows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.aggregate import Traits, scores_of
from dihal_bench.evaluation.block_bound import block_bound
from dihal_bench.evaluation.gate import VERSION as GATE_VERSION
from dihal_bench.evaluation.gate import GateResult, leak_gates
from dihal_bench.evaluation.intervals import DocumentBootstrap
from dihal_bench.evaluation.likelihood import SHUFFLED, TEACHER, TRUE, VERSION, ZEROED, Row, Totals
from dihal_bench.evaluation.rescoring import VERSION as RESCORED_VERSION
from dihal_bench.results.metrics import BLOCK_BOUND, BRIER1, KL, NLL
from dihal_bench.results.record import Score
from dihal_bench.training.checkpoint import load_phase
from dihal_bench.training.phases import kept_weights
from dihal_bench.training.trainer import SHARES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.config.schema import ScoreConfig
    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.evaluation.aggregate import Measured
    from dihal_bench.evaluation.cache import ScoreCache
    from dihal_bench.evaluation.rescoring import Prover, Rescored
    from dihal_bench.interfaces.base import Interface


def check_gates(
    interfaces: Mapping[str, Interface], data: PackedTokens, scorer: ScoreCache
) -> dict[str, GateResult]:
    """Run the leak gate on every interface's trained weights, if these weights have not passed.

    The interfaces are dealt to all processes, unless the teacher is spread over these.

    Args:
        interfaces: trained, by name.
        data: the run's own text.
        scorer: keeps what was found.

    Raises:
        UserError: one of them did not pass; the message says what moved.
    """

    def run(missing: Mapping[str, Interface]) -> dict[str, dict[str, Any]]:
        dealt = [name for name, counts in distributed.turns(list(missing)) if counts]
        own = missing if scorer.backbone.sharded else {name: missing[name] for name in dealt}
        results = leak_gates(own, data) if own else {}
        found = dict(distributed.gather(list(results.items())))
        for name, result in found.items():
            _check_gate(name, result)
        return {name: result.to_dict() for name, result in found.items()}

    passed = scorer.facts_of(f"gate{GATE_VERSION}", interfaces, run)
    return {name: GateResult(**facts) for name, facts in passed.items()}


def _check_gate(name: str, result: GateResult) -> None:
    if result.verdict != "pass":
        raise UserError(
            f"{name} did not pass the leak gate ({result.verdict}: logits before a changed "
            f"token moved by {result.future:.3g}, in another document or row by "
            f"{result.others:.3g}, from it on by {result.effect:.3g}), so no likelihood is "
            "written; make the interface causal or, if untrained, train it."
        )


def gates_of(
    changed: Mapping[str, Mapping[str, Any]], rescored: Mapping[Row, Rescored]
) -> dict[str, dict[str, Any]]:
    """Return what a record keeps of both tests of the leak gate, by interface."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in changed}
    for row, result in rescored.items():
        plain = {key: value for key, value in result.to_dict().items() if key != "worst"}
        rows[row.subject].append({**plain, "signal": row.signal})
    return {
        name: {**gate, "version": RESCORED_VERSION, "rescored": rows[name]}
        for name, gate in changed.items()
    }


def evaluate(
    interfaces: Mapping[str, Interface],
    scorer: ScoreCache,
    config: ScoreConfig,
    measured: Measured,
    prover: Prover | None = None,
) -> tuple[list[Score], dict[Row, Totals]]:
    """Score the teacher, the interface at every number of steps, and the controls.

    Args:
        interfaces: by name; the first is the one that is benchmarked, which the others are
            compared with in pairs.
        scorer: what they are scored on.
        config: what is scored.
        measured: what all scores have in common.
        prover: proves that no likelihood rests on what comes after; None: nobody does.

    Returns:
        The scores, and the sums per document that they derive from.
    """
    first = next(iter(interfaces))
    rows = {
        name: score_rows(interface, name, steps=config.steps, chains=config.chains)
        for name, interface in interfaces.items()
    }
    headline = rows[first][-1]
    trials = trial_rows(headline, interfaces[first])
    totals = scorer.score(
        [Row(subject=TEACHER), *(row for some in rows.values() for row in some), *trials],
        interfaces,
        prover,
    )
    traits = {name: traits_of(interface) for name, interface in interfaces.items()}
    scores = scores_of(totals, traits, measured, reference=headline)
    for name, interface in interfaces.items():
        if has_bound(interface):
            bound = _bound(interface, scorer, config)
            scores.append(_bound_score(rows[name][-1], bound, config, measured))
    return scores, totals


def traits_of(interface: Interface) -> Traits:
    """Return what the scores of an interface depend on."""
    return Traits(
        stochastic=interface.stochastic,
        likelihood=interface.likelihood,
        decoder_steps=interface.decoder_steps,
        redraws=interface.redraws,
    )


def score_rows(interface: Interface, name: str, *, steps: Sequence[int], chains: int) -> list[Row]:
    """Return the rows of an interface in a table: as many as there are steps, if it draws."""
    if not interface.stochastic:
        return [Row(subject=name, steps=steps[-1] if interface.iterative else 1)]
    counts = dict.fromkeys(steps, chains)
    if interface.diffusion.blind_start and 1 in counts:
        counts[1] = 1  # all would be equal
    return [Row(subject=name, steps=own, chains=count) for own, count in counts.items()]


def trial_rows(row: Row, interface: Interface) -> list[Row]:
    """Return rows that tell what a recovery makes of its signal, and whether it reads that.

    Without a signal one that reads no tokens knows nothing.
    """
    if not interface.stochastic:
        return []
    withheld = (ZEROED, SHUFFLED) if interface.decoder_steps else ()
    trials = [Row(subject=row.subject, steps=row.steps, chains=2, signal=own) for own in withheld]
    return [*trials, Row(subject=row.subject, steps=0, signal=TRUE)]


def has_bound(interface: Interface) -> bool:
    """Return whether a variational bound of blocks can be given."""
    stochastic = interface.stochastic and interface.likelihood
    return bool(interface.config.block and interface.bears_tokens and stochastic)


def _bound(interface: Interface, scorer: ScoreCache, config: ScoreConfig) -> Totals:
    nats, tokens = block_bound(
        interface,
        scorer.data,
        windows=scorer.windows,
        batch=scorer.batch,
        snr=config.bound_snr,
        draws=config.bound_draws,
    )
    zeros = np.zeros_like(tokens)
    return Totals(tokens, zeros, zeros, {BLOCK_BOUND.key: nats})


def _bound_score(row: Row, sums: Totals, config: ScoreConfig, measured: Measured) -> Score:
    bootstrap = DocumentBootstrap(len(sums.tokens), resamples=config.resamples, seed=measured.seed)
    estimate = bootstrap.ratio(*sums.per_token(BLOCK_BOUND.key))
    return Score(
        subject=row.subject,
        metric=BLOCK_BOUND.key,
        value=estimate.value,
        lo=estimate.lo,
        hi=estimate.hi,
        kind="bound",
        n=int(sums.tokens.sum()),
        unit=BLOCK_BOUND.unit,
        task=measured.task,
        regime=measured.regime,
        version=VERSION,
        dtype=measured.dtype,
        steps=row.steps,
        chains=1,
        nfe=config.bound_draws + 1,
        signal=row.signal,
        details={"snr": config.bound_snr, "draws": config.bound_draws},
    )


_METRICS = (NLL.at(1), BRIER1.key, KL.single)


def scores_on_the_way(
    interfaces: Mapping[str, Interface],
    file: Callable[[str, Interface, str], Path],
    scorer: ScoreCache,
    config: ScoreConfig,
) -> list[dict[str, Any]]:
    """Score all that was trained in a diffusion phase at 25, 50 and 100 % of it.

    Means per token over the given windows: NLL of single chains, Brier-1 and KL, at one step and at
    the headline's; the shares are of the diffusion phase, whose weights were averaged there.
    A share whose weights are not kept any more, as of a run that was moved, is left out.

    Args:
        interfaces: as they are at the end.
        file: name, interface, phase -> where the finished phase lies.
        scorer: what they are scored on.
        config: what is scored.
    """
    found = []
    for name, interface in interfaces.items():
        if interface.trunk is None:
            continue
        for share in (*SHARES, 1.0):
            then = _at(interface, file(name, interface, "diffusion"), share)
            if then is None:
                continue
            scored = scorer.score(curve_rows(name, then, config), {name: then})
            for row, totals in scored.items():
                metrics = _METRICS if then.likelihood else (BRIER1.key,)
                means = {m: float(totals.sums[m].sum() / totals.tokens.sum()) for m in metrics}
                found.append({"subject": name, "share": share, "steps": row.steps, **means})
    return found


def _at(interface: Interface, file: Path, share: float) -> Interface | None:
    if share == 1.0:
        return interface
    path = kept_weights(file, share)
    if not distributed.on_main(path.exists):
        return None
    then = copy.deepcopy(interface, {id(interface.backbone): interface.backbone})
    load_phase(path, then)
    return then


def curve_rows(name: str, interface: Interface, config: ScoreConfig) -> list[Row]:
    """Return the rows of an interface that is scored on the way."""
    if not interface.stochastic:
        return [Row(subject=name, steps=config.steps[-1] if interface.iterative else 1)]
    return [
        Row(subject=name, steps=s, chains=1 if s == 1 and interface.diffusion.blind_start else 2)
        for s in dict.fromkeys((config.steps[0], config.steps[-1]))
    ]
