"""What a model must show on a few tokens before its results are trusted.

Whatever training, scoring and generation do with a model is done here once, on two short rows:
uncut and cut at the lowest, a middle and the highest layer, in one pass, packed, backwards, and
cached in pieces. A model that fails is refused with its family and the stage; one that fails in
its cached pass alone is scored, but cannot generate.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError, first_sentence
from dihal_bench.models.cut import Cut, unsupported
from dihal_bench.models.packing import Documents

_LENGTH = 8  # tokens per row; fewer where a model reads fewer
_LEAST = 4
_COARSE = 1e-5  # rounding unit above which a precision is a half one
_EXPERTS = 0.02  # a few places whose experts are others


@dataclass(frozen=True)
class ModelTraits:
    """How an accepted model is to be used.

    Attributes:
        cut: its partial passes.
        hidden_size: D, the width of its states.
        vocab_size: V, the width of its logits.
        packs_natively: whether restarting position ids are all that it needs to keep documents
            apart; if not, each document gets a row of its own.
        cached_fault: why its cached pass cannot be used; empty if it can.
    """

    cut: Cut
    hidden_size: int
    vocab_size: int
    packs_natively: bool
    cached_fault: str


def examine(model: Any, context: int | None) -> ModelTraits:
    """Try all that later stages rely on.

    Args:
        model: a transformers causal language model, in eval mode, its parameters frozen.
        context: the longest sequence that it was made for, if that is known.

    Raises:
        UserError: it is not causal, cannot be cut, or fails on the way; family and stage are named.
    """
    with _stage(model, "an uncut pass"):
        tokens = _some_tokens(model, min(_LENGTH, max(_LEAST, context or _LENGTH)))
        logits = check_causal(model, tokens)
    with _stage(model, "looking for its blocks"):
        cut = Cut(model)
    layers = _layers(cut)
    rows, width = cut.model.get_input_embeddings().weight.shape[0], logits.shape[-1]
    if rows < width:
        raise unsupported(model.config, f"it has {rows} embeddings for logits of {width} tokens")
    with _stage(model, "a pass that is cut"):
        states = check_cut(cut, tokens, logits, layers)
    with _stage(model, "a gradient to a layer's states"):
        check_gradient(cut, states[layers[-2]], layers[-2])
    with _stage(model, "a pass over packed documents"):
        packs = check_packed(cut, tokens, logits, layers)
    fault = cached_fault(cut, tokens, logits, layers)
    return ModelTraits(cut, states[0].shape[-1], width, packs, fault)


@torch.no_grad()
def check_causal(model: Any, tokens: Tensor) -> Tensor:
    """Refuse models whose logits depend on later tokens; return the logits [2, T, V] of ``tokens``.

    Args:
        model: the model.
        tokens: two rows that share their first half, [2, T].

    Raises:
        UserError: the rows' first logits differ, or are not finite.
    """
    output = model(input_ids=tokens, use_cache=False, return_dict=True)
    logits = cast("Tensor", output.logits)
    if not bool(logits.isfinite().all()):
        raise UserError(f"the model's logits are not finite in {logits.dtype}: use another dtype")
    half = tokens.shape[1] // 2
    if logits.dim() != 3 or not _agree(logits[1:, :half], logits[:1, :half]):
        raise UserError(
            f"a model of type {model.config.model_type!r} whose logits depend on later tokens, as "
            "in an encoder-only model, is not a causal language model: give a decoder-only one"
        )
    return logits


@torch.no_grad()
def check_cut(cut: Cut, tokens: Tensor, logits: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """Refuse models that cannot be left and entered at a layer without a trace; return the states.

    Raises:
        UserError: upper(lower(tokens)) differs from the model, or a pass changes states after they
            were recorded.
    """
    config, whole = cut.model.config, cut.run(tokens, layers=layers, logits=True)
    if list(whole.hidden) != list(layers):
        raise unsupported(config, "its forward does not run its list of blocks in order")
    for layer, state in whole.hidden.items():
        hidden = cut.run(tokens, layers=[layer]).hidden[layer]
        entry = hidden.clone()
        rejoined = cut.run(entry, layer, logits=True).logits
        if rejoined is None or not _agree(rejoined, logits):
            raise unsupported(config, f"cut at layer {layer} and rejoined, it is another model")
        if not (_agree(state, hidden) and torch.equal(entry, hidden)):
            raise unsupported(config, f"the states of layer {layer} are overwritten further up")
        if state.shape != (*tokens.shape, whole.hidden[0].shape[-1]):
            raise unsupported(config, f"the states of layer {layer} have another shape than h_0")
    if whole.logits is None or not _agree(whole.logits, logits):
        raise unsupported(config, "with its states recorded, it is another model")
    return whole.hidden


def check_gradient(cut: Cut, hidden: Tensor, layer: int) -> None:
    """Refuse models through whose upper part no gradient flows.

    Raises:
        UserError: it is zero or not finite.
    """
    with torch.enable_grad():
        logits = cut.run(hidden.requires_grad_(), layer, logits=True).logits
        assert logits is not None
        (gradient,) = torch.autograd.grad(logits.float().square().mean(), hidden)
    if not bool(gradient.isfinite().all()) or not bool(gradient.any()):
        raise unsupported(cut.model.config, f"no gradient flows back to layer {layer}")


@torch.no_grad()
def check_packed(cut: Cut, tokens: Tensor, logits: Tensor, layers: Sequence[int]) -> bool:
    """Whether restarting position ids keep documents apart; if not, rows of their own must.

    Every document is a beginning of a row, whose logits are known.

    Raises:
        UserError: neither does.
    """
    length = tokens.shape[1]
    ends = length // 2 + 1, length // 3  # of the rows' first documents
    positions = torch.stack([torch.cat([torch.arange(n), torch.arange(length - n)]) for n in ends])
    positions = positions.to(tokens.device)
    packed, alone = tokens.gather(1, positions), logits[torch.arange(2)[:, None], positions]
    try:
        if _packs(cut, packed, positions, layers, alone):
            return True
    except Exception:  # noqa: BLE001, S110 - of a foreign forward: rows of their own are tried next
        pass
    documents = Documents.find(positions)
    assert documents is not None
    split = documents.split(packed)
    for layer in layers:
        hidden = documents.split(documents.join(cut.run(split, layers=[layer]).hidden[layer]))
        apart = cut.run(hidden, layer, logits=True).map(documents.join).logits
        if apart is None or not _agree(apart, alone, rough=_rough(cut.model)):
            reason = f"packed documents touch each other at layer {layer}"
            raise unsupported(cut.model.config, reason)
    return False


def _packs(
    cut: Cut, packed: Tensor, positions: Tensor, layers: Sequence[int], alone: Tensor
) -> bool:
    """Whether packed rows, cut at each of ``layers``, give what documents alone give."""
    states = cut.run(packed, layers=layers, positions=positions).hidden
    for layer in layers:
        logits = cut.run(states[layer], layer, logits=True, positions=positions).logits
        if logits is None or not _agree(logits, alone, rough=_rough(cut.model)):
            return False
    return True


@torch.no_grad()
def cached_fault(cut: Cut, tokens: Tensor, logits: Tensor, layers: Sequence[int]) -> str:
    """Say why the cached pass in pieces cannot be used; empty if it gives what one pass gives."""
    length, middle = tokens.shape[1], layers[-2]
    short, long = (length - 1,), (length // 2 - 1, length // 2)  # as in generation; more pieces
    ways = {layer: _pieces(tokens, long if layer == middle else short) for layer in layers}
    faults = (_cached_fault(cut, ways[n], n, logits, to_logits=True) for n in layers)
    return next(filter(None, faults), "")


@torch.no_grad()
def examine_window(traits: ModelTraits, window: int) -> ModelTraits:
    """Try one window of the length that will be used, at a middle layer.

    Sliding windows, sparse attention and rotary tables that depend on the length show here alone.
    States of the highest layer are compared: the head reads each place by itself.

    Raises:
        UserError: the window cannot be read, or its first states depend on its length.
    """
    if window <= _LENGTH:  # as `examine` did
        return traits
    cut, half = traits.cut, window // 2
    middle, top = len(cut.blocks) // 2, len(cut.blocks)
    with _stage(cut.model, f"a window of {window} tokens"):
        tokens = _some_tokens(cut.model, window)[:1]
        states = cut.run(tokens, layers=[top]).hidden[top]
        packs = traits.packs_natively and _packs_window(cut, tokens, states)
        pieces = _pieces(tokens, (half, half + 1, window - 1))
        fault = traits.cached_fault or _cached_fault(cut, pieces, middle, states)
        if fault:  # else pieces that never saw the rest have shown as much
            _check_window(cut, tokens, states)
    return replace(traits, packs_natively=packs, cached_fault=fault)


def _packs_window(cut: Cut, tokens: Tensor, states: Tensor) -> bool:
    """Whether a document that begins in the middle of a window reads as at its beginning.

    Args:
        cut: the model.
        tokens: of a window, [1, T].
        states: h_N of them, [1, T, D].
    """
    top, half = len(cut.blocks), tokens.shape[1] // 2
    twice = tokens[:, :half].repeat(1, 2)
    positions = torch.arange(half, device=tokens.device).repeat(1, 2)
    packed = cut.run(twice, layers=[top], positions=positions).hidden[top]
    return _agree(packed[:, half:], states[:, :half], rough=_rough(cut.model))


def _check_window(cut: Cut, tokens: Tensor, states: Tensor) -> None:
    """Refuse models whose first states in a window depend on the rest, or that cannot be cut there.

    Args:
        cut: the model.
        tokens: of a window, [1, T].
        states: h_N of them, [1, T, D].
    """
    top, length, rough = len(cut.blocks), tokens.shape[1], _rough(cut.model)
    for end in (min(_LENGTH, length), length // 2, length - 1):
        short = cut.run(tokens[:, :end], layers=[top]).hidden[top]
        if not _agree(short, states[:, :end], rough=rough):
            reason = f"in {length} tokens the states of the first {end} depend on those after them"
            raise unsupported(cut.model.config, reason)
    middle = cut.run(tokens, layers=[top // 2]).hidden[top // 2]
    if not _agree(cut.run(middle, top // 2, layers=[top]).hidden[top], states):
        reason = f"cut at layer {top // 2} in a window of {length} tokens, it is another model"
        raise unsupported(cut.model.config, reason)


def _cached_fault(
    cut: Cut, pieces: Sequence[Tensor], layer: int, expected: Tensor, *, to_logits: bool = False
) -> str:
    """Say what is wrong with pieces that are cached and cut at a layer.

    Args:
        cut: the model.
        pieces: tokens, [B, t] each.
        layer: where both parts meet, each with a cache of its own.
        expected: h_N of all of them in one pass, [B, T, D], or the logits [B, T, V].
        to_logits: whether those are logits.
    """
    top = len(cut.blocks)
    try:
        below, above = cut.new_cache(), cut.new_cache()
        states = [cut.run(piece, layers=[layer], cache=below).hidden[layer] for piece in pieces]
        ways = [cut.run(h, layer, layers=[top], logits=to_logits, cache=above) for h in states]
        parts = [way.logits if to_logits else way.hidden[top] for way in ways]
        found = torch.cat([part for part in parts if part is not None], dim=1)
    except Exception as error:  # noqa: BLE001 - a foreign forward's; the model is scored without it
        return f"its cached pass fails with {_cause(error)}"
    if not _agree(found, expected, rough=_rough(cut.model)):
        return f"cut at layer {layer}, its cached pass differs from the uncached one"
    return ""


@contextmanager
def _stage(model: Any, stage: str) -> Iterator[None]:
    """Put whatever a model's own code raises into one sentence."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a foreign forward may raise anything, and none of it is a bug here
        raise unsupported(model.config, f"{stage} fails with {_cause(error)}") from error


