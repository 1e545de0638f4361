"""The table of a run as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.evaluation.likelihood import SAMPLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.results.record import Score

_FIRST = "first_token_"
_SIZES = (1, 8, 32)  # of ensembles that have a line of their own
_Key = tuple[str, int, int, str]


def render(scores: Sequence[Score], order: Sequence[str]) -> str:
    """Return the table of a run as text: a line per subject, steps, ensemble size and signal.

    Args:
        scores: of one task and one regime.
        order: subjects from top to bottom.
    """
    from tabulate import tabulate

    lines: dict[_Key, dict[str, Score]] = {}
    for score in scores:
        key = (score.subject, score.steps, score.chains, score.signal)
        lines.setdefault(key, {})[score.metric.removeprefix(_FIRST)] = score
    keys = sorted(lines, key=lambda k: (order.index(k[0]), k[3] != SAMPLED, k[1], k[2]))
    most = {k[:2]: max(o[2] for o in keys if o[:2] == k[:2]) for k in keys}
    shown = [k for k in keys if k[2] in (*_SIZES, most[k[:2]])]
    first = "first-token " if scores and scores[0].metric.startswith(_FIRST) else ""
    table = [_line(key, lines[key], first) for key in shown]
    return str(tabulate(table, headers="keys", tablefmt="simple", disable_numparse=True))


def render_plain(scores: Sequence[Score], order: Sequence[str]) -> str:
    """Return scores of any metrics as text: a line per metric, a column per subject and steps."""
    from tabulate import tabulate

    lines: dict[str, dict[str, str]] = {}
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        filtered = score.details.get("filter", "none")
        name = score.metric if filtered == "none" else f"{score.metric} ({filtered})"
        row = score.subject if score.subject == order[0] else f"{score.subject} S={score.steps}"
        cell = _plain(score, 4) + _interval(score, ".4f")
        lines.setdefault(name, {"score [95 %]": name})[row] = cell
    names = dict.fromkeys(key for line in lines.values() for key in line)
    table = [{key: line.get(key, "") for key in names} for line in lines.values()]
    return str(tabulate(table, headers="keys", disable_numparse=True))


def _line(key: _Key, scores: Mapping[str, Score], first: str) -> dict[str, str]:
    subject, steps, chains, signal = key
    some = scores.get("nll") or scores["brier1" if "brier1" in scores else "top1"]
    exact = some.kind == "exact"
    line = {
        "row": subject if signal == SAMPLED else f"{subject}, signal {signal}",
        "S": "-" if exact and steps <= 1 else str(steps),
        "kind": "exact" if exact else f"ensemble({chains}){_unconverged(scores)}",
        f"{first}NLL [95 %]": _plain(scores.get("nll"), 3) + _interval(scores.get("nll"), ".3f"),
        "ΔNLL [95 %]": _versus(scores),
        "PPL": _plain(scores.get("ppl"), 1),
        "bits/byte": _plain(scores.get("bits_per_byte"), 3),
        "KL": _plain(scores.get("kl"), 4),
        "top-1": _plain(scores.get("top1"), 3),
        "Brier-1": _plain(scores.get("brier1"), 4),
        "diffusion gain": signed(scores.get("diffusion_gain")),
    }
    if first:
        line["block bound [95 %]"] = _plain(scores.get("block_bound"), 3) + _interval(
            scores.get("block_bound"), ".3f"
        )
    return line


def _unconverged(scores: Mapping[str, Score]) -> str:
    nll = scores.get("nll")
    return "" if nll is None or nll.details.get("converged", True) else " ~"


def _versus(scores: Mapping[str, Score]) -> str:
    if "nll" not in scores:
        return "no likelihood"
    return signed(scores.get("nll_minus_interface")) or "reference"


def _plain(score: Score | None, digits: int) -> str:
    return "" if score is None else f"{score.value:.{digits}f}"


def signed(score: Score | None) -> str:
    """Return a difference with its sign and interval; nothing for None."""
    return "" if score is None else f"{score.value:+.4f}" + _interval(score, "+.4f")


def _interval(score: Score | None, form: str) -> str:
    if score is None or score.lo is None or score.hi is None:
        return ""
    return f" [{score.lo:{form}}, {score.hi:{form}}]"
