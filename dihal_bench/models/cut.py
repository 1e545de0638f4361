"""A causal language model entered at one layer and left at another, without copying a weight.

Layer ``l`` is the residual stream h_l after block ``l`` (h_0: what enters the first block), before
any final norm. Every partial pass runs the model's *own* forward on a shallow copy in which only
the list of blocks is exchanged, so that positions, rotary tables, masks, embedding multipliers,
final norm and softcapping are the model's business and exact by construction. The list keeps its
length: models look up per-layer settings (sliding or full attention) and cache slots by its index.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dihal_bench.core.errors import UserError

TESTED_FAMILIES = (
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text",
    "gpt2", "gpt_neox", "opt",
)  # fmt: skip
"""Model types that every test run covers; all of them are accepted by the same checks at load."""

# Whatever a configuration asks for: capturing would leave its hooks on the blocks at every pass.
_PLAIN = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}


@dataclass
class ForwardStates:
    """What one pass leaves behind.

    Attributes:
        hidden: h_l [B, T, D] for every layer l asked for.
        logits: Next-token logits [B, T, V], or None when not asked for.
    """

    hidden: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "ForwardStates":
        """Applies ``change`` to every tensor."""
        hidden = {layer: change(state) for layer, state in self.hidden.items()}
        return ForwardStates(hidden, None if self.logits is None else change(self.logits))


class Halt(Exception):
    """Ends a pass from inside a block; carries what is worth keeping."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value


class Recorder:
    """Keeps the states of some layers, and ends the pass at ``last`` if that is a layer."""

    def __init__(self, layers: Collection[int], last: int | None) -> None:
        self.layers = layers
        self.last = last
        self.states = ForwardStates()

    def see(self, layer: int, state: Tensor) -> None:
        """Takes note of h_layer [B, T, D]; raises Halt when nothing further is wanted."""
        if layer in self.layers:
            self.states.hidden[layer] = state
        if layer == self.last:
            raise Halt


class StandIn(nn.Module):
    """Takes a block's place in the list and answers for the block's attributes."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


class Skip(StandIn):
    """Hands its input on in the form in which the block would return it."""

    def __init__(self, block: nn.Module, arity: int | None) -> None:
        super().__init__(block)
        self.arity = arity

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """Returns the state [B, T, D], inside a tuple for models whose blocks return one."""
        return hidden_states if self.arity is None else (hidden_states, *[None] * (self.arity - 1))


class Stage(StandIn):
    """Runs a block, on a given state if there is one, and shows the recorder what passes."""

    def __init__(
        self,
        block: nn.Module,
        index: int,
        recorder: Recorder,
        *,
        entering: Tensor | None,
        is_top: bool,
    ) -> None:
        super().__init__(block)
        self.index, self.is_top = index, is_top
        self.recorder = recorder
        self.entering = entering

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Returns what the block returns."""
        state = hidden_states if self.entering is None else self.entering
        self.recorder.see(self.index, state)
        output = self.block(state, *args, **kwargs)
        if self.is_top:
            state = output[0] if isinstance(output, (tuple, list)) else output
            self.recorder.see(self.index + 1, state)
        return output


