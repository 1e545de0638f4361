"""Work is timed by the smallest of a few runs, and counted in a run of its own."""

import itertools

import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.runs import timing
from dihal_bench.runs.accelerators import ACCELERATORS, LAUNCH, STREAMED, USED, accelerator
from dihal_bench.runs.timing import Timer, Work, count, peak_bytes, product_speed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_REPEATS", 4)


class Clock:
    """A clock that work puts forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *durations: float):
        own = itertools.chain(durations, itertools.repeat(durations[-1]))

        def work() -> None:
            self.now += next(own)

        return work


def test_the_smallest_time_of_a_few_is_taken() -> None:
    clock = Clock()
    assert Timer(CPU, clock).time(clock.taking(0.05, 0.02, 0.03)).seconds == pytest.approx(0.02)


def test_long_work_is_done_once() -> None:
    clock = Clock()
    assert Timer(CPU, clock).time(clock.taking(5.0, 1.0)).seconds == 5.0
    assert clock.now == 5.0


def test_the_repeats_are_bounded() -> None:
    clock = Clock()
    Timer(CPU, clock).time(clock.taking(0.2))
    assert clock.now == pytest.approx(0.4)
    before = clock.now
    Timer(CPU, clock).time(clock.taking(1e-3))
    assert clock.now - before < 0.01


def test_work_is_added_and_multiplied_but_for_its_peak() -> None:
    one = Work(seconds=1.0, tokens=2.0, flops=3.0, peak=10.0)
    both = 3 * one + Work(seconds=2.0, peak=4.0)
    assert both == Work(seconds=5.0, tokens=6.0, flops=9.0, peak=10.0)
    assert (one - both).seconds == 0.0


def test_what_a_product_takes_is_counted() -> None:
    a = torch.ones(30, 40)
    found = count(lambda: (a @ a.T).relu().sum().item())
    assert found.flops == 2 * 30 * 40 * 30
    assert found.waits == 1
    product, relu, total = (30 * 40 * 2 + 30 * 30), 2 * 30 * 30, 30 * 30 + 1
    assert found.moved == pytest.approx(4 * (product + relu + total), abs=8)


def test_a_view_moves_nothing() -> None:
    a = torch.ones(30, 40)
    assert count(lambda: a.T.reshape(40, 30)[:3]).operations == 0


def test_the_peak_is_of_tensors_alive_together() -> None:
    a = torch.ones(1000)

    def work() -> None:
        first = a + 1
        del first
        kept = [a + 1, a + 2]
        del kept

    assert peak_bytes(work, CPU) == pytest.approx(8000, abs=512)


def test_the_speed_of_products_follows_the_clock() -> None:
    ticks = itertools.count(step=0.5)
    assert product_speed(CPU, torch.float32, lambda: float(next(ticks))) == 2 * 1024**3 / 0.5


@pytest.mark.parametrize("name", list(ACCELERATORS))
def test_a_gpu_computes_streams_and_is_launched(name: str) -> None:
    gpu = ACCELERATORS[name]
    assert gpu.seconds(Work(flops=USED * gpu.flops)) == pytest.approx(1.0)
    assert gpu.seconds(Work(moved=STREAMED * gpu.bandwidth)) == pytest.approx(1.0)
    assert gpu.seconds(Work(operations=1 / LAUNCH)) == pytest.approx(1.0)


def test_a_gpu_is_found_by_any_spelling() -> None:
    assert accelerator("RTX 4090") is accelerator("rtx-4090") is ACCELERATORS["rtx4090"]
    with pytest.raises(UserError, match=r"--for tpu.*h100"):
        accelerator("tpu")
