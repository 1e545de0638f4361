"""What a GGUF says of itself, and whether transformers reads all of it."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.models.loading import explained

# Pre-tokenizers (``tokenizer.ggml.pre``) that transformers does not tell apart from GPT-2's.
_GPT2 = frozenset({"gpt-2", "phi-2", "mpt", "olmo"})  # which is theirs
DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""Those that cut text before and after every digit first, and then as GPT-2's does."""

_QUIET_KEYS = frozenset({"vocab_size", "tensor_data_layout"})  # nothing follows from them


def check_magic(name: str, path: Path) -> None:
    """Refuse a file that does not begin as a GGUF does.

    Raises:
        UserError: It does not, or cannot be read.
    """
    remedy = "give a GGUF, or the folder that holds config.json and the weights"
    with explained(f"backbone {name!r} cannot be read", remedy), path.open("rb") as file:
        begins = file.read(4)
    if begins != b"GGUF":
        raise UserError(f"backbone {name!r} is a file, but no GGUF: {remedy}")


@dataclass(frozen=True)
class GgufFile:
    """A GGUF whose header has been read and whose tensors are all there.

    Attributes:
        name: Of the backbone, for messages.
        path: Of the file.
        reader: The gguf package's.
    """

    name: str
    path: Path
    reader: Any

    @classmethod
    def read(cls, name: str, path: Path) -> "GgufFile":
        """Read the header.

        Raises:
            UserError: It is not all of a GGUF, or one of several parts, or its tensors are of a
                type that cannot be dequantised.
        """
        from gguf import GGUFReader

        with explained(f"the GGUF of backbone {name!r} is damaged or cut short", "get it again"):
            own = cls(name, path, GGUFReader(path))
        own._check_parts()
        own._check_types()
        return own

    def get(self, key: str) -> Any:
        """The value of a key of the metadata; None if there is none."""
        field = self.reader.fields.get(key)
        return None if field is None else field.contents()

    @property
    def architecture(self) -> str:
        """For example ``llama``."""
        return str(self.get("general.architecture"))

    @property
    def licence(self) -> str | None:
        """What the file states."""
        licence = self.get("general.license")
        return None if licence is None else str(licence).lower()

    @property
    def file_type(self) -> str:
        """How the weights are quantised, for example ``Q4_K_M``; as most are, if it is not said."""
        from gguf import LlamaFileType

        stated = self.get("general.file_type")
        if stated in {*LlamaFileType}:
            return str(LlamaFileType(stated).name.removeprefix("MOSTLY_").removeprefix("ALL_"))
        sizes: Counter[str] = Counter()
        for tensor in self.reader.tensors:
            sizes[tensor.tensor_type.name] += int(tensor.n_elements)
        return sizes.most_common(1)[0][0]

    @property
    def pre_tokenizer(self) -> str | None:
        """The name of the rules by which text is cut before it is merged; None: no such rules."""
        byte_level = self.get("tokenizer.ggml.model") == "gpt2"
        return str(self.get("tokenizer.ggml.pre")) if byte_level else None

    def check_model(self, model: Any) -> None:
        """Refuse a file of which transformers has left something out.

        Raises:
            UserError: The file states what the configuration does not have, or holds more or fewer
                values than the model.
        """
        ignored = sorted(key for key in self._own_keys if not self._is_taken(key, model.config))
        if ignored:
            raise self._refusal(f"states {', '.join(ignored[:3])}, which transformers does not use")
        held = {value.data_ptr(): value.numel() for value in model.state_dict().values()}
        there = sum(int(tensor.n_elements) for tensor in self.reader.tensors)
        if there != sum(held.values()):
            raise self._refusal(
                f"holds {there:,} values, of which transformers makes a model of "
                f"{sum(held.values()):,}{self._odd_tensors()}"
            )

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a tokenizer that is not the one that the file describes.

        Raises:
            UserError: It cuts text by unknown rules, or begins text in another way.
        """
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

        rules = self.pre_tokenizer
        if rules is not None and rules not in {*GGUF_PRE_TOKENIZER_SPLITS, *_GPT2, *DIGITS}:
            raise self._refusal(f"cuts text by rules called {rules!r}, which are not known here")
        begins = tokenizer("x").input_ids[0] == tokenizer.bos_token_id
        if begins != bool(self._stated("add_bos_token", rules is None)):
            raise self._refusal("says of the token before a text what transformers does not do")
        spaced = tokenizer.tokenize("x")[0] != "x"
        if rules is None and spaced != bool(self._stated("add_space_prefix", True)):
            raise self._refusal("says of the space before a text what transformers does not do")

    def _stated(self, key: str, default: bool) -> Any:
        value = self.get(f"tokenizer.ggml.{key}")
        return default if value is None else value

    @cached_property
    def _own_keys(self) -> list[str]:
        """Keys of this architecture, without its name in front."""
        start = f"{self.architecture}."
        return [key.removeprefix(start) for key in self.reader.fields if key.startswith(start)]

    def _is_taken(self, key: str, config: Any) -> bool:
        """Whether a key has gone into the configuration, or says what that says anyway."""
        from transformers.integrations import GGUF_CONFIG_MAPPING

        known = GGUF_CONFIG_MAPPING.get(self.architecture) or GGUF_CONFIG_MAPPING.get(
            config.model_type
        )
        if known is None or known.get(key) is not None or key in _QUIET_KEYS:
            return True
        value, own = self.get(f"{self.architecture}.{key}"), _meant(config).get(key)
        if isinstance(value, int | float) and isinstance(own, int | float):
            return math.isclose(value, own, rel_tol=1e-6)
        return bool(value == own)

    def _odd_tensors(self) -> str:
        usual = ("blk.", "token_embd", "output")
        odd = [t.name for t in self.reader.tensors if not t.name.startswith(usual)]
        return f" (it may be {', '.join(odd[:3])} that it leaves out)" if odd else ""

    def _check_parts(self) -> None:
        parts = self.get("split.count")
        if parts is not None and parts > 1:
            raise self._refusal(f"is one of {parts} parts", "merge them with gguf-split --merge")

    def _check_types(self) -> None:
        from gguf import GGML_QUANT_SIZES
        from gguf.quants import dequantize

        for kind in {tensor.tensor_type for tensor in self.reader.tensors}:
            try:
                dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
            except NotImplementedError as error:
                raise self._refusal(
                    f"holds weights of type {kind.name}, which cannot be dequantised"
                ) from error

    def _refusal(self, reason: str, remedy: str = "") -> UserError:
        remedy = remedy or "give the model as a folder or hub id with safetensors weights"
        return UserError(f"the GGUF of backbone {self.name!r} {reason}: {remedy}")


def _meant(config: Any) -> dict[str, Any]:
    """What a configuration says under the keys of a GGUF, where these may differ."""
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)  # where layers differ
    share = rope.get("partial_rotary_factor") or 1.0
    norms = ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")
    return {
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "attention.layer_norm_epsilon": next(
            (getattr(config, name) for name in norms if hasattr(config, name)), None
        ),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
        "context_length": getattr(config, "max_position_embeddings", None),
        "rope.freq_base": rope.get("rope_theta"),
        "rope.dimension_count": width and width * share,
        "rope.scaling.type": "none",
        "use_parallel_residual": getattr(config, "use_parallel_residual", None),
    }
