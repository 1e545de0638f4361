"""A GGUF read from its bytes, and its model run, by the published layout alone, in float64.

Nothing of the gguf package, transformers or torch: what these make of a file is compared with this.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SCALARS = "BbHhIif?"  # by their number in the format; 8 and 9 are strings and arrays
_WIDE = {10: "Q", 11: "q", 12: "d"}


def _half(raw: NDArray[np.uint8]) -> Array:
    """Two bytes per block [B, 2] -> [B, 1]."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float64)


def _nibbles(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[B, n] -> [B, 2n]: the low halves of all bytes, then the high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _q4_0(b: NDArray[np.uint8]) -> Array:
    return _half(b[:, :2]) * (_nibbles(b[:, 2:]).astype(float) - 8)


def _q4_1(b: NDArray[np.uint8]) -> Array:
    return _half(b[:, :2]) * _nibbles(b[:, 4:]) + _half(b[:, 2:4])


def _q5_0(b: NDArray[np.uint8]) -> Array:
    fifth = np.unpackbits(b[:, 2:6], axis=1, bitorder="little")
    return _half(b[:, :2]) * (_nibbles(b[:, 6:]) + 16.0 * fifth - 16)


def _q8_0(b: NDArray[np.uint8]) -> Array:
    return _half(b[:, :2]) * np.ascontiguousarray(b[:, 2:]).view(np.int8)


def _q4_k(b: NDArray[np.uint8]) -> Array:
    packed = b[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    least = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    q = b[:, 16:].reshape(-1, 4, 32)
    values = np.stack([q & 15, q >> 4], axis=2).reshape(-1, 8, 32)
    steps = (_half(b[:, :2]) * scales)[:, :, None]
    return (steps * values - (_half(b[:, 2:4]) * least)[:, :, None]).reshape(-1, 256)


def _q6_k(b: NDArray[np.uint8]) -> Array:
    low, high = b[:, :128].reshape(-1, 2, 2, 32), b[:, 128:192].reshape(-1, 2, 1, 32)
    fours = np.concatenate([low & 15, low >> 4], axis=2)  # (B, 2, 4, 32)
    twos = high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    values = (fours | twos << 4).astype(float) - 32
    scales = np.ascontiguousarray(b[:, 192:208]).view(np.int8).reshape(-1, 2, 4, 2)
    steps = scales.repeat(16, axis=3).astype(float)
    return _half(b[:, 208:]) * (steps * values).reshape(-1, 256)


def _bf16(b: NDArray[np.uint8]) -> Array:
    wide = np.ascontiguousarray(b).view("<u2").astype(np.uint32) << 16
    return wide.view(np.float32).astype(np.float64)


TYPES = {  # number -> values in a block, its bytes, and how they are read
    0: (1, 4, lambda b: np.ascontiguousarray(b).view("<f4").astype(np.float64)),
    1: (1, 2, _half),
    2: (32, 18, _q4_0),
    3: (32, 20, _q4_1),
    6: (32, 22, _q5_0),
    8: (32, 34, _q8_0),
    12: (256, 144, _q4_k),
    14: (256, 210, _q6_k),
    30: (1, 2, _bf16),
}


class _Cursor:
    def __init__(self, blob: bytes):
        self.blob, self.at = blob, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self.blob, self.at)
        self.at += struct.calcsize(f"<{form}")
        return value

    def string(self) -> str:
        size = self.take("Q")
        self.at += size
        return self.blob[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(_WIDE.get(kind) or _SCALARS[kind])


@dataclass
class PlainGguf:
    """Metadata, and tensors in float64 in the order of their names in the file."""

    facts: dict[str, Any]
    tensors: dict[str, Array]

    @classmethod
    def read(cls, path: Path) -> "PlainGguf":
        cursor = _Cursor(path.read_bytes())
        assert cursor.take("4s") == b"GGUF"
        assert cursor.take("I") == 3
        count, keys = cursor.take("Q"), cursor.take("Q")
        facts = {}
        for _ in range(keys):
            key = cursor.string()
            facts[key] = cursor.value(cursor.take("I"))
        table = []
        for _ in range(count):
            name, dimensions = cursor.string(), cursor.take("I")
            shape = [cursor.take("Q") for _ in range(dimensions)]
            table.append((name, shape[::-1], cursor.take("I"), cursor.take("Q")))
        step = facts.get("general.alignment", 32)
        start = -(-cursor.at // step) * step
        data = np.frombuffer(cursor.blob, np.uint8)
        tensors = {}
        for name, shape, kind, offset in table:
            values, size, read = TYPES[kind]
            end = start + offset + int(np.prod(shape)) // values * size
            tensors[name] = read(data[start + offset : end].reshape(-1, size)).reshape(shape)
        return cls(facts, tensors)

    def of(self, key: str, default: Any = None) -> Any:
        return self.facts.get(f"{self.facts['general.architecture']}.{key}", default)

    def nll(self, tokens: list[int]) -> Array:
        """-ln p of every token but the first."""
        run = _gemma3 if self.facts["general.architecture"] == "gemma3" else _llama
        logits = run(self, tokens)[:-1]
        top = logits.max(-1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        return total - logits[np.arange(len(tokens) - 1), tokens[1:]]


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def _angles(length: int, width: int, base: float) -> Array:
    return np.arange(length)[:, None] * base ** (-np.arange(0, width, 2) / width)  # (T, w/2)


def _turn(even: Array, odd: Array, angles: Array) -> tuple[Array, Array]:
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]  # of x: (T, heads, w/2)
    return even * cos - odd * sin, even * sin + odd * cos


def _rope_pairs(x: Array, angles: Array) -> Array:
    """Turn neighbours, as the llama architecture does in its own order of rows."""
    return np.stack(_turn(x[..., ::2], x[..., 1::2], angles), axis=-1).reshape(x.shape)


def _rope_halves(x: Array, angles: Array) -> Array:
    return np.concatenate(_turn(*np.split(x, 2, axis=-1), angles), axis=-1)


def _attend(q: Array, k: Array, v: Array, window: int | None = None) -> Array:
    """q [T, H, w], k and v [T, G, w] -> [T, H * w]."""
    length, heads, width = q.shape
    k, v = (x.repeat(heads // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("thw,shw->hts", q, k) / np.sqrt(width)
    ago = np.arange(length)[:, None] - np.arange(length)
    scores[:, (ago < 0) | (ago >= (window or length))] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hts,shw->thw", weights, v).reshape(length, -1)


def _llama(model: PlainGguf, tokens: list[int]) -> Array:
    w, epsilon = model.tensors, model.of("attention.layer_norm_rms_epsilon")
    heads, width = model.of("attention.head_count"), model.of("rope.dimension_count")
    groups, x = model.of("attention.head_count_kv", heads), w["token_embd.weight"][tokens]
    angles = _angles(len(tokens), width, model.of("rope.freq_base", 10000.0))
    for block in range(model.of("block_count")):

        def of(name: str, number: int = block) -> Array:
            return w[f"blk.{number}.{name}.weight"]

        h = _norm(x, of("attn_norm"), epsilon)
        q, k, v = (
            (h @ of(f"attn_{name}").T).reshape(len(tokens), count, width)
            for name, count in (("q", heads), ("k", groups), ("v", groups))
        )
        x = x + _attend(_rope_pairs(q, angles), _rope_pairs(k, angles), v) @ of("attn_output").T
        h = _norm(x, of("ffn_norm"), epsilon)
        gate, up = h @ of("ffn_gate").T, h @ of("ffn_up").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ of("ffn_down").T
    head = w.get("output.weight", w["token_embd.weight"])
    return _norm(x, w["output_norm.weight"], epsilon) @ head.T


def _gemma3(model: PlainGguf, tokens: list[int]) -> Array:
    w, epsilon = model.tensors, model.of("attention.layer_norm_rms_epsilon")
    heads, groups = model.of("attention.head_count"), model.of("attention.head_count_kv")
    width, length = model.of("attention.key_length"), len(tokens)
    table = w["token_embd.weight"]
    x = table[tokens] * np.sqrt(table.shape[1])
    for block in range(model.of("block_count")):

        def of(name: str, number: int = block) -> Array:
            return w[f"blk.{number}.{name}.weight"]

        whole = block % 6 == 5  # every sixth block sees everything, at the base that is stated
        angles = _angles(length, width, model.of("rope.freq_base") if whole else 10000.0)
        h = _norm(x, of("attn_norm"), epsilon)
        q, k, v = (
            (h @ of(f"attn_{name}").T).reshape(length, count, width)
            for name, count in (("q", heads), ("k", groups), ("v", groups))
        )
        q = _rope_halves(_norm(q, of("attn_q_norm"), epsilon), angles)
        k = _rope_halves(_norm(k, of("attn_k_norm"), epsilon), angles)
        window = None if whole else model.of("attention.sliding_window")
        seen = _attend(q, k, v, window) @ of("attn_output").T
        x = x + _norm(seen, of("post_attention_norm"), epsilon)
        h = _norm(x, of("ffn_norm"), epsilon)
        gate, up = h @ of("ffn_gate").T, h @ of("ffn_up").T
        gelu = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        x = x + _norm((gelu * up) @ of("ffn_down").T, of("post_ffw_norm"), epsilon)
    return _norm(x, w["output_norm.weight"], epsilon) @ table.T