def _cause(error: Exception) -> str:
    return f"{type(error).__name__} ({first_sentence(error)})"


def _layers(cut: Cut) -> list[int]:
    """The lowest layers, a middle one, and the highest."""
    top = len(cut.blocks)
    return sorted({0, 1, top // 2, top})


def _some_tokens(model: Any, length: int) -> Tensor:
    """Two rows that share their first half and, as text does, often repeat a token; [2, length]."""
    config = model.config.get_text_config(decoder=True)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(int(config.vocab_size), (2, length), generator=generator)
    again = torch.randint(min(_LEAST, length), (2, length), generator=generator)
    repeated = torch.rand(2, length, generator=generator) < 0.5
    rows = torch.where(repeated, rows.gather(1, again), rows)
    rows[1, : length // 2] = rows[0, : length // 2]
    return rows.to(model.device)


def _pieces(tokens: Tensor, ends: Sequence[int]) -> list[Tensor]:
    """Tokens [B, T] cut at some places."""
    return [tokens[:, start:end] for start, end in pairwise((0, *ends, tokens.shape[1]))]


def _rough(model: Any) -> float:
    """Root mean square by which passes of other shapes may differ, relative to what they give.

    In half precision every block rounds; and where experts are chosen, rounding turns a near tie
    around. Elsewhere, 0: `_agree` is strict.
    """
    eps = torch.finfo(model.dtype).eps
    experts = any("expert" in name for name, _ in model.named_modules())
    return max(16 * eps if eps > _COARSE else 0.0, _EXPERTS if experts else 0.0)


def _agree(one: Tensor, other: Tensor, *, rough: float = 0.0) -> bool:
    """Whether two tensors differ by rounding alone: by 1e-4 of the largest entry, or 8 units of it.

    Args:
        one: a tensor.
        other: a tensor.
        rough: the relative root mean square that will do, too.
    """
    if one.shape != other.shape:
        return False
    difference, size = one.double() - other.double(), other.double()
    tolerance = max(1e-4, 8 * torch.finfo(other.dtype).eps)
    if bool(difference.abs().max() <= tolerance * size.abs().max()):
        return True
    return bool(difference.square().mean() <= rough**2 * size.square().mean())
