"""What runs on an accelerator, on a pretended one: no devices are mixed, no step waits."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dihal_bench.config.schema import RunConfig
from dihal_bench.core.devices import place
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES, SAMPLERS
from dihal_bench.evaluation.block_bound import block_bound
from dihal_bench.evaluation.evaluate import has_bound
from dihal_bench.evaluation.gate import leak_gates
from dihal_bench.evaluation.generation import generate
from dihal_bench.evaluation.likelihood import SHUFFLED, TEACHER, TRUE, ZEROED, Row, score
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Step
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.model import Backbone
from dihal_bench.runs import inputs
from dihal_bench.runs.inputs import Inputs
from dihal_bench.training.config import TrainConfig
from dihal_bench.training.trainee import TrainState

from ..conftest import Tiny, dihal
from ..tiny import CONFIG, SPAN, TEXT, slice_windows
from ..tiny import backbone as on_cpu
from ..tiny import statistics as cpu_statistics
from .pretend import OnAccelerator, device, traffic

TRAIN = TrainConfig(autocast=False)
REGIMES = {"causal": 0, "sequence": 4}
CASES = [
    (name, regime)
    for name in INTERFACES.names()
    for regime in REGIMES
    if regime in INTERFACES.get(name).regimes
]


class Packed:
    """``TEXT`` as scoring asks for it."""

    window = TEXT.tokens.shape[1]

    def __len__(self) -> int:
        return len(TEXT.tokens)

    def batch(self, indices: list[int]):
        return slice_windows(TEXT, slice(indices[0], indices[-1] + 1))


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    model = copy.deepcopy(on_cpu().model).to(device())
    return Backbone.from_model(model, None, name="tiny")


@pytest.fixture(scope="module")
def statistics(teacher: Backbone) -> SpanStatistics:
    parts = [slice_windows(TEXT, slice(r, r + 4)) for r in (0, 4, 8)]
    batches = (Batch.of(part, teacher, layers=(SPAN.a, SPAN.b)) for part in parts)
    return SpanStatistics.collect(batches, SPAN.a, SPAN.b)


def built(name: str, backbone: Backbone, statistics: SpanStatistics, **settings) -> Interface:
    interface: Interface = INTERFACES.get(name)(backbone, SPAN, replace(CONFIG, **settings))
    interface.fit(statistics)
    return interface


def close(one: Tensor, other: Tensor, tolerance: float = 1e-3) -> bool:
    assert isinstance(one, OnAccelerator)
    return torch.allclose(one.cpu().double(), other.double(), atol=tolerance, rtol=tolerance)


def train(interface: Interface) -> list[dict[str, float]]:
    """Two steps of every phase; return their losses."""
    losses = []
    for phase in interface.phases:
        state = TrainState("it", interface, TRAIN, phase)
        for index in range(2):
            batch = Batch.of(TEXT, interface.backbone, layers=interface.layers)
            found = state.learn(batch, Step(index=index, of=2, phase=phase))
            losses.append({name: float(value) for name, value in found.items()})
            state.update(index, 2)
        state.adopt_average()
        if phase == "recovery":
            interface.settle([Batch.of(TEXT, interface.backbone, layers=interface.layers)])
    return losses


def test_the_device_is_as_strict_as_a_real_one() -> None:
    here, there = torch.arange(3), torch.arange(3, device=device())
    for mixed in (lambda: here + there, lambda: torch.ones(3)[there], lambda: there.numpy()):
        with pytest.raises(RuntimeError):
            mixed()
    with traffic() as seen:
        assert (there + torch.tensor(1))[here].tolist() == [1, 2, 3]
        float(there.sum()), there[there > 1], there[0], here.to(device())
        place(here, device())
    assert sum(seen.waits.values()) == 3
    assert sum(seen.uploads.values()) == 2
    assert sum(seen.ahead.values()) == 1


def test_the_teacher_reads_packed_single_and_cached(teacher: Backbone) -> None:
    tokens, positions = (torch.from_numpy(x) for x in (TEXT.tokens, TEXT.positions))
    there = tokens.to(device())
    packed = teacher.logits(there, positions.to(device()))
    assert close(packed, on_cpu().logits(tokens, positions))
    whole = teacher.logits(there)
    assert close(whole, on_cpu().logits(tokens))
    cache = teacher.new_cache()
    pieces = [teacher.logits(part, cache=cache) for part in (there[:, :5], there[:, 5:])]
    assert close(torch.cat(pieces, dim=1), whole.cpu())


def test_statistics_are_those_of_the_cpu(statistics: SpanStatistics) -> None:
    for name in ("mean", "std", "token_mean", "covariance"):
        assert close(getattr(statistics, name), getattr(cpu_statistics(), name))


@pytest.mark.parametrize(("name", "regime"), CASES)
def test_every_interface_trains_and_scores(
    name: str, regime: str, teacher: Backbone, statistics: SpanStatistics
) -> None:
    both, losses = [], []
    for backbone, own in ((teacher, statistics), (on_cpu(), cpu_statistics())):
        interface = built(name, backbone, own, block=REGIMES[regime])
        losses.append(train(interface))
        count = 2 if interface.stochastic else 1
        signals = (SHUFFLED, ZEROED, TRUE) if interface.stochastic else ()
        rows = [Row(subject=TEACHER), Row(subject="it", steps=2, chains=count)]
        rows += [Row(subject="it", steps=2, chains=count, signal=own) for own in signals]
        found = score(
            rows,
            {"it": interface},
            Packed(),
            backbone,
            windows=[0, 1, 2],
            batch=2,
            block=interface.config.block,
        )
        both.append([found[row].sums["nll@1"].sum() for row in rows])
        if has_bound(interface):
            nats, _ = block_bound(interface, Packed(), windows=[0, 1], batch=2, snr=25.0, draws=2)
            both[-1].append(nats.sum())
    for ours, theirs in zip(*losses, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    np.testing.assert_allclose(*both, rtol=1e-2)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_no_sampler_step_waits(
    sampler: str, regime: str, teacher: Backbone, statistics: SpanStatistics
) -> None:
    diffusion = replace(CONFIG.diffusion, sampler=sampler, self_conditioning=True)
    interface = built("hidden", teacher, statistics, block=REGIMES[regime], diffusion=diffusion)
    batch = Batch.of(TEXT, teacher, layers=interface.layers)
    list(interface.samples(batch, steps=1, count=1))  # what is copied once is there
    with traffic() as seen:
        list(interface.samples(batch, steps=5, count=2))
    assert not seen.waits
    assert not seen.uploads


@pytest.mark.parametrize("name", DENOISERS.names())
def test_every_denoiser(name: str, teacher: Backbone, statistics: SpanStatistics) -> None:
    chosen = replace(CONFIG.denoiser, name=name)
    drawn = []
    for backbone, own in ((teacher, statistics), (on_cpu(), cpu_statistics())):
        interface = built("hidden", backbone, own, denoiser=chosen)
        train(interface)
        batch = Batch.of(TEXT, backbone, layers=interface.layers)
        with torch.no_grad():
            drawn += interface.samples(batch, steps=3, count=1)
    assert close(*drawn, tolerance=1e-2)


def test_scoring_waits_for_rows_and_chains_not_for_steps(
    teacher: Backbone, statistics: SpanStatistics
) -> None:
    interface = built("hidden", teacher, statistics)
    counted = []
    for steps, chains in ((2, 2), (16, 2), (2, 8)):
        row = Row(subject="it", steps=steps, chains=chains)
        with traffic() as seen:
            score([row], {"it": interface}, Packed(), teacher, windows=range(12), batch=12)
        counted.append(sum(seen.waits.values()))
        assert sum(seen.ahead.values()) == 6  # the windows, and the places that are scored
    few, longer, more = counted
    assert few == longer
    assert more - few <= 6 * 4  # the frozen blocks look for documents, and so does transformers
    assert few - (more - few) // 3 <= 6  # besides: the places, the row, the teacher's documents


def test_the_gate_passes_in_float64(teacher: Backbone, statistics: SpanStatistics) -> None:
    interfaces = {name: built(name, teacher, statistics) for name in ("hidden", "embedding")}
    for interface in interfaces.values():
        train(interface)
    for result in leak_gates(interfaces, Packed(), length=12).values():
        assert result.verdict == "pass"
        assert result.dtype == "float64"


@pytest.mark.parametrize(("name", "regime"), CASES)
def test_every_interface_generates(
    name: str, regime: str, teacher: Backbone, statistics: SpanStatistics
) -> None:
    prompts = torch.from_numpy(TEXT.tokens[:2, 9:14])
    settings = {"new": 3, "steps": 2, "chains": 2, "top_p": 0.9}
    there = built(name, teacher, statistics, block=REGIMES[regime])
    here = built(name, on_cpu(), cpu_statistics(), block=REGIMES[regime])
    text = generate(there, prompts.to(device()), **settings)
    assert text.tolist() == generate(here, prompts, **settings).tolist()


def test_layers_are_located_as_on_the_cpu(tiny: Tiny, tmp_path) -> None:
    tables = []
    for where in (str(device()), "cpu"):
        status, out, err = dihal(
            "locate", *tiny.flags(), "--device", where, "--out", str(tmp_path / where[:3])
        )
        assert status == 0, err
        tables.append([line.split() for line in out.splitlines()[:5]])
    assert tables[0] == tables[1]


@pytest.mark.nightly
@pytest.mark.parametrize("flags", [("--layer", "auto"), ("--layer", "2", "--regime", "sequence")])
def test_a_whole_run(flags: tuple[str, ...], tiny: Tiny, tmp_path) -> None:
    status, _, err = dihal(
        "run",
        "--interface",
        "hidden",
        *flags,
        *tiny.flags(),
        "--device",
        str(device()),
        "--out",
        str(tmp_path),
    )
    assert status == 0, err
    assert (tmp_path / "record.json").exists()


def test_the_arithmetic_is_said_and_bfloat16_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    here = RunConfig(device=str(device()))
    Inputs(here, said.append)
    assert "float32" in said[0]
    monkeypatch.setattr(inputs, "has_bfloat16", lambda where: False)
    with pytest.raises(UserError, match="--dtype float32"):
        Inputs(replace(here, dtype="bfloat16"), said.append)
    with pytest.raises(UserError, match=r"train\.autocast"):
        Inputs(here, said.append)
    Inputs(replace(here, train=TRAIN), said.append)
