"""Does anything hear of what it must not: later tokens, other rows, other documents, caches?

All on redrawn parameters in float64: an output that starts at zero hides nothing there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dihal_bench.check import sample
from dihal_bench.check.subject import BLOCK, PASSED, STEPS, Outcome, Subject, chain_logits, fail
from dihal_bench.evaluation.gate import leak_gates
from dihal_bench.evaluation.generation import forced_logits
from dihal_bench.evaluation.incremental import rows_as_windows
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from dihal_bench.data.tokens import Windows

SAME = 1e-8  # of a logit, in float64: equal but for rounding in another order
_START = 3  # tokens of a prompt


def future(subject: Subject) -> Outcome:
    """The leak gate of every run: no logit hears of later tokens, and each hears of earlier ones.

    In the sequence regime, besides: the signal of a block is drawn before its tokens are.
    """
    result = leak_gates({subject.name: subject.redrawn}, sample.text(), steps=STEPS)[subject.name]
    if result.verdict == "leak":
        return fail(
            "condition, chains and recover must not hear of later tokens, other documents or "
            f"other rows: logits moved by {result.future:.3g} before a changed token, by "
            f"{result.others:.3g} in another document or row"
        )
    if result.verdict != "pass":
        return fail(
            "logits must be finite and hear of every earlier token; some change moved them by "
            f"{result.effect:.3g} at most"
        )
    return PASSED


def neighbours(subject: Subject) -> Outcome:
    """Rows of a batch do not meet."""
    interface = subject.redrawn
    tokens, documents = sample.rows_of((12,), 3, seed=6), torch.tensor([90, 91, 92])
    together = chain_logits(interface, subject.rows(interface, tokens, documents))
    for row in range(3):
        own = slice(row, row + 1)
        alone = chain_logits(interface, subject.rows(interface, tokens[own], documents[own]))
        moved = _distance(alone[0], together[row])
        if moved > SAME:
            return fail(f"logits of a row must not depend on its batch, and moved by {moved:.3g}")
    return PASSED


def padding(subject: Subject) -> Outcome:
    """A document reads alike wherever in a window it lies, and whatever lies around it."""
    interface, tokens = subject.redrawn, sample.rows_of((11,), 1, seed=7)
    own = rows_as_windows(tokens, torch.tensor([95]))
    alone = chain_logits(interface, Batch.of(own, interface.backbone))[0]
    for before, after in ((0, 6), (7, 0), (2, 5), (9, 9)):
        fillers = [
            rows_as_windows(sample.rows_of((n,), 1, seed=n), torch.tensor([96 + side]))
            for side, n in enumerate((before, after))
            if n
        ]
        parts = [*fillers[: bool(before)], own, *fillers[bool(before) :]]
        found = chain_logits(interface, Batch.of(_joined(parts), interface.backbone))
        moved = _distance(found[0, before : before + tokens.shape[1]], alone)
        if moved > SAME:
            return fail(
                f"logits of a document must not depend on {before} tokens of padding before and "
                f"{after} behind it, and moved by {moved:.3g}"
            )
    return PASSED


def document_starts(subject: Subject) -> Outcome:
    """Whatever an earlier document of the window says is not heard in a later one."""
    interface, length = subject.redrawn, 9
    later = rows_as_windows(sample.rows_of((10,), 1, seed=8), torch.tensor([98]))
    found = []
    for seed in (1, 2):
        earlier = rows_as_windows(sample.rows_of((length,), 1, seed=seed), torch.tensor([97]))
        batch = Batch.of(_joined([earlier, later]), interface.backbone)
        found.append(chain_logits(interface, batch)[:, length:])
    moved = _distance(*found)
    if moved > SAME:
        return fail(f"logits must not hear of the document before, and moved by {moved:.3g}")
    return PASSED


def caches(subject: Subject) -> Outcome:
    """The teacher's parts, fed piece by piece through key-value caches, give the same logits."""
    whole, pieces = subject.redrawn, subject.piecewise
    tokens = sample.rows_of((15,), 2, seed=10)
    expected = chain_logits(whole, subject.rows(whole, tokens))
    moved = _distance(chain_logits(pieces, subject.rows(pieces, tokens)), expected)
    if moved > SAME:
        return fail(
            "logits must be the same when the teacher is fed through caches, and moved by "
            f"{moved:.3g}"
        )
    return PASSED


def generation(subject: Subject) -> Outcome:
    """Tokens are drawn from the logits that are scored, and not with the help of later ones."""
    interface, text = subject.redrawn, sample.rows_of((_START + 2 * BLOCK,), 2, seed=11)
    first, other = (
        forced_logits(interface, text, start=_START, steps=STEPS, placeholder=token)
        for token in (0, 9)
    )
    moved = _distance(first, other)
    if moved > SAME:
        return fail(
            "generation must not hear of what stands where no token is yet, and logits moved by "
            f"{moved:.3g}: chains or recover read the tokens of a block before they are drawn"
        )
    apart = _distance(first, _in_parallel(subject, text))
    if apart > SAME:
        return fail(
            "generation must draw tokens from the logits that one parallel pass gives them, and "
            f"they differ by {apart:.3g}; an interface whose methods look at several places, other "
            "than by batch.hidden and batch.upper, says cached = False"
        )
    alone = forced_logits(interface, text[:1], start=_START, steps=STEPS)
    moved = _distance(alone, first[:1])
    if moved > SAME:
        return fail(f"generation must not depend on other rows, and logits moved by {moved:.3g}")
    return PASSED


def _in_parallel(subject: Subject, text: Tensor) -> Tensor:
    """Return the logits [B, T - start, V] of passes over all of the text, one per block."""
    interface, size = subject.redrawn, max(1, subject.redrawn.config.block)
    batch = subject.rows(interface, text[:, :-1])
    shift = -(_START - 1) % size
    parts = []
    for first in range(_START - 1, text.shape[1] - 1, size):
        current = torch.full(text.shape[:1], first)
        logits = chain_logits(interface, batch, shift=shift, current=current)
        parts.append(logits[:, first : first + size])
    return torch.cat(parts, dim=1)


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _joined(parts: list[Windows]) -> Windows:
    """Lay windows side by side: the documents of one row."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in vars(parts[0])
    }
    return replace(parts[0], **arrays)
