"""The frozen backbone: a pretrained causal language model, its tokenizer, and its layers.

Notation: tokens x [B, T]; h_l [B, T, D] the residual stream after block l of N, before any final
norm; ``upper(lower(x, l), l)`` is the model, to rounding, for every l in 0..N.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dihal_bench.core.environment import keep_freed_memory
from dihal_bench.core.errors import UserError
from dihal_bench.models import loading, unpack, verify
from dihal_bench.models.cut import ForwardStates
from dihal_bench.models.fingerprint import fingerprint as fingerprint_of
from dihal_bench.models.loading import context_of, is_sharded, shard_blocks
from dihal_bench.models.packing import Documents, Positions
from dihal_bench.models.unpack import Source


@dataclass(frozen=True)
class BackboneInfo:
    """What a record keeps of a backbone.

    Attributes:
        name: The name it was asked for by.
        fingerprint: SHA-256 of the configuration class and of all parameters (names and contents).
        blocks: N.
        hidden_size: D.
        vocab_size: V.
        parameters: Number of parameters, tied ones counted once.
        dtype: For example ``float32``.
        architecture: The model type, for example ``llama``.
        context: Longest sequence that the model was made for, in tokens; None: it says nothing.
        source: What it was unpacked from, of a quantised model.
    """

    name: str
    fingerprint: str
    blocks: int
    hidden_size: int
    vocab_size: int
    parameters: int
    dtype: str
    architecture: str
    context: int | None
    source: Source | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; a source only where there is one."""
        fields = asdict(self)
        return fields if self.source else {k: v for k, v in fields.items() if k != "source"}

    def reads(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens is within the context, as far as that is known."""
        return tokens == self.most(tokens)

    def most(self, tokens: int) -> int:
        """The length of the part of so many tokens that is within the context."""
        return tokens if self.context is None else min(tokens, self.context)


class Backbone:
    """A frozen causal language model that is entered and left at any layer.

    ``positions`` [B, T] (int64) are position ids that restart at 0 wherever a document starts in a
    packed window; attention then stays inside documents, whatever the architecture. None: one
    document per row. The lower and the upper part of a pass need the same positions.

    ``cache`` continues a pass: one from `new_cache`, kept by the caller for one method at one layer
    and updated in place, so that tokens or states fed piece by piece give what one pass gives.

    Build it with `load` or `from_model`.

    Attributes:
        model: The transformers model, in eval mode, no parameter requiring a gradient.
        tokenizer: Its tokenizer.
        name: The name it was asked for by.
        blocks: N.
        hidden_size: D.
        vocab_size: V.
        context: Longest sequence that the model was made for, in tokens; None: it says nothing.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str | None = None,
        source: Source | None = None,
    ) -> None:
        keep_freed_memory()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self._fingerprint = fingerprint
        self._source = source
        self.context = context_of(model.config, tokenizer)
        self._traits = verify.examine(model, self.context)
        self._cut = self._traits.cut
        self.blocks = len(self._cut.blocks)
        self.hidden_size = self._traits.hidden_size
        self.vocab_size = self._traits.vocab_size

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        local_files_only: bool | None = None,
        shard: bool = False,
    ) -> "Backbone":
        """Loads a pretrained model, safetensors only, without running anybody's code.

        Args:
            name_or_path: A local folder, a hub id, ``bundled``, ``bundled-judge``, a GGUF (a file,
                or ``owner/repository:FILE.gguf``), or a name of `named.NAMED`.
            device: Where the model lives and computes.
            dtype: The dtype of its weights and states.
            local_files_only: True never asks the hub; None leaves it to the hub's own settings.
            shard: Whether the blocks are spread over all processes, which then have to run the same
                passes at the same time.

        Raises:
            UserError: It cannot be found, read, or cut, or is not a causal language model.
        """
        place = loading.check_device(device)
        loading.check_dtype(place, dtype)
        source = unpack.unpacked(name_or_path, local_files_only) or loading.locate(name_or_path)
        config = loading.read_config(name_or_path, source, local_files_only)
        tokenizer = loading.read_tokenizer(name_or_path, source, local_files_only)
        model, report = loading.read_weights(name_or_path, source, config, dtype, local_files_only)
        fingerprint = fingerprint_of(model) if shard else None  # which reads whole weights
        if shard:
            shard_blocks(model, place)
        backbone = cls(
            model.to(place),
            tokenizer,
            name=name_or_path,
            fingerprint=fingerprint,
            source=Source.of(source),
        )
        loading.check_complete(name_or_path, report)
        loading.check_vocabulary(name_or_path, tokenizer, backbone.vocab_size)
        return backbone

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, *, name: str) -> "Backbone":
        """Wraps a model in memory, which is frozen in place.

        Raises:
            UserError: It cannot be cut, or is not causal.
        """
        return cls(model, tokenizer, name=name)

    @cached_property
    def info(self) -> BackboneInfo:
        """What a record keeps; reads every weight once, on first use."""
        return BackboneInfo(
            name=self.name,
            fingerprint=self._fingerprint or fingerprint_of(self.model),
            blocks=self.blocks,
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            dtype=str(self.model.dtype).removeprefix("torch."),
            architecture=self.model.config.model_type,
            context=self.context,
            source=self._source,
        )

    @property
    def device(self) -> torch.device:
        """Where the model lives, and where tokens and states must be."""
        device: torch.device = self.model.device
        return device

    @property
    def sharded(self) -> bool:
        """Whether its blocks are spread over several processes."""
        return is_sharded(self.model)

    def check_ids(self, rows: Iterable[Sequence[int]], where: str) -> None:
        """Refuse tokens without an embedding, such as some that were added to the tokenizer.

        Raises:
            UserError: There is one.
        """
        highest = max((max(row) for row in rows if len(row)), default=0)
        if highest >= self.vocab_size:
            raise UserError(
                f"{where}: the token {self.tokenizer.decode([highest])!r} has the id {highest}, "
                f"but backbone {self.name!r} has {self.vocab_size} embeddings: give text without "
                "it, or the weights that belong to the tokenizer"
            )

    def new_cache(self) -> Any:
        """An empty cache for one method at one layer; lower and upper parts need one each.

        Raises:
            UserError: The model can only be scored.
        """
        self.require_generation()
        return self._cut.new_cache()

    def embed(self, tokens: Tensor, positions: Positions = None) -> Tensor:
        """h_0 [B, T, D]: what enters the first block, learned positions and scaling included."""
        return self.lower(tokens, 0, positions)

    def lower(
        self, tokens: Tensor, layer: int, positions: Positions = None, *, cache: Any = None
    ) -> Tensor:
        """h_layer [B, T, D] of tokens [B, T]; blocks above ``layer`` (0..N) are not run."""
        self._check_layers(layer)
        return self._run(tokens, None, [layer], False, positions, cache).hidden[layer]

    def states(
        self,
        tokens: Tensor,
        positions: Positions = None,
        layers: Sequence[int] | None = None,
        *,
        logits: bool = False,
    ) -> ForwardStates:
        """Several layers from one pass, which stops after the last unless logits are wanted.

        Args:
            tokens: Tokens [B, T].
            positions: Position ids [B, T] of packed windows.
            layers: Which layers of 0..N; None means all.
            logits: Whether to return the logits as well.
        """
        chosen = range(self.blocks + 1) if layers is None else layers
        self._check_layers(*chosen)
        if not chosen and not logits:
            raise UserError("states needs at least one layer, or logits=True")
        return self._run(tokens, None, chosen, logits, positions)

    def upper(
        self, hidden: Tensor, layer: int, positions: Positions = None, *, cache: Any = None
    ) -> Tensor:
        """Next-token logits [B, T, V] of h_layer [B, T, D], to which gradients flow back."""
        self._check_layers(layer)
        return self._logits(self._run(hidden, layer, [], True, positions, cache))

    def span(
        self, hidden: Tensor, a: int, b: int, positions: Positions = None, *, cache: Any = None
    ) -> Tensor:
        """h_b [B, T, D] of h_a [B, T, D] through blocks a+1..b, to which gradients flow back."""
        self._check_layers(a, b)
        if a > b:
            raise UserError(f"a span runs upwards, not from layer {a} to layer {b}: swap them")
        return self._run(hidden, a, [b], False, positions, cache).hidden[b]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [B, T, V] of h_N [B, T, D]: final norm, output head, and any softcapping."""
        return self.upper(hidden, self.blocks)

    def logits(self, tokens: Tensor, positions: Positions = None, *, cache: Any = None) -> Tensor:
        """Next-token logits [B, T, V] of tokens [B, T]."""
        return self._logits(self._run(tokens, None, [], True, positions, cache))

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Next-token logits [B, T, V] of tokens [B, T], and the states that the head makes them of.

        Those are what other tools call the last hidden states: after the final norm, [B, T, E].
        """
        seen: list[Tensor] = []
        head = self.model.get_output_embeddings()
        with head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
            logits = self.logits(tokens)
        return logits, seen[-1]

    @property
    def packs_natively(self) -> bool:
        """Whether the model keeps documents apart itself; if not, each gets a row of its own."""
        return self._traits.packs_natively

    @property
    def only_scored(self) -> str:
        """Why the model can be scored but cannot generate; empty if it can do both."""
        return self._traits.cached_fault

    def require_generation(self) -> None:
        """Refuse to generate where the cached pass is not the model.

        Raises:
            UserError: It is not.
        """
        if self.only_scored:
            raise UserError(
                f"backbone {self.name!r} of type {self.model.config.model_type!r} cannot generate "
                f"({self.only_scored}): choose another, or leave out what needs generated text"
            )

    def check_window(self, window: int) -> None:
        """Try one window of the length that will be used; generation may turn out not to work.

        Raises:
            UserError: It exceeds the context, or does not give what a short one gives.
        """
        if not self.info.reads(window):
            raise UserError(
                f"text.window={window} exceeds the context of {self.name} ({self.context}); "
                "give a smaller --set text.window."
            )
        self._traits = verify.examine_window(self._traits, window)

    def _run(
        self,
        entry: Tensor,
        start: int | None,
        layers: Sequence[int],
        logits: bool,
        positions: Positions = None,
        cache: Any = None,
    ) -> ForwardStates:
        """One partial pass from tokens, or from h_start, with documents kept apart."""
        if start is not None:
            entry = entry.to(self.model.dtype)
        if cache is not None and positions is not None:
            raise UserError("positions and cache exclude each other: a cached row is one document")
        documents = positions if isinstance(positions, Documents) else Documents.find(positions)
        if documents is None:
            return self._cut.run(entry, start, layers=layers, logits=logits, cache=cache)
        if self.packs_natively:
            return self._cut.run(
                entry, start, layers=layers, logits=logits, positions=documents.offset
            )
        apart = self._cut.run(documents.split(entry), start, layers=layers, logits=logits)
        return apart.map(documents.join)

    def _check_layers(self, *layers: int) -> None:
        for layer in layers:
            if not 0 <= layer <= self.blocks:
                raise UserError(
                    f"layer {layer} does not exist: {self.name!r} has {self.blocks} blocks, "
                    f"so give a layer from 0 to {self.blocks}"
                )

    @staticmethod
    def _logits(states: ForwardStates) -> Tensor:
        assert states.logits is not None
        return states.logits
