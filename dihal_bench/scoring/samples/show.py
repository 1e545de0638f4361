"""What a person sees of samples: a table of rows, what fooled each metric, the frontier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.scoring.samples.desk import AT_ENTROPY
from dihal_bench.scoring.samples.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.records import Score
    from dihal_bench.scoring.samples.frontier import Point

_DIGITS = {"gen_ppl": 1, "gen_ppl_begun": 1, "entropy": 2}
_BEST = {"low": "lowest", "high": "highest", "data": "real text's"}


def show_samples(scores: Sequence[Score], audit: Mapping[str, Any], order: Sequence[str]) -> str:
    """Return the table of a task: real text, the teacher, rows, impostors; and the verdicts.

    Args:
        scores: of the task.
        audit: what the record keeps of it beside the scores.
        order: subjects from top to bottom.
    """
    from tabulate import tabulate

    rows: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        own = {"value": score.value, "lo": score.lo, "hi": score.hi, "details": score.details}
        if score.metric != AT_ENTROPY:
            rows.setdefault((score.subject, score.nfe), {})[score.metric] = own
    found = {name for own in rows.values() for name in own}
    names = [name for name in METRICS if name in found] + sorted(found - METRICS.keys())
    nfe = {key: str(key[1]) for key in rows}
    table = [_line("real text", "-", audit["data"], names)]
    table += [_line(key[0], nfe[key], own, names) for key, own in rows.items()]
    table += [
        _line(row["name"] + ("*" if row["published"] else ""), "0", row["measures"], names)
        for row in audit["impostors"]
    ]
    verdicts = audit["verdicts"]
    if verdicts:
        table.append(
            {"row": "best value", "NFE": ""}
            | {_label(n): _BEST[METRICS[n].best] for n in names if n in METRICS}
        )
        table.append(
            {"row": "fooled by", "NFE": ""} | {_label(n): _verdict(verdicts, n) for n in names}
        )
    return "\n".join(
        [
            str(tabulate(table, headers="keys", tablefmt="simple", disable_numparse=True)),
            *_notes(scores, audit),
        ]
    )


def _line(
    row: str, nfe: str, measures: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> dict[str, str]:
    return {"row": row, "NFE": nfe} | {_label(name): _cell(name, measures) for name in names}


def _label(name: str) -> str:
    return METRICS[name].label if name in METRICS else name.replace("_", " ")


def _cell(name: str, measures: Mapping[str, Mapping[str, Any]]) -> str:
    if name not in measures:
        return "n/a"
    own = measures[name]
    text = f"{own['value']:.{_DIGITS.get(name, 3)}f}"
    if name == "energy":
        return f"{text} (p={own['details']['p']:.3f})"
    if name == "mauve":
        least, largest = own["details"]["least"], own["details"]["largest"]
        return f"{text} ({least:.2f} to {largest:.2f})"
    return text


def _verdict(verdicts: Mapping[str, Any], name: str) -> str:
    if name not in verdicts:
        return ""
    fooled = verdicts[name]["fooled"]
    return f"{len(fooled)}: {verdicts[name]['worst']}" if fooled else "none"


def _notes(scores: Sequence[Score], audit: Mapping[str, Any]) -> list[str]:
    some = scores[0]
    details = some.details
    few = any(s.details.get("few") for s in scores if s.metric == "mauve")
    notes = [
        f"{details['samples']} samples of {details['tokens']} tokens, temperature "
        f"{details['temperature']:g}, top-p {details['top_p']:g}, prompts of {details['prefix']} "
        f"tokens; judge {details['judge']}; NFE: network evaluations per token; {some.dtype}, "
        "tokens drawn in float64",
    ]
    if few:
        notes.append(
            "MAUVE: fewer than 1,000 samples a side bias it upwards; for comparison within this "
            "table at most (in parentheses: least and largest over seeds of k-means)"
        )
    if audit["impostors"]:
        notes.append(
            "fooled by: rows without a model that the metric ranks above the teacher's samples, "
            "how many and which it likes best; *: settings that are in the literature"
        )
    return notes


def show_frontier(scores: Sequence[Score], points: Sequence[Point], entropy: float) -> str:
    """Return the table of the frontier: every row's perplexity at the entropy of real text."""
    from tabulate import tabulate

    found = {
        f"{score.subject} S={score.steps}": score for score in scores if score.metric == AT_ENTROPY
    }
    reached: dict[str, list[float]] = {}
    for point in points:
        reached.setdefault(point.row, []).append(point.entropy)
    table = []
    for name, own in reached.items():
        score = found.get(name) or found.get(f"{name} S=1")
        table.append(
            {
                "row": name,
                f"gen-PPL at entropy {entropy:.2f} [95 %]": "n/a"
                if score is None
                else f"{score.value:.1f} [{score.lo:.1f}, {score.hi:.1f}]",
                "entropies reached": f"{min(own):.2f} to {max(own):.2f}",
            }
        )
    return str(tabulate(table, headers="keys", tablefmt="simple", disable_numparse=True))
