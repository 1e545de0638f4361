"""Fields of a record that no table or figure could be made of, and what cannot be true together."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.results.record import Record, validate

from .content import CONTENT, SCORE

INTERVAL = {"value": 1.0, "lo": 0.0, "hi": 2.0}
LAYER = {
    **{"layer": 1, "stiffness": INTERVAL, "effective_rank": INTERVAL, "score": INTERVAL},
    "curvature": INTERVAL,
}
POINT = {"row": "teacher", "temperature": 1.0, "entropy": 3.0, "gen_ppl": 20.0}
MEASURED = {"value": 1.0, "lo": None, "hi": None, "n": 1}
PASSED = CONTENT["gates"]["leak"]["hidden"]


def with_field(path: str, to: Any, **more: Any) -> dict[str, Any]:
    """A sealed record with one field replaced, and others added."""
    content: dict[str, Any] = copy.deepcopy(CONTENT) | more
    *above, last = path.split(".")
    place = content
    for key in above:
        place = place[key]
    place[last] = to
    return Record.of(content).data


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        ("config.include", None, "include has the wrong type: it is null and must be a list"),
        ("config.include", 5, "include has the wrong type: it is a number and must be a list"),
        ("config.include", [5], r"include\[0\] has the wrong type"),
        ("config.more", nested(900), "is nested more than 32 deep"),
        ("environment.more", nested(60), "is nested more than 32 deep"),
        ("bridge.oracle.sigmas", [0.0], r"sigmas\[0\] is '0.0'; it must be more than 0"),
        ("bridge.oracle.sigmas", [-1.0], r"sigmas\[0\] is '-1.0'; it must be more than 0"),
        ("bridge.oracle.agreement", 1e308, "agreement is '1e.308'; it must be 1.0 or less"),
        ("bridge.oracle.agreement_under_noise", [1e308], r"agreement_under_noise\[0\] is"),
        ("bridge.oracle.sigma_half", 0.0, "sigma_half is '0.0'"),
        (
            "locate.cells",
            {"paper": {"layers": [{**LAYER, "score": {**INTERVAL, "hi": 1e308}}]}},
            "hi",
        ),
        (
            "locate.cells",
            {"paper": {"layers": [{**LAYER, "score": {**INTERVAL, "lo": 3.0}}]}},
            "lo",
        ),
        ("audits", {"samples": {"frontier": [{**POINT, "entropy": 1e308}]}}, "entropy is"),
        ("audits", {"samples": {"frontier": [{**POINT, "gen_ppl": 1e308}]}}, "gen_ppl is"),
        (
            "audits",
            {"samples": {"data": {"energy": {**MEASURED, "lo": 2.0}}}},
            "outside its interv",
        ),
        ("spent.hidden.diffusion.flops", 1e308, "flops is '1e.308'"),
        ("costs.hidden.ratio", 1e308, "ratio is '1e.308'"),
        ("tasks", {"bundled:validation": {"key": "k", "rows": []}}, "tasks has the run's own text"),
    ],
)
def test_what_cannot_be_shown_is_named(path: str, to: Any, said: str) -> None:
    with pytest.raises(UserError, match=rf"here\.json: .*{said}"):
        validate(with_field(path, to), "here.json")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"tolerance": 1e6, "future": 12.5}, r"tolerance is 1e.06, and in float64 .* most 1e-10"),
        ({"dtype": "float32", "tolerance": 1.0}, "in float32 it is at most 0.01"),
        ({"dtype": "bfloat16", "tolerance": 0.1}, "neither float64 nor that of config"),
        ({"dtype": "float4"}, "dtype is 'float4'"),
        ({"others": 1e-9}, "its numbers did not pass"),
        ({"tokens": 0}, "tokens is '0'; it must be 1 or more"),
    ],
)
def test_a_gate_passes_by_its_numbers(gate: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"here\.json: gates\.leak.*{said}"):
        validate(with_field("gates.leak.hidden", PASSED | gate), "here.json")
    validate(with_field("gates.leak.hidden", PASSED | {"dtype": "float32"}), "here.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "elsewhere"}, "task is elsewhere, neither the run's own text nor in tasks"),
        ({"lo": 5.0, "hi": 3.0}, "value is 4, outside of its own interval"),
        ({"value": 9.0}, "value is 9, outside of its own interval"),
        ({"hi": 1e308}, "hi is '1e.308'"),
        ({"metric": "nll"}, "is there twice: nll of one row"),
        ({"subject": "nobody", "signal": "generated"}, "neither the interface nor a control"),
        ({"metric": "diffusion_gain"}, "details name no control"),
        ({"details": {"control": "hidden"}}, "neither the interface nor a control"),
        ({"details": {"converged": True, "change_from_half": 0.5}}, "converged is True, and"),
    ],
)
def test_a_score_that_cannot_be_is_named(changes: dict[str, Any], said: str) -> None:
    more = replace(SCORE, **({"metric": "ppl"} | changes)).to_dict()
    with pytest.raises(UserError, match=rf"here\.json: scores\[2\].*{said}"):
        validate(with_field("scores", [*CONTENT["scores"], more]), "here.json")


def test_one_metric_may_have_several_filters() -> None:
    answers = replace(SCORE, metric="exact_match", task="gsm8k", signal="generated")
    some = [replace(answers, details={"filter": name}).to_dict() for name in ("strict", "flexible")]
    tasks = {"gsm8k": {"key": "k", "rows": []}}
    validate(with_field("scores", [*CONTENT["scores"], *some], tasks=tasks), "here.json")
    with pytest.raises(UserError, match=r"scores\[3\] is there twice"):
        validate(
            with_field("scores", [*CONTENT["scores"], *some[:1] * 2], tasks=tasks), "here.json"
        )
