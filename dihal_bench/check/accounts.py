"""The ledger: are all parameters, passes and FLOPs that an interface uses also counted?"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dihal_bench.check import sample
from dihal_bench.check.contract import STILL
from dihal_bench.check.formulas import by_hand
from dihal_bench.check.learning import some
from dihal_bench.check.lessons import FEW
from dihal_bench.check.strays import hidden_tensors, leaves
from dihal_bench.check.subject import PASSED, Outcome, Subject, chain, fail
from dihal_bench.evaluation.cost import cost
from dihal_bench.interfaces.settings import Step
from dihal_bench.training.ledger import count_flops

if TYPE_CHECKING:
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.batch import Batch

_TOLERANCE = 0.01
_STEPS = (1, 4)
_LATE, _MANY = 1600, 16  # a step that no ledger counts, and at least how many from there


def parameters(subject: Subject) -> Outcome:
    """Everything that learns, or is fitted, is registered, trained in a phase, and counted."""
    interface = subject.fitted()
    outside = sorted(hidden_tensors(interface)) or _nameless(subject, interface)
    if outside:
        return fail(
            f"{some(outside)} must be registered (as a submodule or parameter of the interface): "
            "as it is, it is neither trained, nor saved, nor counted"
        )
    trained = {id(p): p for phase in subject.phases for p in interface.parameters_in(phase)}
    idle = [n for n, p in interface.named_parameters() if p.requires_grad and id(p) not in trained]
    if idle:
        return fail(f"parameters_in must give {some(idle)} to some phase, and no phase trains it")
    counted = cost(interface, sample.text(), steps=1)
    total = counted.trunk_parameters + counted.recovery_parameters + counted.other_parameters
    own = sum(p.numel() for p in trained.values())
    if total != own:
        return fail(f"cost counts {total} trainable parameters, and phases train {own}")
    return _ledger(subject, interface) if subject.phases else _fitted(subject, interface)


def _ledger(subject: Subject, interface: Interface) -> Outcome:
    sizes = {name: p.numel() for name, p in interface.named_parameters()}
    for lesson in subject.lessons:
        moved = sum(sizes.get(name, 0) for name in lesson.moved)
        if moved > lesson.spent.trainable_parameters:
            return fail(
                f"the {lesson.phase} phase counts {lesson.spent.trainable_parameters} trainable "
                f"parameters, and {moved} moved"
            )
    return _fitted(subject, interface)


def _fitted(subject: Subject, interface: Interface) -> Outcome:
    before = {name: b.clone() for name, b in subject.new().named_buffers()}
    if "recovery" in subject.phases:
        subject.settle(interface)
    now = dict(interface.named_buffers())
    numbers = sum(b.numel() for name, b in before.items() if not torch.equal(b, now[name]))
    if numbers > interface.closed_form_parameters:
        return fail(
            f"closed_form_parameters must count the {numbers} numbers that fit and settle "
            f"estimate, and says {interface.closed_form_parameters}"
        )
    return PASSED


def _nameless(subject: Subject, interface: Interface) -> list[str]:
    """Return shapes of what losses or recovery depend on, and that is not the interface's."""
    known, batch = {id(p) for p in interface.parameters()}, subject.batch(interface, range(2))
    with torch.enable_grad():
        x0 = interface.target(batch).detach().requires_grad_()
        results = {"recover": [interface.recover(x0, batch)]}
        for phase in subject.phases:
            values = interface.losses(batch, Step(index=0, phase=phase)).values()
            results[f"losses ({phase})"] = list(values)
    return [
        f"a tensor {list(leaf.shape)} that {method} depends on"
        for method, values in results.items()
        for leaf in leaves(values)
        if id(leaf) not in known and leaf is not x0
    ]


def passes(subject: Subject) -> Outcome:
    """A chain of S evaluations runs the trunk S times, and a decoder that reads text is counted."""
    interface = subject.fresh
    batch = subject.batch(interface, range(2))
    for steps in _STEPS:
        used = steps if interface.stochastic or interface.iterative else 1
        expected = used if interface.trunk is not None else 0
        calls = _calls(interface.trunk, lambda n=steps: chain(interface, batch, steps=n))
        if calls != expected:
            return fail(
                f"chains of {steps} steps must run the trunk {expected} times, as is counted, and "
                f"ran it {calls} times"
            )
    return _decoder(subject) if interface.bears_tokens else PASSED


@torch.no_grad()
def _decoder(subject: Subject) -> Outcome:
    """Look whether recovery reads other places: then it is a network to be run for every token."""
    interface, length = subject.redrawn, 10
    tokens = sample.rows_of((length,), 1, seed=12)
    other = tokens.clone()
    other[:, 0] = 2 + (tokens[:, 0] + 3) % 50
    batch, changed = (subject.rows(interface, t) for t in (tokens, other))
    x0 = interface.clean(batch)
    nudged = x0.clone()
    nudged[:, 0] += 1
    logits = interface.recover(x0, batch)
    moved = max(
        float((interface.recover(signal, text) - logits)[:, 1:].abs().max())
        for signal, text in ((nudged, batch), (x0, changed))
    )
    counted, calls = interface.decoder_steps, 0
    calls = _calls(interface.recovery, lambda: interface.recover(x0, batch))
    if moved > STILL and not counted:
        return fail(
            "recover reads other places, so it is a network that runs for every token: "
            f"decoder_steps must count its passes, and is {counted}"
        )
    if counted and calls not in (0, counted):
        return fail(f"decoder_steps is {counted}, and recover ran its decoder {calls} times")
    return PASSED


