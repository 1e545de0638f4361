"""The verdict of a table: what noise bought, who is first, and beside which numbers."""

from typing import Any

import pytest

from dihal_bench.leaderboard.site.verdict import verdict

COLUMNS = [{"key": key, "title": key, "digits": 4} for key in ("brier1", "gain")]
LEVEL = {"value": 0.0002, "lo": -0.0001, "hi": 0.0005}


def row(name: str, brier: float, **cells: Any) -> dict[str, Any]:
    """A row of an interface that replaces one block of eight in one step."""
    usual = {"role": "interface", "steps": 1, "replaced": 1, "retained": 7, "seeds": 3}
    shown = {"value": brier, "lo": brier - 0.01, "hi": brier + 0.01}
    return {"cells": {**usual, "row": name, "brier1": shown, "rank": None, **cells}, "ties": []}


def control(name: str, brier: float, *, tokens: int = 8, **cells: Any) -> dict[str, Any]:
    spent = {"diffusion_tokens": tokens, "recovery_tokens": 0}
    return row(name, brier, role="control", **{**spent, **cells})


def ranked(place: int) -> dict[str, Any]:
    return {"rank": {"value": place, "among": "S=1, 1 block"}}


def said(*rows: dict[str, Any]) -> str:
    return verdict({"columns": COLUMNS, "rows": rows})


def hidden(**cells: Any) -> dict[str, Any]:
    own = {**ranked(1), "gain": LEVEL, "gain_over": "regress", **cells}
    return row("hidden (0, 1]", 0.2612, **own)


EMBEDDING = row("embedding (7, 8]", 0.2142, **ranked(2))
OTHERS = [EMBEDDING, row("c2d (7, 8]", 0.182, **ranked(3))]
CONTROLS = [control("regress", 0.261), control("token-mean", 0.26, tokens=0)]


def test_that_noise_gained_nothing_stands_first() -> None:
    text = said(row("teacher", 0.2613, role="teacher"), hidden(), *OTHERS, *CONTROLS)
    assert text == (
        "Noise gains nothing measurable: hidden (0, 1] is not told apart from regress, its best "
        "control without diffusion (diffusion gain 0.0002 [−0.0001, 0.0005] holds zero). At S=1, "
        "with 1 of 8 blocks replaced, it is first of 3: brier1 0.2612 [0.2512, 0.2712] over 3 "
        "trainings; that control has 0.2610, the teacher 0.2613. The others replace (7, 8] "
        "instead; token-mean, a control without training (0.2600), is above all of them."
    )


@pytest.mark.parametrize(
    ("gain", "start"),
    [
        (
            {"value": 0.1, "lo": 0.05, "hi": 0.2},
            "Noise helps: hidden (0, 1] is better than regress",
        ),
        ({"value": -0.1, "lo": -0.2, "hi": -0.05}, "Noise does not help: hidden (0, 1] is worse"),
        ({"value": 0.1}, "What noise buys hidden (0, 1] has no interval: diffusion gain 0.1000"),
        (None, "What noise buys is not known: beside hidden (0, 1] stands no control without it."),
    ],
)
def test_the_gain_is_told_by_its_interval(gain: dict[str, float] | None, start: str) -> None:
    assert said(hidden(gain=gain), *CONTROLS).startswith(start)
    level = said(hidden(gain={**LEVEL, "flags": ["fewer tokens"]}), *CONTROLS)
    assert "regress, its best control without diffusion, which saw fewer tokens (" in level


def test_an_unranked_row_above_the_first_is_named() -> None:
    first = row("embedding (7, 8]", 0.2142, **ranked(1))
    text = said(first, hidden(rank=None, seeds=2), *CONTROLS)
    assert "it is the only one with a rank: brier1 0.2142" in text
    assert "Above it, but of 2 trainings and without a rank: hidden (0, 1], brier1 0.2612." in text
    assert "; the control regress is above it with 0.2610." in text
    assert "Above" not in said(hidden(), row("embedding (7, 8]", 0.2142, seeds=2), *CONTROLS)
    none = said(hidden(rank=None, seeds=2), row("c2d (7, 8]", 0.18))
    assert none.startswith("No interface has a rank: ")
    assert none.endswith(" The best is hidden (0, 1], brier1 0.2612.")


