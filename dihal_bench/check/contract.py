"""Does each method give what the contract says: shapes, kinds of numbers, locality, same again?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from dihal_bench.check import sample
from dihal_bench.check.subject import PASSED, SEED, STEPS, Outcome, Subject, chain_logits, fail
from dihal_bench.interfaces.settings import Step
from dihal_bench.interfaces.validate import validate

if TYPE_CHECKING:
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.batch import Batch

STILL = 1e-10  # of float64: a number that moved by no more has not moved
_SCALE = (0.25, 4.0)  # mean square of a signal that diffusion can take for standardised
_EXACT = 1e-5  # nats
_LENGTH = 14  # tokens of the rows in which every one is changed


def shapes(subject: Subject) -> Outcome:
    """Every method once: shapes, floats, no NaN."""
    validate(subject.fresh, subject.batch(subject.fresh, range(4)))
    return PASSED


def dtypes(subject: Subject) -> Outcome:
    """Float64 throughout where all is float64; float32 weights on a bfloat16 teacher; autocast."""
    double = subject.redrawn
    batch = subject.batch(double, range(2))
    found = {
        "condition": double.condition(batch),
        "target": double.target(batch),
        "recover": chain_logits(double, batch),
    }
    for method, value in found.items():
        if value.dtype != torch.float64:
            return fail(f"{method} must compute in its input's float64, and gave {value.dtype}")
    half = subject.fitted(torch.bfloat16)
    batch = subject.batch(half, range(2))
    x0 = half.target(batch)
    if x0.dtype != torch.float32:
        return fail(f"target must be float32 on a bfloat16 teacher, and is {x0.dtype}")
    if not bool(chain_logits(half, batch).isfinite().all()):
        return fail("chains and recover must give finite logits on a bfloat16 teacher")
    return _under_autocast(subject)


def _under_autocast(subject: Subject) -> Outcome:
    interface = subject.fitted()
    batch = subject.batch(interface, range(2))
    for phase in subject.phases:
        with torch.autocast("cpu", torch.bfloat16):
            total = interface.total(interface.losses(batch, Step(index=0, phase=phase)))
        total.backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in interface.parameters() if p.grad is not None]
        if not bool(total.isfinite()) or not all(bool(g.isfinite().all()) for g in grads):
            return fail(f"losses ({phase}) must be finite, with their gradients, under autocast")
    return PASSED


def determinism(subject: Subject) -> Outcome:
    """The same seed gives the same weights, losses and chains, whatever torch's own generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = subject.fitted()
        one = _draws(subject, first)
        torch.manual_seed(2)
        again = subject.fitted()
        other = _draws(subject, again)
    for name, value in first.state_dict().items():
        if not torch.equal(value, again.state_dict()[name]):
            return fail(
                f"{name} must be a function of the seed (self._built makes modules so), and "
                "differs when built again"
            )
    for name, value in one.items():
        if not torch.equal(value, other[name]):
            return fail(f"{name} must be a function of the seed, and differs when run again")
    return _chains_differ(subject)


def _draws(subject: Subject, interface: Interface) -> dict[str, Tensor]:
    batch = subject.batch(interface, range(2))
    found = {"chains": chain_logits(interface, batch)}
    for phase in subject.phases:
        losses = interface.losses(batch, Step(index=1, phase=phase))
        found |= {f"losses ({phase}, {name!r})": value for name, value in losses.items()}
    return found


@torch.no_grad()
def _chains_differ(subject: Subject) -> Outcome:
    interface = subject.redrawn
    batch = subject.batch(interface, range(2))
    one, two = interface.chains(batch, steps=STEPS, count=2)
    if torch.equal(one, two) == interface.stochastic:
        came = "differ" if not torch.equal(one, two) else "are equal"
        return fail(f"chains {came}, but stochastic is {interface.stochastic}")
    if interface.stochastic:
        (elsewhere,) = subject.redraw(seed=SEED + 1).chains(batch, steps=STEPS, count=1)
        if torch.equal(elsewhere, one):
            return fail("chains must differ from seed to seed, and are equal")
    return PASSED


