"""The protocol grid on layers whose geometry is known."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.geometry import layer_scores
from dihal_bench.geometry.anatomy import anatomy
from dihal_bench.geometry.locate import LocateConfig
from dihal_bench.reporting.geometry_figures import draw_grid
from dihal_bench.reporting.grid_table import show_grid
from dihal_bench.studies.protocol_grid import readings
from dihal_bench.studies.protocol_grid.grid import AXES, Protocol, check_grid

from ..damages import DAMAGES
from .planted import clusters, gaussian, grid

PAPER = {"neighbours": (20,), "ridges": (1e-3,)}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Three layers, a few rows of which start a document."""
    layers = {
        1: gaussian(180, 1 / np.arange(1, 9.0)),
        2: clusters(180, 8, 50.0, size=20),
        5: 0.2 * gaussian(180, np.ones(8), seed=2),
    }
    inside = torch.arange(180) % 9 > 0
    found = grid(layers, tmp_path_factory.mktemp("mixed"), resamples=3, small=140, inside=inside)
    return layers, inside, found


def test_every_combination_is_there_once(mixed):
    cells = mixed[2].cells
    assert len(cells) == 3 * 3 * 2 * 3 * 4 * 6
    assert len({cell.protocol for cell in cells}) == len(cells)
    assert sum(mixed[2].selections.values()) == len(cells)
    assert len(mixed[2].neighbours(mixed[2].paper)) == 2 + 2 + 1 + 2 + 3 + 5


def space_reference(states, space):
    if space == "standardised":
        return (states - states.mean(axis=0)) / states.std(axis=0, ddof=1)
    if space == "rms":
        return states / np.sqrt((states**2).mean(axis=1, keepdims=True))
    return states


@pytest.mark.parametrize("space", AXES["space"])
@pytest.mark.parametrize("tokens", ["all", "without position 0"])
def test_a_cell_is_the_score_of_its_definition(mixed, tokens, space):
    layers, inside, found = mixed
    kept = inside.numpy() if tokens == "without position 0" else np.ones(180, dtype=bool)
    rng = np.random.default_rng(0)
    subsets = [rng.permutation(180) for _ in range(3)]
    protocol = Protocol(
        tokens=tokens, space=space, curvature="trace", rank="entropy", neighbours=50, ridge=1e-2
    )
    draws = []
    for seed, rows in enumerate(subsets):
        terms = []
        for states in layers.values():
            whole = np.zeros_like(states)
            whole[kept] = space_reference(states[kept], space)
            own = anatomy(
                whole[rows[kept[rows]]], neighbours=(50,), ridges=(1e-2,), pairs=300, seed=seed
            )
            terms.append((own.curvature["trace", 50], own.stiffness[1e-2], own.rank["entropy"]))
        draws.append(np.array(terms).T)
    cell = found.cell(protocol)
    expected = layer_scores(*np.median(draws, axis=0))
    assert cell.scores == pytest.approx(expected, abs=1e-6)
    assert cell.selected == list(layers)[int(expected.argmax())]
    own_scores = np.array([layer_scores(*draw) for draw in draws])
    np.testing.assert_allclose(found.draws(protocol), own_scores, atol=1e-6)
    assert cell.share == np.mean(own_scores.argmax(axis=1) == expected.argmax())
    curvature, stiffness, rank = np.median(draws, axis=0)
    flat = np.zeros(3)
    for term, parts in {
        "curvature": (flat, stiffness, rank),
        "stiffness": (curvature, flat, rank),
        "rank": (curvature, stiffness, flat),
    }.items():
        assert cell.without[term] == list(layers)[int(layer_scores(*parts).argmax())]


def test_draws_of_small_resamples_make_the_share(mixed):
    found = mixed[2]
    for cell in found.cells[::97]:
        small = found.draws(cell.protocol, small=True)
        assert small.shape == (3, 3)
        best = int(np.argmax(cell.scores))
        assert cell.small_share == np.mean(small.argmax(axis=1) == best)


def test_layers_that_differ_in_scale_alone_tie_when_normalised(tmp_path):
    base = gaussian(150, 1 / np.arange(1, 11.0))
    found = grid({1: 3.7 * base, 2: base, 3: 0.3 * base}, tmp_path)
    for cell in found.cells:
        if cell.protocol.space == "raw":
            assert cell.selected == 3
            assert np.ptp(cell.scores) > 1
        else:
            assert cell.scores == (0, 0, 0), cell.protocol
            assert cell.rank_spread == 0