def test_controls_of_other_tasks_and_of_more_evaluations_stand_beside_nothing() -> None:
    text = said(
        *(hidden(), *CONTROLS, control("regress-loop", 0.3, steps=16)),
        control("easier", 0.4, replaced=0),
    )
    assert "that control has 0.2610" in text
    assert "regress-loop" not in text
    assert "easier" not in text


def test_positions_are_mentioned_only_where_they_differ() -> None:
    beside = row("hidden (0, 1], losses.ce=0.5", 0.22, **ranked(2))
    assert "instead" not in said(hidden(), beside)
    assert "Some of the others replace (7, 8] instead." in said(hidden(), beside, EMBEDDING)
    trained = control("lm", 0.26)
    assert "without training" not in said(hidden(), *OTHERS, trained)
    some = said(hidden(), *OTHERS, control("token-mean", 0.2, tokens=0))
    assert some.endswith("token-mean, a control without training (0.2000), is above 1 of them.")


def test_who_is_first_elsewhere_is_told_in_the_order_of_numbers() -> None:
    again = [hidden(steps=steps) for steps in (1, 16, 4)]
    latent = row("latent (7, 8]", 0.2, steps=64, chains=8, **ranked(1))
    other = row("latent (7, 8]", 0.21, steps=128, **ranked(1))
    more = row("hidden (0, 4]", 0.244, replaced=4, retained=4, **ranked(1))
    text = said(*again, other, latent, more, row("c2d (4, 8]", 0.25, replaced=4, seeds=2))
    assert "the only one with a rank, as at S=4, 16: brier1" in text
    assert text.endswith(
        "Elsewhere the first is latent (7, 8] with K=8 at S=64 (0.2000); "
        "latent (7, 8] at S=128 (0.2100); "
        "hidden (0, 4] at S=1 where 4 are replaced (0.2440)."
    )
    unranked = said(hidden(), row("c2d (4, 8]", 0.25, replaced=4, seeds=2))
    assert unranked.endswith("c2d (4, 8] at S=1 where 4 are replaced (0.2500, without a rank).")


def text_row(name: str, role: str, energy: float, steps: int | None = None) -> dict[str, Any]:
    shown = {"value": energy, "lo": energy - 0.1, "hi": energy + 0.1, "flags": []}
    fooled = {"value": -energy, "lo": 0.0, "hi": 9.0, "flags": ["fooled"]}
    bare = {"value": 1 - energy, "flags": []}  # without an interval
    cells = {"row": name, "role": role, "steps": steps, "energy": shown, "ppl": fooled}
    return {"cells": {**cells, "mauve": bare}}


def test_generated_text_is_told_by_what_nothing_fools() -> None:
    columns = [
        {"key": key, "title": key, "better": better, "digits": 2}
        for key, better in (("ppl", "lower"), ("mauve", "higher"), ("energy", "lower"))
    ]
    rows = [
        text_row("teacher", "teacher", 0.5, 1),
        text_row("real text", "reference", 0.0),
        text_row("hidden (0, 1]", "interface", 0.6, 1),
        text_row("c2d (7, 8]", "interface", 2.5, 16),
        text_row("loop", "no model", 20.0),
    ]
    assert verdict({"columns": columns, "rows": rows}) == (
        "By energy (lower is better, and no sampler without a model fools it) the text of hidden "
        "(0, 1] at S=1 is the nearest to real text among the interfaces': 0.60 [0.50, 0.70]; the "
        "teacher's has 0.50 [0.40, 0.60], real text itself 0.00 [−0.10, 0.10]."
    )
    assert "fools" not in verdict({"columns": columns, "rows": rows[:4]})
    assert verdict({"columns": columns, "rows": [rows[0], *rows[2:]]}) == ""  # of no text
    rows[4]["cells"]["energy"]["flags"] = ["fooled"]
    assert verdict({"columns": columns, "rows": rows}) == ""


def test_a_table_without_interfaces_or_brier_says_nothing() -> None:
    assert said(*CONTROLS) == ""
    assert verdict({"columns": COLUMNS[1:], "rows": [hidden()]}) == ""
