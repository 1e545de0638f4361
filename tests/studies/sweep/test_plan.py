"""What is swept: layers, spans, settings and changes of coordinates as a person writes them."""

from pathlib import Path

import pytest

from dihal_bench.config.resolve import resolve
from dihal_bench.core.errors import UserError
from dihal_bench.studies.study import plan, work_units
from dihal_bench.studies.sweep.plan import (
    SweepCandidate,
    chosen_layers,
    chosen_transforms,
    layer_axis,
    setting_axis,
    transform_axis,
)


def configure(own: SweepCandidate, seed: int):
    return resolve(values={}, sets=[*own.settings, f"seed={seed}"])


def test_layers_are_read_as_they_are_written() -> None:
    assert chosen_layers("all", 8) == [1, 2, 3, 4, 5, 6, 7]
    assert chosen_layers("5-7, 1,2,2", 8) == [1, 2, 5, 6, 7]
    assert chosen_layers("late,early,middle,4", 8) == [1, 4, 7]


@pytest.mark.parametrize(
    "text", ["0", "8", "1,9", "x", "3-1", "", "1,,2", "2,", "-2", "2-", "auto", "1-middle"]
)
def test_a_list_that_names_no_layer_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no layer from 1 to 7") as error:
        chosen_layers(text, 8)
    assert "\n" not in str(error.value)
    assert "nothing" not in str(error.value)


def test_a_number_alone_goes_on_with_the_name_before_it() -> None:
    found = chosen_transforms("rotate,scale,spectrum:0,0.5,1")
    assert found == ["identity", "rotate", "scale:4", "spectrum:0", "spectrum:0.5", "spectrum:1"]
    assert chosen_transforms("scale:2,8,rotate,rotate") == [
        *("identity", "scale:2", "scale:8", "rotate")
    ]


@pytest.mark.parametrize("text", ["0.5", "turn", "none", "rotate,1", "spectrum", ""])
def test_an_unknown_transform_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="transform"):
        chosen_transforms(text)


def test_a_span_has_the_same_number_of_blocks_at_every_layer() -> None:
    entries = plan(layer_axis([2, 3, 7], start=0, span=2).candidates, [0], configure, Path())
    assert [(e.run.config.from_layer, e.run.config.layer) for e in entries] == [
        *((0, "2"), (1, "3"), (5, "7"))
    ]
    entries = plan(layer_axis([2, 3], start=1, span=None).candidates, [0], configure, Path())
    assert [(e.run.config.from_layer, e.run.config.layer) for e in entries] == [(1, "2"), (1, "3")]


@pytest.mark.parametrize(("layers", "span"), [([1, 2], 2), ([3], 4)])
def test_a_span_that_does_not_fit_is_refused(layers: list[int], span: int) -> None:
    with pytest.raises(UserError, match=f"--span {span} does not fit below layer"):
        layer_axis(layers, start=0, span=span)


@pytest.mark.parametrize("span", [0, -1])
def test_a_span_of_no_blocks_is_refused(span: int) -> None:
    with pytest.raises(UserError, match=f"--span {span} replaces nothing; .* 1 or more"):
        layer_axis([1, 2], start=0, span=span)


def test_runs_are_seed_by_seed_each_in_a_folder_of_its_own() -> None:
    entries = plan(
        layer_axis([1, 2], start=0, span=None).candidates, [4, 5], configure, Path("out")
    )
    assert [(e.candidate.label, e.run.config.seed) for e in entries] == [
        *(("1", 4), ("2", 4), ("1", 5), ("2", 5))
    ]
    assert len({e.run.folder for e in entries}) == 4


def test_runs_of_one_pass_have_seed_and_budget_in_common() -> None:
    def sizes(axis, per_pass: int) -> list[int]:
        entries = plan(axis.candidates, [0, 1], configure, Path("out"))
        found = work_units(entries, per_pass=per_pass, shared=Path("out"), command="")
        assert all(len({r.config.seed for r in errand.runs}) == 1 for errand in found)
        return [len(errand.runs) for errand in found]

    layers = layer_axis([1, 2, 3, 4, 5], start=0, span=None)
    assert sizes(layers, 1) == [1] * 10
    assert sizes(layers, 2) == [2, 2, 1, 2, 2, 1]
    assert sizes(layers, 9) == [5, 5]
    assert sizes(setting_axis("train.lr", ["0.001", "0.002"]), 9) == [1] * 4
    assert sizes(setting_axis("denoiser.name", ["mlp", "transformer"]), 9) == [2, 2]
    assert sizes(transform_axis([1, 2], ["identity", "rotate"]), 9) == [4, 4]