@torch.no_grad()
def standardisation(subject: Subject) -> Outcome:
    """Targets have unit scale by fixed statistics; a state of full width comes back exactly."""
    interface = subject.redrawn
    batch = subject.batch(interface, range(8))
    x0, known = interface.target(batch), interface.known(batch)
    square = float(x0[known].square().mean())
    if not _SCALE[0] <= square <= _SCALE[1]:
        return fail(f"target must have a mean square near 1 on the text, and has {square:.3g}")
    alone = interface.target(subject.batch(interface, range(3, 4)))[0]
    moved = float((alone - x0[3])[known[3]].abs().max())
    if moved > 1e-8:
        return fail(f"target must not depend on other rows of the batch, and moved by {moved:.3g}")
    if interface.bears_tokens or interface.sizes[0] < sample.HIDDEN:
        return PASSED
    divergence = float(divergence_from_teacher(interface, x0, batch).mean())
    if divergence > _EXACT:
        return fail(
            f"recover must undo target: KL(teacher || recovered) of true states must be below "
            f"{_EXACT:g} nats, and is {divergence:.3g}"
        )
    return PASSED


@torch.no_grad()
def target_locality(subject: Subject) -> Outcome:
    """The signal at i hears of tokens <= i + 1 (<= i if it is a state), the last of them too."""
    interface = subject.redrawn
    ahead = 1 if interface.bears_tokens else 0
    base, changed = _changes(subject)
    moved = (interface.clean(changed) - interface.clean(base)).abs().amax(-1)  # (T, T)
    token, place = torch.meshgrid(torch.arange(_LENGTH), torch.arange(_LENGTH), indexing="ij")
    early = moved.masked_fill(token <= place + ahead, 0.0)
    if float(early.max()) > STILL:
        j, i = divmod(int(early.argmax()), _LENGTH)
        return fail(
            f"target at place {i} must be a function of tokens up to {i + ahead}, and moved by "
            f"{float(early.max()):.3g} when token {j} was changed"
        )
    own = moved.diagonal(-ahead)
    if float(own.min()) <= STILL:
        i = int(own.argmin())
        return fail(
            f"target at place {i} must tell of token {i + ahead}, and did not move when that was "
            "changed"
        )
    return PASSED


@torch.no_grad()
def recovery_locality(subject: Subject) -> Outcome:
    """The logits at i hear of signals and tokens at places <= i only."""
    interface = subject.redrawn
    base, changed = _changes(subject)
    x0 = interface.clean(base)
    logits = interface.recover(x0, base)
    nudge = torch.eye(_LENGTH, dtype=x0.dtype)[..., None] * torch.ones(x0.shape[-1])
    token, place = torch.meshgrid(torch.arange(_LENGTH), torch.arange(_LENGTH), indexing="ij")
    for what, found in (
        ("signal", interface.recover(x0 + nudge, base)),
        ("token", interface.recover(x0, changed)),
    ):
        early = (found - logits).abs().amax(-1).masked_fill(token <= place, 0.0)
        if float(early.max()) > STILL:
            j, i = divmod(int(early.argmax()), _LENGTH)
            return fail(
                f"recover at place {i} must be a function of places up to {i}, and moved by "
                f"{float(early.max()):.3g} when the {what} at {j} was changed"
            )
        if what == "signal" and interface.local_recovery:
            late = (found - logits).abs().amax(-1).masked_fill(token >= place, 0.0)
            if float(late.max()) > STILL:
                j, i = divmod(int(late.argmax()), _LENGTH)
                return fail(
                    f"local_recovery says that recover at place {i} reads the signal at {i} alone, "
                    f"and it moved by {float(late.max()):.3g} when the signal at {j} was changed"
                )
    return PASSED


def _changes(subject: Subject) -> tuple[Batch, Batch]:
    """Return one document in as many rows as it has tokens, and the same with row j's token j new.

    One document number: the rows differ in nothing else.
    """
    tokens = sample.rows_of((_LENGTH,), 1, seed=5).expand(_LENGTH, -1)
    other = torch.where(torch.eye(_LENGTH, dtype=torch.bool), 2 + (tokens + 3) % 50, tokens)
    document = torch.zeros(_LENGTH, dtype=torch.int64)
    interface = subject.redrawn
    return subject.rows(interface, tokens, document), subject.rows(interface, other, document)


def divergence_from_teacher(interface: Interface, x0: Tensor, batch: Batch) -> Tensor:
    """Return KL(teacher || recovered) where the next token is known, nats, [places]."""
    teacher = F.log_softmax(batch.teacher_logits.double(), -1)
    own = F.log_softmax(interface.recover(x0, batch).double(), -1)
    return (teacher.exp() * (teacher - own)).sum(-1)[batch.followed]
