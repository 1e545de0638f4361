"""Training by gradient: several interfaces side by side, on one teacher pass per batch."""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from dihal_bench.core import distributed
from dihal_bench.core.deadline import Deadline
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.interfaces.part import sharing
from dihal_bench.interfaces.settings import Step
from dihal_bench.models.cast import cast_once
from dihal_bench.training.checkpoint import load_training, save_training
from dihal_bench.training.ledger import Meter, Stopwatch, rounded_as_ever
from dihal_bench.training.sampling import Need, Pass, rows_of
from dihal_bench.training.shares import MicrobatchPlan, add_flops
from dihal_bench.training.states import KeptStates

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone
    from dihal_bench.training.trainee import TrainState

_CHECKPOINT_SECONDS = 30.0
_LONG_SECONDS = 1.2  # of a write, hashing included: longer ones are rarer, 4 % of the time at most
_CURVE_POINTS = 200
_NAMED = 3  # trainees whose losses are shown one by one
_COUNTED_STEPS = 16  # whose FLOPs are counted where each has its own; once those of every run
SHARES = (0.25, 0.5)  # of a phase's steps, after which weights are kept apart


def train(
    trainees: Sequence[TrainState],
    data: PackedTokens,
    backbone: Backbone,
    *,
    tokens: int,
    seed: int,
    checkpoint: Path,
    keep: Callable[[str, Interface, float], None] = lambda name, interface, share: None,
) -> None:
    """Train for ``tokens`` tokens, from the checkpoint where there is one, and adopt the averages.

    The trainees are in one phase. ``keep`` is lent each with its averaged weights when a share of
    ``SHARES`` of the steps is done. Several processes share the windows of every step, take the
    same steps, and hold the same weights; the main one writes.

    Raises:
        UserError: the loss became NaN or infinite; the last good checkpoint stays. Or the windows
            of a step cannot be shared by so many processes.
    """
    config = trainees[0].config
    per_step = config.batch * data.window
    steps = max(1, round(tokens / per_step))
    phase = trainees[0].phase
    shares = MicrobatchPlan.of(config)
    states = KeptStates.of(backbone, data, autocast=config.autocast)
    for trainee in trainees:
        distributed.copy_main(*trainee.interface.state_dict().values(), *trainee.average)
    start = load_training(checkpoint, trainees)
    clock, written = Stopwatch(), 0.0
    with (
        progress(f"train {phase}", steps * per_step, unit="tokens") as bar,
        sharing(shares.part),
        cast_once(backbone, torch.bfloat16, enabled=config.autocast),
    ):
        bar.update(start * per_step)
        for step in range(start, steps):
            passes = (
                Pass(places, indices, data.batch(indices), states)
                for places in shares.passes
                for indices in [data.drawn(seed, step * config.batch + places.start, len(places))]
            )
            now = Step(index=step, of=steps, phase=phase)
            with rounded_as_ever(step < _COUNTED_STEPS):
                losses = _step(
                    trainees, backbone, passes, now, checkpoint, seed=seed, tokens=per_step
                )
            if step % max(1, steps // _CURVE_POINTS) == 0 or step == steps - 1:
                for trainee in trainees:
                    point = {"tokens": (step + 1) * per_step, **losses[trainee.name]}
                    trainee.curve.append(point)
            bar.note(_note({name: own["total"] for name, own in losses.items()}))
            for share in SHARES:
                if step + 1 == max(1, round(share * steps)):
                    _lend(trainees, keep, share)
            due = clock.seconds > _CHECKPOINT_SECONDS * max(1.0, written / _LONG_SECONDS)
            due |= step == steps - 1 or Deadline.passed()
            if due and distributed.writes():
                clock = Stopwatch()
                save_training(checkpoint, trainees, step + 1)
                written, clock = clock.seconds, Stopwatch()
            bar.update(per_step)  # ends it if the time is over, when what was trained is written
    for trainee in trainees:
        trainee.adopt_average()


def _note(totals: Mapping[str, float]) -> str:
    """Return the losses in few words."""
    if len(totals) > _NAMED:
        least, most = min(totals.values()), max(totals.values())
        return f"{len(totals)} of them, losses {least:.3f} to {most:.3f}"
    return " ".join(f"{name} {total:.3f}" for name, total in totals.items())


def _lend(
    trainees: Sequence[TrainState], keep: Callable[[str, Interface, float], None], share: float
) -> None:
    for trainee in trainees:
        with trainee.averaged() as interface:
            keep(trainee.name, interface, share)


def _step(
    trainees: Sequence[TrainState],
    backbone: Backbone,
    passes: Iterable[Pass],
    step: Step,
    checkpoint: Path,
    *,
    seed: int,
    tokens: int,
) -> dict[str, dict[str, float]]:
    """Take one step of every trainee on the same windows; return their losses by name."""
    config = trainees[0].config
    taught = {t.name: t.taught(step, seed) for t in trainees}
    needs = {
        t.name: Need.of(t.interface.layers, taught[t.name], distils=t.distils) for t in trainees
    }
    kinds = {t.name: _kind(t, taught[t.name], backbone, step) for t in trainees}
    shared = functools.reduce(operator.or_, needs.values())
    counted = {t.name for t in trainees if _is_counted(t, kinds[t.name], backbone, step)}
    teacher = Meter(flops=bool(counted))
    own = {name: Meter(flops=name in counted) for name in kinds}
    apart = {needs[name]: Meter(flops=True) for name in counted if needs[name] != shared}
    losses: dict[str, dict[str, Tensor]] = {trainee.name: {} for trainee in trainees}
    for some in passes:
        one = replace(some, states=None) if counted else some  # a pass costs what it does alone
        share = len(one.places) / config.batch
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=config.autocast):
            batch = teacher.run(partial(shared.lesson, one, backbone))
        for need, meter in apart.items():
            meter.run(partial(need.lesson, one, backbone))
        for trainee in trainees:
            now = replace(step, taught=rows_of(taught[trainee.name], one.places))
            found = own[trainee.name].run(partial(trainee.learn, batch, now, share))
            sums = losses[trainee.name]
            sums.update({k: sums.get(k, 0.0) + share * v.double() for k, v in found.items()})
    if counted:
        add_flops([teacher, *own.values(), *apart.values()])
    norms = [own[t.name].run(partial(t.update, step.index, step.of)) for t in trainees]
    clock = Stopwatch()
    values, lengths = _read(losses, norms)  # where the host waits for the device
    waited = clock.seconds / len(trainees)
    for trainee, length in zip(trainees, lengths, strict=True):
        _check_finite(trainee.name, values[trainee.name], length, step, checkpoint)
        meter, lesson = own[trainee.name], apart.get(needs[trainee.name], teacher)
        if trainee.name in counted:  # as if it had a teacher of its own
            trainee.flops[kinds[trainee.name]] = meter.flops + lesson.flops
        flops = trainee.flops.get(kinds[trainee.name])
        trainee.spent.add(tokens, teacher.seconds + meter.seconds + waited, flops)
    return values


