import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from dihal_bench.core.errors import UserError
from dihal_bench.geometry import LayerProxies, layer_scores, resolve_layer, summarise, zscore


def proxies(curvature, stiffness, effective_rank, **overrides):
    fields = {"participation_ratio": effective_rank, "duplicates": 0, "n": 100, "d": 10} | overrides
    return LayerProxies(
        curvature=float(curvature),
        stiffness=float(stiffness),
        effective_rank=float(effective_rank),
        **fields,
    )


def resampled(layers, count, seed=0, noise=0.05):
    """Layers whose proxies fall with depth, plus noise."""
    rng = np.random.default_rng(seed)
    return {
        layer: [
            proxies(*(np.array([3, 2, 4]) / layer + noise * rng.normal(size=3)))
            for _ in range(count)
        ]
        for layer in layers
    }


def test_zscore_agrees_with_scipy():
    values = np.random.default_rng(0).normal(3, 2, size=9)
    np.testing.assert_allclose(zscore(values), stats.zscore(values, ddof=0), atol=1e-12)


@pytest.mark.parametrize("values", [[0.1] * 7, [5.0], [1e9, 1e9 + 1e-4]])
def test_zero_spread_gives_zeros(values):
    assert zscore(values).tolist() == [0.0] * len(values)


def test_zscore_refuses_the_infinite_by_name():
    with pytest.raises(UserError, match="inf"):
        zscore([1.0, float("inf")])


def test_score_rewards_curvature_and_stiffness_and_penalises_rank():
    s = layer_scores([1, 2, 3], [7, 7, 7], [1, 3, 2])
    expected = zscore([1, 2, 3]) - zscore([1, 3, 2])
    np.testing.assert_allclose(s, expected)
    assert s.sum() == pytest.approx(0, abs=1e-12)


def test_score_ignores_the_proxies_units():
    rng = np.random.default_rng(1)
    a, b, c = rng.uniform(1, 2, size=(3, 8))
    np.testing.assert_allclose(layer_scores(a, b, c), layer_scores(9 * a, b + 4, c / 7))


@pytest.mark.parametrize(
    ("blocks", "early", "middle", "late"),
    [(2, 1, 1, 1), (3, 1, 1, 2), (8, 1, 4, 7), (12, 1, 6, 11), (32, 4, 16, 28), (36, 4, 18, 32)],
)
def test_named_policies(blocks, early, middle, late):
    found = [resolve_layer(policy, blocks, None) for policy in ("early", "middle", "late")]
    assert found == [early, middle, late]


def test_auto_takes_the_highest_score_and_of_equal_ones_the_lowest_layer():
    assert resolve_layer("auto", 8, {3: 0.5, 1: -1.0, 2: 0.5, 7: 0.1}) == 2


def test_a_number_may_be_text():
    assert resolve_layer("5", 8, None) == resolve_layer(5, 8, None) == 5


@pytest.mark.parametrize("policy", [0, 8, "-1", "99", "deep", "", "2.5", 2.5, None, True, "auto"])
def test_errors_name_flag_value_and_remedy(policy):
    with pytest.raises(UserError) as caught:
        resolve_layer(policy, 8, None)
    sentence = str(caught.value)
    assert sentence.startswith(f"--layer {policy}")
    assert "choose a layer from 1 to 7 or one of auto, early, middle, late" in sentence
    assert sentence.count("\n") == 0


def test_a_backbone_of_one_block_has_no_inner_layer():
    with pytest.raises(UserError, match="--layer early"):
        resolve_layer("early", 1, None)


def test_summary_takes_medians_first():
    resamples = resampled(range(1, 8), 21)
    summary = summarise(resamples)
    medians = {
        name: [np.median([getattr(p, name) for p in resamples[layer]]) for layer in range(1, 8)]
        for name in ("curvature", "stiffness", "effective_rank")
    }
    np.testing.assert_allclose(
        list(summary.scores().values()),
        layer_scores(medians["curvature"], medians["stiffness"], medians["effective_rank"]),
    )
    assert [row.curvature.value for row in summary.layers] == medians["curvature"]
    assert summary.selected == resolve_layer("auto", 8, summary.scores())