class Cut:
    """Partial passes through a frozen causal language model.

    Nothing is registered on the model and nothing outlives a call: each pass makes its own view.

    Args:
        model: A transformers causal language model in eval mode.

    Raises:
        UserError: The model has no single list of blocks that could be exchanged.
    """

    def __init__(self, model: Any) -> None:
        _tell_transformers()
        self.model = model
        self.path = path_to_blocks(model)
        self.blocks: list[nn.Module] = list(model.get_submodule(".".join(self.path)))
        self.embedding_width = int(model.get_input_embeddings().weight.shape[-1])
        self.arity = self._arity()

    def run(
        self,
        entry: Tensor,
        start: int | None = None,
        *,
        layers: Collection[int] = (),
        logits: bool = False,
        cache: Any = None,
        positions: Tensor | None = None,
    ) -> ForwardStates:
        """Runs the blocks from ``start`` to the last one that is needed.

        Args:
            entry: Tokens [B, T], or with ``start`` the states h_start [B, T, D].
            start: The layer whose states are given; None starts at the tokens.
            layers: The layers to record, each at least ``start``; needed unless logits are wanted.
            logits: Whether to go on to the logits, and not stop after the last of ``layers``.
            cache: A DynamicCache(config=model.config) that sees only this kind of pass; updated.
            positions: Position ids [B, T].

        Returns:
            The recorded states and, if asked for, the logits.
        """
        first, last = start or 0, len(self.blocks) if logits else max(layers)
        recorder = Recorder(layers, None if logits else last)
        inputs: dict[str, Any] = {"input_ids": entry}
        if start is not None:
            inputs = {"inputs_embeds": self._placeholder(entry)}
        if positions is not None:
            inputs["position_ids"] = positions
        if cache is not None:
            inputs["past_key_values"] = cache
        view = self._view(self._stages(recorder, first, None if start is None else entry))
        documents = _none if positions is None else _number_in_row
        with contextlib.suppress(Halt), _documents_are(documents):
            recorder.states.logits = view(**_PLAIN | inputs, use_cache=cache is not None).logits
        if cache is not None:
            self._keep_time(cache, [*range(first), *range(last, len(self.blocks))], entry)
        return recorder.states

    def new_cache(self) -> Any:
        """An empty cache for one kind of pass."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def _stages(self, recorder: Recorder, start: int, entering: Tensor | None) -> list[nn.Module]:
        """The list of blocks of one pass: skipped below ``start``, watched from there on."""
        top = len(self.blocks) - 1
        entrance = min(start, top)  # h_N enters at the last block, which is then skipped as well
        stages: list[nn.Module] = []
        for index, block in enumerate(self.blocks):
            stage = block if index >= start else Skip(block, self.arity)
            if index >= entrance:
                stage = Stage(
                    stage,
                    index,
                    recorder,
                    entering=entering if index == entrance else None,
                    is_top=index == top,
                )
            stages.append(stage)
        return stages

    def _view(self, stages: Iterable[nn.Module]) -> Any:
        """A copy of the model, down to the list of blocks only, with ``stages`` for blocks."""
        view = owner = _shallow(self.model)
        for name in self.path[:-1]:
            child = _shallow(owner._modules[name])
            owner._modules[name] = child
            owner = child
        owner._modules[self.path[-1]] = nn.ModuleList(stages)
        return view

    def _placeholder(self, hidden: Tensor) -> Tensor:
        """Embeddings [B, T, E] that nobody reads; E is not D in models with an input projection."""
        return hidden.new_zeros(*hidden.shape[:2], self.embedding_width)

    def _keep_time(self, cache: Any, idle: Iterable[int], entry: Tensor) -> None:
        """Lets cache layers without a block grow too: masks and positions are read off layer 0."""
        batch, length = entry.shape[:2]
        dummy = torch.zeros(batch, 1, length, 1, dtype=self.model.dtype, device=entry.device)
        for index in idle:
            cache.update(dummy, dummy, index)

    def _arity(self) -> int | None:
        """The length of the tuple or list that a block returns; None for a bare tensor."""

        def catch(_: nn.Module, __: Any, output: Any) -> None:
            raise Halt(output)

        with self.blocks[0].register_forward_hook(catch):
            try:
                token = torch.zeros(1, 1, dtype=torch.long, device=self.model.device)
                self.model(input_ids=token, use_cache=False)
            except Halt as halt:
                return len(halt.value) if isinstance(halt.value, (tuple, list)) else None
        raise unsupported(self.model.config, "its forward does not run its list of blocks")


def unsupported(config: Any, reason: str) -> UserError:
    """The error that refuses an architecture."""
    return UserError(
        f"unsupported architecture {config.model_type!r}: {reason}; use a decoder-only transformer "
        f"with one list of blocks (tested: {', '.join(TESTED_FAMILIES)})"
    )


def _shallow(module: Any) -> Any:
    """A copy that shares everything except the table of submodules, which copy.copy would share."""
    twin = copy.copy(module)
    twin._modules = module._modules.copy()
    return twin


_documents: ContextVar[Callable[[Tensor], Tensor | None]] = ContextVar("documents")


@functools.cache
def _tell_transformers() -> None:
    """Has transformers ask here which documents are packed, in passes that know it.

    It would look itself, in every pass, and an accelerator would have to be waited for.
    """
    from transformers import masking_utils

    look = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda ids: _documents.get(look)(ids)


@contextlib.contextmanager
def _documents_are(known: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Answers for the passes of this thread."""
    token = _documents.set(known)
    try:
        yield
    finally:
        _documents.reset(token)


def _none(position_ids: Tensor) -> None:
    """Every row is one document."""
    del position_ids


def _number_in_row(position_ids: Tensor) -> Tensor:
    """The number of every token's document in its row, [B, T]."""
    return (torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1) != 1).cumsum(-1)


def path_to_blocks(model: Any) -> list[str]:
    """The attribute names that lead to the list of blocks: the one shallowest list of N modules."""
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    paths: list[list[str]] = [
        name.split(".")
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    depth = min(map(len, paths), default=0)
    shallowest = [path for path in paths if len(path) == depth]
    if len(shallowest) != 1:
        raise unsupported(
            model.config, f"{len(shallowest)} lists of {count} blocks where one is needed"
        )
    return shallowest[0]
