"""Every interface whose signals bear tokens learns a handful of windows by heart, and samples them.

The prefix tells which window it is: first tokens differ. So sampled next tokens must be right.
"""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from dihal_bench.baselines.c2d import C2DOptions
from dihal_bench.baselines.embedding import EmbeddingOptions
from dihal_bench.baselines.latent import LatentOptions

from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import InterfaceConfig, LossWeights, Step
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.registry import INTERFACES

from ..tiny import CONFIG, SPAN, VOCABULARY, backbone, make_windows

ROWS, LENGTH, STEPS = 8, 64, 1500
CASES = {
    "embedding": EmbeddingOptions(),
    "latent": LatentOptions(),
    "c2d": C2DOptions(layers=1, width=32),
}


def windows_by_heart() -> Batch:
    windows = make_windows([[(row, 3, LENGTH)] for row in range(ROWS)])
    tokens = np.random.default_rng(3).integers(2, VOCABULARY, (ROWS, LENGTH))
    tokens[:, 0] = 2 + np.arange(ROWS)
    return Batch.of(
        replace(windows, tokens=tokens), backbone(), layers=range(SPAN.blocks + 1), logits=True
    )


@torch.no_grad()
def sampled_accuracy(interface: Interface, batch: Batch) -> float:
    (signal,) = interface.chains(batch, steps=16, count=1)
    return recovery_accuracy(interface, batch, signal)


def learn(interface: Interface, batch: Batch, phase: str, enough: float) -> float:
    """Train until the accuracy in question suffices, or for ``STEPS`` steps; return it."""
    optimizer = torch.optim.AdamW(interface.parameters_in(phase), lr=4e-3, weight_decay=0.0)
    accuracy = 0.0
    for index in range(STEPS):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - 0.9 * index / STEPS)
        step = Step(index=index, of=STEPS, phase=phase)
        interface.total(interface.losses(batch, step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if index % 100 == 99:
            if phase == "recovery":
                accuracy = recovery_accuracy(interface, batch)
            else:
                accuracy = sampled_accuracy(interface, batch)
            if accuracy > enough:
                break
    return accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_samples_repeat_what_was_learnt_by_heart(name: str) -> None:
    torch.manual_seed(0)
    batch = windows_by_heart()
    config = InterfaceConfig(
        residual="none",
        denoiser=DenoiserConfig(width=64, heads=2, context_layers=1, layers=1),
        diffusion=CONFIG.diffusion,
        losses=LossWeights(),
        seed=0,
        options=CASES[name],
    )
    interface: Interface = INTERFACES.get(name)(backbone(), SPAN, config)
    interface.fit(SpanStatistics.collect([batch], interface.layers[0], interface.layers[-1]))
    for phase in interface.phases:
        t0 = time.time()
        accuracy = learn(interface, batch, phase, 0.99)
        print(name, phase, accuracy, time.time() - t0)
        if phase == "recovery":
            interface.settle([batch])
    assert accuracy > 0.99
