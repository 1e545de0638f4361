"""What a person sees of samples: metrics, what fooled them, rows without a model, the frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.results.metrics import ENERGY, GEN_PPL_AT_ENTROPY, HIGHER, LOWER, MAUVE, METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dihal_bench.evaluation.samples.frontier import Point
    from dihal_bench.results.record import Score

_BEST = {LOWER: "lowest", HIGHER: "highest", None: "real text's"}
_Measures = Mapping[str, Mapping[str, Any]]


def show_samples(scores: Sequence[Score], audit: Mapping[str, Any], order: Sequence[str]) -> str:
    """Return the tables of a task: a line per metric and what fooled it; rows without a model.

    Args:
        scores: of the task.
        audit: what the record keeps of it beside the scores.
        order: subjects from left to right.
    """
    rows: dict[str, dict[str, Mapping[str, Any]]] = {"real text": dict(audit["data"])}
    for score in sorted(scores, key=lambda s: (order.index(s.subject), s.steps)):
        if score.metric != GEN_PPL_AT_ENTROPY.key:
            nfe = "" if score.subject == TEACHER else f"\nNFE {score.nfe}"
            rows.setdefault(score.subject + nfe, {})[score.metric] = asdict(score)
    found = {name for own in rows.values() for name in own}
    known = [metric.key for metric in METRICS if metric.key in found]
    names = known + sorted(found - set(known))
    verdicts = audit["verdicts"]
    lines = [line for name in names for line in _lines(name, rows, verdicts)]
    parts = [_tabulated(lines), *_notes(scores, audit)]
    if audit["impostors"]:
        naive = [_naive(row, known) for row in audit["impostors"]]
        parts += ["", "Rows without a model", "", _tabulated(naive), _PUBLISHED]
    return "\n".join(parts)


def _tabulated(lines: Sequence[Mapping[str, str]]) -> str:
    from tabulate import tabulate

    table = tabulate(lines, headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n".join(line.rstrip() for line in str(table).splitlines())


def _lines(
    name: str, rows: Mapping[str, _Measures], verdicts: Mapping[str, Any]
) -> Iterator[dict[str, str]]:
    """Yield the line of a metric, and one more of what belongs to it."""
    best = _BEST[METRICS[name].better] if name in METRICS else ""
    line = {"metric": METRICS.named(name).title, "best": best}
    line |= {row: _cell(name, own) for row, own in rows.items()}
    yield line | ({"fooled by": _verdict(verdicts, name)} if verdicts else {})
    more = {MAUVE.key: ("MAUVE over seeds", _spread), ENERGY.key: ("energy, p", _p)}.get(name)
    if more:
        label, cell = more
        yield {"metric": label} | {row: cell(own[name]) for row, own in rows.items() if name in own}


def _naive(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return the line of a row without a model; intervals would be of no use."""
    measures = row["measures"]
    return {"row": row["name"] + ("*" if row["published"] else "")} | {
        METRICS.named(name).title.replace(" ", "\n", 1): _value(name, measures) for name in names
    }


def _value(name: str, measures: _Measures) -> str:
    digits = METRICS.named(name).digits
    return f"{measures[name]['value']:.{digits}f}" if name in measures else "n/a"


def _cell(name: str, measures: _Measures) -> str:
    own = measures.get(name)
    if own is None or own["lo"] is None or own["hi"] is None:
        return _value(name, measures)
    half = (own["hi"] - own["lo"]) / 2
    return f"{_value(name, measures)} ± {half:.{METRICS.named(name).digits}f}"


def _spread(own: Mapping[str, Any]) -> str:
    return f"{own['details']['least']:.2f} to {own['details']['largest']:.2f}"


def _p(own: Mapping[str, Any]) -> str:
    return f"{own['details']['p']:.3f}"


def _verdict(verdicts: Mapping[str, Any], name: str) -> str:
    if name not in verdicts:
        return ""
    fooled, close = verdicts[name]["fooled"], len(verdicts[name]["close"])
    text = f"{len(fooled)}: {verdicts[name]['worst']}" if fooled else "none"
    return text + (f" (+{close} close)" if close else "")


_PUBLISHED = "*: settings that are in the literature"


def _notes(scores: Sequence[Score], audit: Mapping[str, Any]) -> list[str]:
    some = scores[0]
    details = some.details
    few = any(s.details.get("few") for s in scores if s.metric == MAUVE.key)
    notes = [
        f"{details['samples']} samples of {details['tokens']} tokens, temperature "
        f"{details['temperature']:g}, top-p {details['top_p']:g}, prompts of {details['prefix']} "
        f"tokens; judge {details['judge']}; NFE: network evaluations per token; {some.dtype}, "
        "tokens drawn in float64; ±: half of the 95 % interval over samples, where one covers",
    ]
    if few:
        notes.append(
            "MAUVE: fewer than 1,000 samples a side bias it upwards; for comparison within this "
            "table at most"
        )
    if audit["impostors"]:
        notes.append(
            "fooled by: rows without a model that the metric ranks above the teacher's samples at "
            "temperature 1, how many and which it likes best; close: ranked below, but their "
            "intervals overlap with the teacher's"
        )
    return notes


def show_frontier(scores: Sequence[Score], points: Sequence[Point], entropy: float) -> str:
    """Return the table of the frontier: every row's perplexity at the entropy of real text."""
    from tabulate import tabulate

    found = {
        f"{score.subject} S={score.steps}": score
        for score in scores
        if score.metric == GEN_PPL_AT_ENTROPY.key
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
    text = str(tabulate(table, headers="keys", tablefmt="simple", disable_numparse=True))
    beaten = sorted({name for own in found.values() for name in own.details.get("fooled_by", ())})
    if beaten:
        text += f"\nbelow the teacher's curve, without a model: {', '.join(beaten)}"
    return text
