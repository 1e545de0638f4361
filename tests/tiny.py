"""A tiny random teacher, hand-made windows, and interfaces fitted to them: what tests share."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.tokens import Windows
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import InterfaceConfig, LossWeights, Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.model import Backbone

BLOCKS, HIDDEN, VOCABULARY, BOS = 4, 32, 64, 1
SPAN = Span(a=1, b=3, blocks=BLOCKS)
CONFIG = InterfaceConfig(
    residual="none",
    denoiser=DenoiserConfig(width=16, heads=2, context_layers=1, layers=1),
    diffusion=DiffusionConfig(),
    losses=LossWeights(ce=1.0, kd=1.0),
    seed=7,
)


def make_windows(rows: Sequence[Sequence[tuple[int, int, int]]], seed: int = 0) -> Windows:
    """Windows of pieces (document, first offset, length); a document starts with BOS.

    Ids 2..59 occur with a frequency that falls; ids from 60 never do.
    """
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 59)
    tokens, positions, documents, offsets = [], [], [], []
    for row in rows:
        documents.append(np.concatenate([np.full(n, document) for document, _, n in row]))
        offsets.append(np.concatenate([first + np.arange(n) for _, first, n in row]))
        positions.append(np.concatenate([np.arange(n) for *_, n in row]))
        drawn = generator.choice(np.arange(2, 60), len(offsets[-1]), p=weights / weights.sum())
        tokens.append(np.where(offsets[-1] == 0, BOS, drawn))
    ones = np.ones_like(np.stack(tokens))
    return Windows(
        tokens=np.stack(tokens),
        positions=np.stack(positions),
        documents=np.stack(documents),
        offsets=np.stack(offsets),
        scored=np.stack(positions) > 0,
        bytes=ones,
        words=ones,
    )


def slice_windows(
    windows: Windows, rows: slice = slice(None), columns: slice = slice(None)
) -> Windows:
    """A part of the windows; columns start at 0."""
    return replace(windows, **{k: v[rows, columns].copy() for k, v in vars(windows).items()})


TEXT = make_windows([[(r, 3, 9), (20 + r, 0, 15)] for r in range(12)], seed=1)
PROBE = make_windows([[(50, 4, 6), (51, 0, 8)], [(52, 0, 14)]], seed=2)


@functools.cache
def backbone(dtype: torch.dtype = torch.float32) -> Backbone:
    """The teacher, the same in any precision."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=BOS,
        pad_token_id=None,
    )
    return Backbone.from_model(LlamaForCausalLM(config).to(dtype), None, name="tiny")


def batch_of(windows: Windows, dtype: torch.dtype = torch.float32) -> Batch:
    """With everything that an interface may ask for."""
    return Batch.of(windows, backbone(dtype), layers=(SPAN.a, SPAN.b), logits=True)


@functools.cache
def statistics() -> SpanStatistics:
    """Of ``TEXT``, in three batches."""
    parts = (slice_windows(TEXT, slice(r, r + 4)) for r in (0, 4, 8))
    return SpanStatistics.collect((batch_of(part) for part in parts), SPAN.a, SPAN.b)


def build(name: str, **settings: object) -> Interface:
    """A fitted interface, its trunk untrained."""
    kind = INTERFACES.get(name)
    interface: Interface = kind(backbone(), SPAN, replace(CONFIG, **settings))
    interface.fit(statistics())
    return interface


def redrawn(name: str, **settings: object) -> Interface:
    """A fitted interface in float64, its parameters drawn anew: untrained, it would hide leaks."""
    kind = INTERFACES.get(name)
    interface: Interface = kind(backbone(torch.float64), SPAN, replace(CONFIG, **settings))
    interface.fit(statistics())
    interface.double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in interface.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    return interface


@torch.no_grad()
def logits_of(interface: Interface, windows: Windows, *, steps: int = 4) -> torch.Tensor:
    """Next-token logits of one chain."""
    batch = batch_of(windows, interface.backbone.model.dtype)
    (signal,) = interface.chains(batch, steps=steps, count=1)
    return interface.recover(signal, batch)


def states(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, h_a and h_b of all places but starts, flat, float64."""
    inside = batch.positions > 0
    tokens, lower, upper = batch.tokens, batch.hidden(SPAN.a), batch.hidden(SPAN.b)
    return tuple(x[inside].double().numpy() for x in (tokens, lower, upper))
