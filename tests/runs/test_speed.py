"""The table of speeds has every part and every reference, in text and as JSON."""

import json

import pytest
import torch

from dihal_bench.interfaces.settings import Step
from dihal_bench.runs.references import obvious
from dihal_bench.runs.speed import BATCHES, SpeedRow
from dihal_bench.runs.timing import Timer

from .. import tiny as small
from ..conftest import Tiny, dihal
from .test_rates import EachOne

PARTS = {
    *("reading", "locating", "training step", "gate", "scoring", "recovery", "generation"),
}


def check_parts(found) -> None:
    rows = found["rows"]
    assert {row["part"] for row in rows} == PARTS
    for row in rows:
        assert row["seconds"] > 0
        assert row["rate"] == pytest.approx(row["tokens"] / row["seconds"])
        assert row["speed"] == pytest.approx(row["flops"] / row["seconds"])
    references = [row["what"] for row in rows if row["reference"]]
    assert len(references) == 2 + len(BATCHES)
    steps = {row["what"] for row in rows if row["part"] == "training step"}
    assert {"hidden: diffusion", "regress: diffusion", "hidden: diffusion, mlp"} <= steps
    assert found["facts"]["parameters"] > 0


def test_every_part_is_there_beside_its_references(tiny: Tiny, monkeypatch) -> None:
    own = EachOne(torch.device("cpu"), lambda: 0.0, counts=True)
    monkeypatch.setattr(Timer, "on", lambda device, counts=False: own)
    monkeypatch.setattr("dihal_bench.runs.speed._Measured._denoisers", lambda self: ["mlp"])
    monkeypatch.setattr("dihal_bench.runs.speed.product_speed", lambda *_: 1e9)
    monkeypatch.setattr("dihal_bench.runs.speed.stream_speed", lambda *_: 1e9)
    flags = [*tiny.flags(), "--layer", "1", "--controls", "regress"]
    status, out, _ = dihal("speed", *flags, "--json")
    assert status == 0
    check_parts(json.loads(out))


@pytest.mark.nightly
def test_every_part_is_measured(tiny: Tiny) -> None:
    status, out, _ = dihal("speed", *tiny.flags(), "--layer", "1", "--json")
    assert status == 0
    check_parts(json.loads(out))


def test_a_row_is_measured_by_its_ceiling_and_its_floor() -> None:
    row = SpeedRow(
        part="it", what="it", seconds=4.0, tokens=8.0, flops=20.0, ceiling=10.0, least=1.0
    )
    assert (row.rate, row.speed, row.of_ceiling, row.of_floor) == (2.0, 5.0, 0.5, 0.25)


@pytest.mark.parametrize("flags", [["--dry-run"], ["--for", "h100"], ["--out", "somewhere"]])
def test_what_speed_would_ignore_is_refused(flags: list[str], tiny: Tiny) -> None:
    status, _, err = dihal("speed", *tiny.flags(), *flags)
    assert status == 2
    assert flags[0] in err


def test_the_obvious_way_has_the_same_gradient_where_all_places_count() -> None:
    """In windows of one document each every place but the first is scored."""
    interface = small.build("hidden")
    windows = small.make_windows([[(row, 0, 12)] for row in range(3)])
    step = Step(index=0, of=10, phase="diffusion")

    def gradient() -> torch.Tensor:
        parameters = interface.parameters_in("diffusion")
        found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        interface.zero_grad()
        return found

    obvious(interface, windows, step)()
    plain = gradient()
    interface.total(interface.losses(small.batch_of(windows), step)).backward()
    torch.testing.assert_close(plain, gradient(), rtol=1e-4, atol=1e-6)
