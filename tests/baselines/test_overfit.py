"""Every interface whose signals bear tokens learns a handful of windows by heart, and samples them.

The prefix tells which window it is: first tokens differ. So sampled next tokens must be right.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from dihal_bench.baselines.c2d import C2DOptions
from dihal_bench.baselines.embedding import EmbeddingOptions
from dihal_bench.baselines.latent import LatentOptions
from dihal_bench.core.registry import INTERFACES
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import InterfaceConfig, LossWeights, Step
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.model import Backbone

from ..tiny import CONFIG, SPAN, VOCABULARY, backbone, make_windows

ROWS, LENGTH, STEPS, RATE = 8, 64, 1500, 4e-3
OPTIONS = {
    "embedding": EmbeddingOptions(),
    "latent": LatentOptions(),
    "c2d": C2DOptions(layers=1),
}


@functools.cache
def teacher() -> Backbone:
    """The tiny one with such large embeddings that a state tells its token, as in trained ones."""
    model = copy.deepcopy(backbone().model)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(30)
    return Backbone.from_model(model, None, name="tiny")


@functools.cache
def random_text(seed: int) -> Batch:
    """Windows whose next tokens nothing tells but the window itself, by its first token."""
    windows = make_windows([[(row, 3, LENGTH)] for row in range(ROWS)])
    tokens = np.random.default_rng(seed).integers(2, VOCABULARY, (ROWS, LENGTH))
    tokens[:, 0] = 2 + np.arange(ROWS)
    return Batch.of(
        replace(windows, tokens=tokens), teacher(), layers=range(SPAN.blocks + 1), logits=True
    )


def built(name: str, batch: Batch) -> Interface:
    config = InterfaceConfig(
        residual="none",
        denoiser=DenoiserConfig(width=64, heads=2, context_layers=1, layers=1),
        diffusion=CONFIG.diffusion,
        losses=LossWeights(ce=0.0, kd=0.0),
        seed=0,
        options=OPTIONS[name],
    )
    interface: Interface = INTERFACES.get(name)(teacher(), SPAN, config)
    interface.fit(SpanStatistics.collect([batch], interface.layers[0], interface.layers[-1]))
    return interface


def learn(
    interface: Interface,
    phase: str,
    text: Sequence[Batch],
    accuracy: Callable[[], float],
    enough: float,
) -> float:
    """Train a phase until the accuracy is enough, or for ``STEPS`` steps; return it."""
    optimizer = torch.optim.AdamW(interface.parameters_in(phase), lr=RATE, weight_decay=0.0)
    for index in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - 0.9 * index / STEPS)
        step = Step(index=index, of=STEPS, phase=phase)
        interface.total(interface.losses(text[index % len(text)], step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if index % 100 == 99 and accuracy() > enough:
            break
    return accuracy()


@torch.no_grad()
def sampled_accuracy(interface: Interface, batch: Batch) -> float:
    (signal,) = interface.chains(batch, steps=16, count=1)
    return recovery_accuracy(interface, batch, signal)


@pytest.mark.parametrize(
    "name", ["embedding", *(pytest.param(n, marks=pytest.mark.nightly) for n in ("latent", "c2d"))]
)
def test_samples_repeat_what_was_learnt_by_heart(name: str) -> None:
    """The recovery sees other text than the denoiser: what the windows say, it cannot know."""
    by_heart, other = random_text(0), random_text(1)
    interface = built(name, other)
    if "recovery" in interface.phases:
        oracle = partial(recovery_accuracy, interface, by_heart)
        fresh = [random_text(2 + index) for index in range(50)]
        assert learn(interface, "recovery", fresh, oracle, 0.999) > 0.99
        interface.settle([other])
    nothing = torch.zeros_like(interface.target(by_heart))
    assert recovery_accuracy(interface, by_heart, nothing) < 0.1
    sampled = partial(sampled_accuracy, interface, by_heart)
    assert sampled() < 0.1
    assert learn(interface, "diffusion", [by_heart], sampled, 0.99) > 0.99
