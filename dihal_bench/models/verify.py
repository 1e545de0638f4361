"""What a model must show on a few tokens before its results are trusted."""

from typing import Any, cast

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.models.cut import Cut, unsupported
from dihal_bench.models.packing import Documents


def check_causal(model: Any) -> None:
    """Refuses models whose logits depend on later tokens, encoders with a language head among them.

    Raises:
        UserError: Changing all tokens but the first moved the first logits, or they are not finite.
    """
    tokens = _some_tokens(model, 8)
    changed = tokens[:, :1].expand_as(tokens)
    before, after = _plain_logits(model, tokens), _plain_logits(model, changed)
    if not bool(before.isfinite().all()):
        raise UserError(f"the model's logits are not finite in {before.dtype}: use another dtype")
    if not _agree(after[:, :1], before[:, :1]):
        raise UserError(
            f"a model of type {model.config.model_type!r} whose logits depend on later tokens, as "
            "in an encoder-only model, is not a causal language model: give a decoder-only one"
        )


def check_cut(cut: Cut) -> None:
    """Refuses models that cannot be left and entered at a layer without a trace.

    Raises:
        UserError: upper(lower(tokens)) differs from the model at the middle layer.
    """
    tokens = _some_tokens(cut.model, 8)
    middle = len(cut.blocks) // 2
    hidden = cut.run(tokens, layers=[middle]).hidden.get(middle)
    if hidden is None:
        raise unsupported(cut.model.config, "its forward does not run its list of blocks in order")
    logits = cut.run(hidden, middle, logits=True).logits
    if logits is None or not _agree(logits, _plain_logits(cut.model, tokens)):
        raise unsupported(
            cut.model.config, f"cut at layer {middle} and rejoined, it is another model"
        )


def packs_natively(cut: Cut) -> bool:
    """Whether restarting position ids are all that this model needs to keep documents apart."""
    tokens = _some_tokens(cut.model, 16)
    positions = torch.cat([torch.arange(12), torch.arange(4)])[None].to(tokens.device)
    documents = Documents.find(positions)
    assert documents is not None
    try:
        packed = cut.run(tokens, logits=True, positions=positions).logits
    except TypeError:  # a forward without position_ids, as models with ALiBi have
        return False
    apart = cut.run(documents.split(tokens), logits=True).map(documents.join).logits
    assert packed is not None
    assert apart is not None
    return _agree(packed, apart)


@torch.no_grad()
def _plain_logits(model: Any, tokens: Tensor) -> Tensor:
    """The model's logits [B, T, V], uncut."""
    output = model(input_ids=tokens, use_cache=False, return_dict=True)
    return cast("Tensor", output.logits)


def _some_tokens(model: Any, length: int) -> Tensor:
    """Different tokens [1, length], the same for a vocabulary at every call."""
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    return torch.arange(1, length + 1, device=model.device)[None] * 7919 % vocabulary


def _agree(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ by less than 1e-4 of the largest entry, or 8 units of rounding."""
    tolerance = max(1e-4, 8 * torch.finfo(other.dtype).eps)
    difference = (one.double() - other.double()).abs().max()
    return bool(difference <= tolerance * other.double().abs().max())
