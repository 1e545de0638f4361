"""What the sweeps of a board say: whether scores rank layers better than depth does."""

from typing import Any

from dihal_bench.leaderboard.site.pages import geometry
from dihal_bench.leaderboard.site.render import render_site

from .boards import board

ABOVE, BELOW = {"value": 0.3, "lo": 0.1, "hi": 0.4}, {"value": -0.3, "lo": -0.4, "hi": -0.1}
LEVEL, UNKNOWN = {"value": 0.1, "lo": 0.0, "hi": 0.2}, {"value": None, "lo": None, "hi": None}


def sweep(backbone: str, gain: dict[str, Any], *, axis: str = "span-2", loss: str = "KL") -> Any:
    row = {"predictor": "score", "loss": loss, "minus_depth": gain}
    other = {"predictor": "curvature", "loss": loss, "minus_depth": ABOVE}
    return {"axis": axis, "backbone": backbone, "correlations": [other, row]}


def test_backbones_are_counted_by_where_the_interval_lies() -> None:
    sweeps = [sweep("a", ABOVE), sweep("b", BELOW), sweep("c", LEVEL), sweep("d", LEVEL)]
    text = geometry(sweeps)
    assert text == (
        "Where the bridge of every layer replaces equally many blocks, the score of raw states "
        "ranks layers by KL better than plain depth on 1 of 4 backbones, worse on 1, not told "
        "apart from it on 2."
    )
    assert "on none of 2 backbones, worse on 1, not" in geometry(sweeps[1:3])
    assert "on 1 of 2 sweeps, worse on 1." in geometry([sweep("a", ABOVE), sweep("a", BELOW)])


def test_the_score_of_what_is_diffused_is_told_beside() -> None:
    own = sweep("a", BELOW)
    own["correlations"].append({**own["correlations"][1], "predictor": "score, matched"})
    text = geometry([own])
    assert "; the score of what is diffused: better on none of 1 backbone, worse on 1." in text


def test_where_everything_below_is_replaced_nothing_is_counted() -> None:
    text = geometry([sweep("a", ABOVE, axis="layers"), sweep("a", BELOW)])
    assert "better than plain depth on none of 1 backbone, worse on 1. Where" in text
    assert text.endswith("any score that falls with depth looks perfect there.")
    assert geometry([sweep("a", ABOVE, axis="layers")]).startswith("Where everything below")


def test_what_is_not_known_is_not_said() -> None:
    assert geometry([]) == geometry([sweep("a", UNKNOWN)]) == ""
    assert "by KL S=1 better" in geometry([sweep("a", ABOVE, loss="KL S=1")])


def test_the_sentence_stands_in_the_page(visit, tmp_path) -> None:
    given = board(3)
    given["sweeps"] = [{**given["sweeps"][0], **sweep("<b>a</b>", BELOW)}]
    render_site(given, tmp_path)
    page = visit(tmp_path).open("index.html")
    text = page.locator("section[aria-labelledby=layers] .claim").inner_text()
    assert text == geometry(given["sweeps"])
