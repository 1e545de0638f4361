"""Training, and what it leaves: the right tensors move, recovery hears its signal, all is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from dihal_bench.check.contract import divergence_from_teacher
from dihal_bench.check.lessons import FEW, TRAINING
from dihal_bench.check.subject import PASSED, Outcome, Subject, chain, chain_logits, fail, skip
from dihal_bench.interfaces.settings import Step
from dihal_bench.training.checkpoint import (
    load_interface,
    load_phase,
    load_training,
    save_interface,
    save_phase,
    save_training,
)
from dihal_bench.training.trainee import TrainState

if TYPE_CHECKING:
    from dihal_bench.check.lessons import TrainingProbe
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.batch import Batch

_LEAST = 0.01  # nats by which the true signal must be better than noise
_CERTAIN = 4.0  # standard errors
_DRAW = 1 << 28  # of that noise: no chain has this number


def movement(subject: Subject) -> Outcome:
    """After three steps all that a phase trains has moved, and nothing else has."""
    frozen = {n for n, p in subject.fresh.named_parameters() if not p.requires_grad}
    for lesson in subject.lessons:
        outcome = _movement(subject, lesson, frozen)
        if outcome != PASSED:
            return outcome
    return PASSED


def _movement(subject: Subject, lesson: TrainingProbe, frozen: set[str]) -> Outcome:
    after = f"after {FEW} steps of the {lesson.phase} phase"
    wrong = sorted(lesson.declared & frozen)
    if wrong:
        return fail(f"parameters_in must leave out {some(wrong)}, which requires no gradient")
    wrong = sorted(lesson.moved - lesson.declared)
    if wrong:
        return fail(f"{some(wrong)} must stay frozen, and moved {after}")
    if lesson.teacher_moved:
        return fail(f"the teacher must stay frozen, and moved {after}")
    wrong = sorted(lesson.declared - lesson.moved)
    if wrong:
        return fail(f"{some(wrong)} must be trained, and did not move {after}")
    wrong = sorted(lesson.deaf)
    if wrong and subject.kind.stochastic:  # without noise, weights that read it have nothing to do
        return fail(f"losses must depend on {some(wrong)}, whose gradient was zero {after}")
    return PASSED


def hearing(subject: Subject) -> Outcome:
    """After a little training, recovery from true signals beats that from noise or from others."""
    interface = subject.taught
    batch = subject.batch(interface, range(16))
    if not interface.stochastic and not bool(chain(interface, batch).any()):
        return skip("its chains are silent: there is no signal to hear")
    with torch.no_grad():
        x0 = interface.clean(batch)
        noise = batch.normal(interface.noise, x0.shape[-1], draw=_DRAW)
        others = x0.flatten(0, 1).roll(x0.shape[1] + 1, dims=0).reshape(x0.shape)
        true = _cost(interface, x0, batch)
        false = {"noise": noise.to(x0.dtype), "other places' signals": others}
        gains = {name: _cost(interface, signal, batch) - true for name, signal in false.items()}
    for name, gain in gains.items():
        mean, error = float(gain.mean()), float(gain.std()) / len(gain) ** 0.5
        if mean < max(_LEAST, _CERTAIN * error):
            what = "next tokens" if interface.bears_tokens else "the teacher's predictions"
            return fail(
                f"recover must find {what} better from true signals than from {name}, and after "
                f"training gains {mean:.3g} nats (standard error {error:.2g})"
            )
    return PASSED


def _cost(interface: Interface, x0: Tensor, batch: Batch) -> Tensor:
    """Return nats per place: of the next token, or for a state from the teacher."""
    if not interface.bears_tokens:
        return divergence_from_teacher(interface, x0, batch)
    logs = F.log_softmax(interface.recover(x0, batch).double(), -1)
    own = logs.gather(-1, batch.following(batch.tokens)[..., None])[..., 0]
    return -own[batch.followed]


def checkpoint(subject: Subject) -> Outcome:
    """Saved and loaded into a new interface it is the same; training goes on with the same bits."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for outcome in (_weights(subject, place), *_resumed(subject, place)):
            if outcome != PASSED:
                return outcome
    return PASSED


def _weights(subject: Subject, place: Path) -> Outcome:
    kept, file = subject.taught, place / "weights.safetensors"
    save_interface(file, kept)
    loaded = subject.new()
    load_interface(file, loaded)
    batch = subject.batch(kept, range(2))
    expected = chain_logits(kept, batch)
    if not torch.equal(expected, chain_logits(loaded, batch)):
        return fail(
            "state_dict must hold all that predictions depend on: loaded into a new interface, "
            "it gives other logits (keep tensors as parameters or buffers)"
        )
    subject.fit(loaded)
    if not torch.equal(expected, chain_logits(loaded, batch)):
        return fail("fit must leave alone what was trained: repeated, it changes the logits")
    if "recovery" in kept.phases:
        save_phase(place / "phase.safetensors", kept, "recovery", {})
        loaded = subject.new()
        load_phase(place / "phase.safetensors", loaded)
        with torch.no_grad():
            x0 = kept.target(batch)
            if not torch.equal(kept.recover(x0, batch), loaded.recover(x0, batch)):
                return fail("recover must be the same from the recovery phase's file, and is not")
    return PASSED


def _resumed(subject: Subject, place: Path) -> list[Outcome]:
    """Take three steps, and three with a break after two."""
    outcomes = []
    for phase in subject.phases:
        file = place / f"{phase}.safetensors"
        whole = TrainState("it", subject.fitted(), TRAINING, phase)
        _steps(subject, whole, range(2))
        save_training(file, [whole], 2)
        _steps(subject, whole, range(2, FEW))
        again = TrainState("it", subject.fitted(), TRAINING, phase)
        _steps(subject, again, range(load_training(file, [again]), FEW))
        if not _equal(whole.interface, again.interface):
            outcomes.append(
                fail(
                    f"losses ({phase}) must depend on weights, batch and step alone: training that "
                    "was interrupted ends with other weights"
                )
            )
    return outcomes


def _steps(subject: Subject, trainee: TrainState, steps: range) -> None:
    for index in steps:
        batch = subject.batch(trainee.interface, range(4 * index, 4 * index + 4))
        trainee.learn(batch, Step(index=index, of=FEW, phase=trainee.phase))
        trainee.update(index, FEW)


def _equal(one: Interface, other: Interface) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def some(names: list[str]) -> str:
    """Return the first few of many names."""
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + rest
