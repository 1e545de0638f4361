"""Writes a GGUF of a tiny random Llama, whose every part can be changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from transformers.convert_slow_tokenizer import bytes_to_unicode

WIDTH, HEADS, GROUPS, BLOCKS, INNER = 64, 4, 2, 3, 96
HEAD = WIDTH // HEADS
BYTES = list(bytes_to_unicode().values())
MERGES = ["t h", "th e", "Ġ the", "i n", "Ġ Ġ", "1 2"]
SPECIAL = ["<|unknown|>", "<|begin|>", "<|end|>"]
TOKENS = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
FACTS: dict[str, Any] = {
    "general.name": "Tiny",
    "general.license": "mit",
    "llama.block_count": BLOCKS,
    "llama.context_length": 64,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": GROUPS,
    "llama.rope.freq_base": 5000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": len(TOKENS),
    "llama.rope.dimension_count": HEAD,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(TOKENS) - 3),
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
}


def tensors() -> dict[str, np.ndarray]:
    """Of a model whose logits differ between tokens by some nats."""
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH)}
    for block in range(BLOCKS):
        inner = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (GROUPS * HEAD, WIDTH),
            "attn_v": (GROUPS * HEAD, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        shapes |= {f"blk.{block}.{name}.weight": shape for name, shape in inner.items()}
    found = {name: rng.normal(0, 0.15, shape) for name, shape in shapes.items()}
    norms = ["output_norm.weight"]
    norms += [f"blk.{b}.{name}_norm.weight" for b in range(BLOCKS) for name in ("attn", "ffn")]
    found |= {name: rng.normal(1, 0.2, WIDTH) for name in norms}
    return {name: value.astype(np.float32) for name, value in found.items()}


def write_gguf(
    path: Path,
    kind: str = "Q4_1",
    *,
    architecture: str = "llama",
    facts: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray | None] | None = None,
) -> Path:
    """Write the file.

    Args:
        path: of the file.
        kind: type of its matrices; vectors are F32.
        architecture: what it says of itself.
        facts: metadata that is changed; None: left out.
        arrays: tensors that are changed; None: left out.
    """
    writer = GGUFWriter(path, architecture)
    own = FACTS | {"general.file_type": int(_FILE_TYPES[kind])} | dict(facts or {})
    for key, value in own.items():
        _add(writer, key, value)
    own_type = GGMLQuantizationType[kind]
    for name, value in (tensors() | dict(arrays or {})).items():
        if value is not None and value.dtype == np.float32 and value.ndim > 1:
            writer.add_tensor(name, quantize(value, own_type), raw_dtype=own_type)
        elif value is not None:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "BF16": 32}


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif value is not None:
        writer.add_array(key, value)