def _read(
    losses: Mapping[str, Mapping[str, Tensor]], norms: Sequence[Tensor]
) -> tuple[dict[str, dict[str, float]], list[float]]:
    """Return the losses of all processes, and the gradients' norms, as numbers."""
    sums = torch.stack([value for own in losses.values() for value in own.values()])
    distributed.add_up(sums)
    numbers = torch.cat((torch.stack([*norms]).double(), sums)).tolist()
    rest = iter(numbers[len(norms) :])
    values = {name: {key: next(rest) for key in own} for name, own in losses.items()}
    return values, numbers[: len(norms)]


def _kind(
    trainee: TrainState, taught: tuple[int, ...] | None, backbone: Backbone, step: Step
) -> Hashable:
    """Return what steps of equal FLOPs have in common.

    Where documents become rows of their own, that is nothing: shapes follow from the documents.
    """
    if not backbone.packs_natively:
        return step.index
    return step.index % trainee.interface.period, None if taught is None else len(taught)


def _is_counted(trainee: TrainState, kind: Hashable, backbone: Backbone, step: Step) -> bool:
    """Return whether a step's FLOPs have to be counted: they are those of no step before."""
    few = backbone.packs_natively or step.index < _COUNTED_STEPS
    return few and kind not in trainee.flops


def _check_finite(
    name: str, losses: Mapping[str, float], norm: float, step: Step, checkpoint: Path
) -> None:
    """Stop where a loss or the gradient's norm is not finite, before anything is written.

    Raises:
        UserError: so it is.
    """
    if all(map(math.isfinite, [*losses.values(), norm])):
        return
    wrong = [f"{key} {value}" for key, value in losses.items() if not math.isfinite(value)]
    kept = (
        f"the last good checkpoint is {checkpoint}"
        if checkpoint.exists()
        else "nothing was saved yet"
    )
    raise UserError(
        f"the loss of {name} is not finite at step {step.index} "
        f"({', '.join(wrong) or f'gradient norm {norm}'}); {kept}. "
        "Lower train.lr and train.muon_lr with --set, or set train.autocast=false."
    )