def test_intervals_come_from_the_resamples_own_scores():
    resamples = resampled([1, 2, 5], 40, noise=0.4)
    summary = summarise(resamples)
    scores = np.array(
        [
            layer_scores(
                *([getattr(resamples[layer][r], name) for layer in (1, 2, 5)] for name in names)
            )
            for r in range(40)
            for names in [("curvature", "stiffness", "effective_rank")]
        ]
    )
    for i, row in enumerate(summary.layers):
        expected = np.percentile(scores[:, i], [2.5, 97.5])
        np.testing.assert_allclose([row.score.lo, row.score.hi], expected)
        assert row.curvature.lo <= row.curvature.value <= row.curvature.hi
        assert row.selected_share == np.mean(scores.argmax(axis=1) == i)
    assert sum(row.selected_share for row in summary.layers) == pytest.approx(1)


def test_ranks_are_certain_without_noise():
    rows = summarise(resampled(range(1, 6), 10, noise=0.0)).layers
    assert all(row.rank.lo == row.rank.value == row.rank.hi for row in rows)
    assert sorted(row.rank.value for row in rows) == [1, 2, 3, 4, 5]


def test_rank_intervals_are_whole_ranks_of_some_resample():
    rows = summarise(resampled(range(1, 10), 30, noise=1.0)).layers
    assert all(float(x).is_integer() for row in rows for x in (row.rank.lo, row.rank.hi))
    assert all(1 <= row.rank.lo <= row.rank.hi <= 9 for row in rows)


def test_selected_without_is_the_selection_among_the_others():
    resamples = resampled(range(1, 8), 9, noise=1.5)
    for row in summarise(resamples).layers:
        others = {layer: rows for layer, rows in resamples.items() if layer != row.layer}
        assert row.selected_without == summarise(others).selected


def test_no_flip_where_one_layer_is_best_in_everything():
    summary = summarise({layer: [proxies(9 - layer, 9 - layer, layer)] for layer in (1, 2, 3, 4)})
    assert (summary.selected, summary.flips) == (1, False)
    assert [row.selected_without for row in summary.layers] == [2, 1, 1, 1]


def test_a_hopeless_candidate_can_flip_the_selection():
    # Layer 4's curvature hides how the others differ in theirs; its rank and stiffness rule it out.
    summary = summarise(
        {
            1: [proxies(1.0, 5.0, 1.0)],
            2: [proxies(3.0, 4.5, 1.0)],
            3: [proxies(0.0, 0.0, 1.1)],
            4: [proxies(90.0, -9.0, 5.0)],
        }
    )
    assert (summary.selected, summary.layers[3].selected_without, summary.flips) == (1, 2, True)


def test_depth_correlation_is_that_of_scipy_and_one_for_the_earliest_layer_rule():
    falling = {layer: [proxies(-layer, -layer, layer)] for layer in range(1, 7)}
    assert summarise(falling).depth_correlation == pytest.approx(1)
    summary = summarise(resampled(range(1, 9), 5, noise=2.0))
    expected = stats.spearmanr(list(summary.scores().values()), -np.arange(1, 9)).statistic
    assert summary.depth_correlation == pytest.approx(expected)


def test_one_layer_or_equal_layers_have_no_correlation_and_the_first_wins():
    one = summarise({4: [proxies(1, 2, 3)]})
    assert (one.selected, one.flips, one.depth_correlation) == (4, False, None)
    assert one.layers[0].selected_without is None
    same = summarise({layer: [proxies(1, 2, 3)] for layer in (1, 2, 3)})
    assert (same.selected, same.flips, same.depth_correlation) == (1, False, None)


def test_unequal_resamples_are_refused():
    with pytest.raises(UserError, match="resamples"):
        summarise({1: [proxies(1, 1, 1)], 2: []})
    with pytest.raises(UserError, match="resamples"):
        summarise({})


def test_to_dict_is_json_and_rows_are_in_order():
    summary = summarise(resampled([5, 1, 3], 4))
    again = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert [row["layer"] for row in again["layers"]] == [1, 3, 5]
    assert all(a["layer"] < b["layer"] for a, b in pairwise(again["layers"]))
    assert again["selected"] == summary.selected


def test_in_sample_and_duplicates_are_carried():
    summary = summarise({1: [proxies(1, 1, 1, n=15, duplicates=4)], 2: [proxies(2, 1, 1)]})
    assert [row.in_sample for row in summary.layers] == [True, False]
    assert [row.duplicates for row in summary.layers] == [4, 0]


def test_scoring_needs_no_torch():
    program = "import sys, dihal_bench.geometry as g; g.layer_scores; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
