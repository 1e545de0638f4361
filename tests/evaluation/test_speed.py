"""What reading a text once costs, and what it saves."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from dihal_bench.core.registry import INTERFACES
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.evaluation.generation import decode
from dihal_bench.evaluation.incremental import (
    IncrementalDecoder,
    TeacherDecoder,
    decoder_of,
    rows_as_windows,
)
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Span
from dihal_bench.models.model import Backbone

from ..tiny import CONFIG

pytestmark = pytest.mark.nightly

LENGTH, PART, ROWS = 512, 64, 8
ATTEMPTS = 3  # the machine does other things as well


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    return Backbone.load("bundled")


def interface_on(teacher: Backbone) -> Interface:
    """The bridge at the middle, untrained, with parameters that are not zero."""
    config = replace(CONFIG, denoiser=DenoiserConfig())
    span = Span(a=0, b=4, blocks=teacher.blocks)
    interface: Interface = INTERFACES.get("hidden")(teacher, span, config)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in interface.parameters():
            parameter.normal_(std=0.5 * parameter.shape[-1] ** -0.5, generator=generator)
    return interface.eval()


def growth(reader: IncrementalDecoder) -> float:
    """Time per token at the end of a text over that at its beginning: medians of 64 tokens."""
    times = [time.perf_counter()]
    prompts = torch.zeros(ROWS, 1, dtype=torch.int64)
    decode(
        reader,
        prompts,
        lambda logits, offset: logits.argmax(-1),
        new=LENGTH,
        tick=lambda count: times.append(time.perf_counter()),
    )
    each = np.diff(times)
    return float(np.median(each[-PART:]) / np.median(each[1 : 1 + PART]))


def test_generation_grows_dearer_no_faster_than_the_teachers_own(teacher: Backbone) -> None:
    interface, documents = interface_on(teacher), torch.arange(ROWS)
    ratios = []
    for _ in range(ATTEMPTS):
        own = growth(decoder_of(interface, documents, steps=4))
        ratios.append(own / growth(TeacherDecoder(teacher)))
        if ratios[-1] <= 1.3:
            break
    assert min(ratios) <= 1.3, ratios


@torch.no_grad()
def logits_of(interface: Interface, tokens: torch.Tensor) -> torch.Tensor:
    windows = rows_as_windows(tokens, torch.zeros(len(tokens), dtype=torch.int64))
    batch = Batch.of(windows, interface.backbone)
    return interface.recover(next(iter(interface.samples(batch, steps=4, count=1))), batch)


def test_one_pass_equals_a_loop_over_prefixes_and_is_twenty_times_faster(
    teacher: Backbone,
) -> None:
    interface = interface_on(teacher)
    tokens = torch.randint(2, 4000, (1, 128), generator=torch.Generator().manual_seed(0))
    ratios = []
    for _ in range(ATTEMPTS):
        begun = time.perf_counter()
        whole = logits_of(interface, tokens)
        once = time.perf_counter() - begun
        loop = torch.cat([logits_of(interface, tokens[:, : i + 1])[:, -1:] for i in range(128)], 1)
        ratios.append((time.perf_counter() - begun - once) / once)
        if ratios[-1] >= 20:
            break
    scale = float(whole.max() - whole.min())
    assert float((whole - loop).abs().max()) < 1e-4 * scale
    assert max(ratios) >= 20, ratios