def massive(states, every=1000, size=300, dimensions=3):
    """One token in so many has a few components of hundreds of times the usual magnitude."""
    states = states.copy()
    states[500::every, :dimensions] = size
    return states


def test_massive_activations_flip_the_selection_until_they_are_left_out(tmp_path):
    # Layer 1 is stiffer and of lower rank, layer 2 more compact. One token in a thousand makes
    # layer 1 the softer, for the ridge is in units of the mean variance.
    clean = {
        1: gaussian(1000, 0.25 / np.arange(1, 13.0) ** 2),
        2: gaussian(1000, [0.13] * 3 + [1e-4] * 9, seed=1),
    }
    planted = clean | {1: massive(clean[1])}
    found = grid(planted, tmp_path / "planted", pairs=2000)
    before = grid(clean, tmp_path / "clean", pairs=2000)
    assert [layer.outliers for layer in found.layers] == [1e-3, 0]
    assert found.layers[0].largest_component > 1000
    assert found.layers[0].largest_norm > 100
    without = found.cell(Protocol(tokens="without outliers"))
    assert (before.paper.selected, without.selected, found.paper.selected) == (1, 1, 2)
    assert without.scores == pytest.approx(before.paper.scores, abs=1e-9)
    key = ("all", "raw"), "stable"
    assert before.readings.of(*key)[0, 0] > 1.5
    assert found.readings.of(*key)[0, 0] < 1.01  # one direction is all that is left of the rank


def test_parts_that_are_kept_are_not_read_again(tmp_path, monkeypatch):
    layers = {1: gaussian(150, [1.0] * 6), 2: gaussian(150, [2.0] * 6, seed=1)}
    whole = grid(layers, tmp_path / "whole")
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return anatomy(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(readings, "anatomy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grid(layers, tmp_path / "broken")
    assert len(list((tmp_path / "broken").rglob("*.safetensors"))) == 3
    calls.clear()
    monkeypatch.setattr(readings, "anatomy", lambda *a, **o: calls.append(1) or anatomy(*a, **o))
    again = grid(layers, tmp_path / "broken")
    assert len(calls) == 2 * 2 * 3 - 6  # all tokens are usual, and none is at position 0
    assert again.to_dict() == whole.to_dict()
    calls.clear()
    assert grid(layers, tmp_path / "broken").to_dict() == whole.to_dict()
    assert not calls


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_readings_that_are_damaged_are_named_and_read_again(tmp_path, damage, capsys):
    layers = {1: gaussian(150, [1.0] * 6), 2: gaussian(150, [2.0] * 6, seed=1)}
    whole = grid(layers, tmp_path)
    path = min(tmp_path.rglob("*.safetensors"))
    damage(path)
    assert grid(layers, tmp_path).to_dict() == whole.to_dict()
    assert f"{path} does not match its checksum" in capsys.readouterr().err


def test_threads_are_as_they_were(tmp_path):
    before = torch.get_num_threads()
    grid({1: gaussian(150, [1.0] * 4), 2: gaussian(150, [2.0] * 4)}, tmp_path)
    assert torch.get_num_threads() == before


def test_table_figure_and_json(mixed, tmp_path):
    found = mixed[2]
    text = show_grid(found)
    for axis, values in AXES.items():
        assert axis in text
        assert all((f"{v:g}" if isinstance(v, float) else str(v)) in text for v in values)
    assert f"selects layer {found.paper.selected}" in text
    first, again = draw_grid(found, tmp_path / "one"), draw_grid(found, tmp_path / "two")
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(plain["cells"]) == len(found.cells)
    own = {axis: plain["cells"][0][axis] for axis in AXES}
    assert own == {axis: values[0] for axis, values in AXES.items()}
    assert [cell["selected"] for cell in plain["cells"]] == [c.selected for c in found.cells]


def test_small_resamples_are_refused_with_a_remedy():
    check_grid(LocateConfig(stability_sample=150))
    with pytest.raises(UserError, match=r"100 tokens.*149; give locate.stability_sample at least"):
        check_grid(LocateConfig(stability_sample=149))
    with pytest.raises(UserError, match=r"only 64 are kept.*give locate.windows at least 19, and"):
        check_grid(LocateConfig(windows=8))
    with pytest.raises(UserError, match=r"only 149 are kept"):
        check_grid(LocateConfig(), 149)


def test_axes_multiply_to_what_the_help_says():
    assert len(list(product(*AXES.values()))) == 1296