def _calls(module: torch.nn.Module | None, work: Any) -> int:
    """Return how often ``work`` runs a module."""
    if module is None:
        work()
        return 0
    seen: list[None] = []
    handle = module.register_forward_hook(lambda *_: seen.append(None))
    try:
        work()
    finally:
        handle.remove()
    return len(seen)


def flops(subject: Subject) -> Outcome:
    """The trunk costs what a formula by hand says, a chain S evaluations, training what it took."""
    for outcome in (_trunk(subject), _chain(subject)):
        if outcome != PASSED:
            return outcome
    for lesson in subject.lessons:
        said, spent = lesson.spent.flops, lesson.flops
        if not _close(said, spent):
            return fail(
                f"the ledger says {said:.4g} FLOPs for {FEW} steps of the {lesson.phase} phase, "
                f"and {spent:.4g} were spent"
            )
        first, late = _lessons(subject, lesson.phase)
        if not _close(first, late):
            return fail(
                f"later steps of the {lesson.phase} phase must cost what the first ones do, for "
                f"only period = {subject.kind.period} of them are counted: losses take {late:.4g} "
                f"FLOPs on average, at first {first:.4g}"
            )
    return PASSED


def _lessons(subject: Subject, phase: str) -> tuple[float, float]:
    """Return the mean FLOPs of the losses over the steps that the ledger counts, and over others.

    Of forward passes alone: what varies from step to step shows there.
    """
    interface = subject.fitted()
    batch = subject.batch(interface, range(1))

    def losses(index: int) -> object:
        return interface.losses(batch, Step(index=index, of=2 * _LATE, phase=phase))

    def mean(steps: range) -> float:
        return sum(count_flops(partial(losses, index)) for index in steps) / len(steps)

    losses(0)  # the teacher's share is asked for once
    first = range(interface.period)
    return mean(first), mean(range(_LATE, _LATE + math.lcm(len(first), _MANY)))


def _trunk(subject: Subject) -> Outcome:
    interface = subject.fitted()
    trunk = interface.trunk
    if trunk is None:
        return PASSED
    batch = subject.batch(interface, range(4))
    layout = interface.layout(batch)
    condition, shape = interface.condition(batch).detach(), tuple(batch.tokens.shape)
    work = by_hand(trunk, *shape, blocks=layout.starts is not None)
    if work is None:
        return PASSED
    z, levels = torch.randn(*shape, trunk.inputs), torch.full(shape, 0.5)
    context = trunk.encode(condition, layout)

    def step() -> None:
        out = trunk(z, levels, trunk.encode(condition, layout))
        out.square().sum().backward()

    with torch.no_grad():
        encode = count_flops(lambda: trunk.encode(condition, layout))
        evaluation = count_flops(lambda: trunk(z, torch.tensor(0.5), context))
    pairs = {
        "encode": (encode, work.encode),
        "an evaluation": (evaluation, work.evaluation),
        "a training step": (count_flops(step), work.step),
    }
    for name, (found, expected) in pairs.items():
        if not _close(found, expected):
            return fail(
                f"{name} of the trunk costs {expected:.4g} FLOPs by hand, and {found:.4g} are "
                "counted"
            )
    return PASSED


@torch.no_grad()
def _chain(subject: Subject) -> Outcome:
    """Compare the cost that is reported with condition + encode + S evaluations (+ recovery)."""
    interface, steps = subject.fresh, _STEPS[-1]
    if interface.trunk is None:
        return PASSED
    batch = subject.batch(interface, range(1))
    reported = cost(interface, sample.text(), steps=steps)
    one = torch.tensor(interface.diffusion.terminal)
    levels = one, one.expand(batch.tokens.shape)  # the same for all places, or given for each
    expected = [_parts(interface, batch, level, reported.steps) for level in levels]
    found = reported.flops_per_token * batch.tokens.numel()
    if not any(_close(found, number) for number in expected):
        return fail(
            f"a chain of {reported.steps} evaluations costs {expected[0]:.4g} FLOPs by its parts, "
            f"and {found:.4g} are counted: it does more, or less, than its steps say"
        )
    return PASSED


def _parts(interface: Interface, batch: Batch, level: Tensor, steps: int) -> float:
    """Return the FLOPs of a chain: condition, context, evaluations, and a recovery of its own."""
    trunk, layout = interface.trunk, interface.layout(batch)
    parts = [(layout, steps), *([(layout.causal(), 1)] if interface.redraws else [])]
    assert trunk is not None
    for layer in interface.layers:
        batch.hidden(layer)
    condition = interface.condition(batch)
    x0, total = interface.target(batch), 0.0
    for each, count in parts:
        context = trunk.encode(condition, each)
        total += count_flops(lambda: interface.condition(batch))
        total += count_flops(partial(trunk.encode, condition, each))
        total += count * count_flops(partial(interface.estimate, x0, level, context))
        if interface.stochastic:
            total += count * count_flops(lambda: interface.refine(x0))
    if interface.bears_tokens:
        total += count_flops(lambda: interface.recover(x0, batch))
    return total


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _TOLERANCE * max(abs(one), abs(other))
