"""Generative perplexity as others define it: no two of these agree, nor with ours.

For comparison with published numbers only. Read from the sources of Duo (which MDLM shares), of
BD3-LMs, and of the ``perplexity`` measurement of Hugging Face ``evaluate``. The first two drop
samples that do not fill a batch; here none is, which is theirs where the batch divides them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.data.tokens import document_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dihal_bench.evaluation.samples.judge import Judge

_CONTEXT, _STRIDE = 1024, 512  # tokens


def compat_perplexity(mode: str, judge: Judge, texts: Sequence[str], *, length: int) -> float:
    """Return the generative perplexity of texts in the definition of ``mode``.

    Args:
        mode: "duo", "bd3lms" or "hf-evaluate".
        judge: the model that scores.
        texts: samples; Duo and BD3-LMs leave special tokens in them.
        length: tokens that the generator's samples have: Duo and BD3-LMs cut the judge's there.

    Raises:
        UserError: the mode is unknown, or nothing can be scored.
    """
    if mode not in _MODES:
        raise UserError(f"--compat {mode} is unknown; choose one of {', '.join(_MODES)}.")
    value = _MODES[mode](judge, texts, length)
    if not math.isfinite(value):
        raise UserError(f"--compat {mode}: no sample has a token that it scores.")
    return value


def _duo(judge: Judge, texts: Sequence[str], length: int) -> float:
    """Disjoint windows; every token but a window's first, and ends of text up to a second one.

    Shorter samples are padded with ends of text, of which the first counts as if it were theirs.
    """
    context = judge.model.info.most(_CONTEXT)
    end = judge.model.tokenizer.eos_token_id
    rows = _padded([row[:length] for row in _encode(judge, texts)], end)
    total = count = 0.0
    for row, nll in zip(rows, judge.losses(rows, context, context).nll, strict=True):
        for start in range(0, len(row), context):
            ids, own = np.array(row[start : start + context]), nll[start : start + context]
            is_end = ids == end if end is not None else np.zeros(len(ids), dtype=bool)
            counted = (~is_end | (np.cumsum(is_end) == 1))[1:]
            total += float(own[1:][counted].sum())
            count += float(counted.sum())
    return math.exp(total / count) if count else math.nan


def _bd3lms(judge: Judge, texts: Sequence[str], length: int) -> float:
    """Overlapping windows; every token that is no end of text, but the sample's first."""
    context = judge.model.info.most(_CONTEXT)
    rows = [row[:length] for row in _encode(judge, texts)]
    end = judge.model.tokenizer.eos_token_id
    total = count = 0.0
    for row, nll in zip(rows, judge.losses(rows, context, min(_STRIDE, context)).nll, strict=True):
        counted = np.isfinite(nll) & (np.array(row) != (-1 if end is None else end))
        total += float(nll[counted].sum())
        count += float(counted.sum())
    return math.exp(total / count) if count else math.nan


def _hf_evaluate(judge: Judge, texts: Sequence[str], length: int) -> float:
    """Every token given BOS, cut at the context; the mean of the samples' perplexities."""
    del length
    prefix = document_prefix(judge.model.tokenizer)[:1]
    if not prefix:
        raise UserError("--compat hf-evaluate needs a judge whose tokenizer has BOS or EOS.")
    rows = [prefix + row for row in _encode(judge, texts)]
    context = judge.model.info.most(max(map(len, rows), default=1))
    rows = [row[:context] for row in rows]
    found = [
        float(np.nanmean(nll[1:]))
        for nll in judge.losses(rows, context, context).nll
        if len(nll) > 1
    ]
    return float(np.mean(np.exp(found))) if found else math.nan


def _encode(judge: Judge, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = judge.model.tokenizer
    return [list(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"]) for t in texts]


def _padded(rows: list[list[int]], end: int | None) -> list[list[int]]:
    """Return rows of the length of the longest; without an end of text as they are."""
    if end is None:
        return rows
    longest = max(map(len, rows), default=0)
    return [row + [end] * (longest - len(row)) for row in rows]


_MODES: dict[str, Callable[[Judge, Sequence[str], int], float]] = {
    "duo": _duo,
    "bd3lms": _bd3lms,
    "hf-evaluate": _hf_evaluate,
}
COMPAT = tuple(_MODES)
