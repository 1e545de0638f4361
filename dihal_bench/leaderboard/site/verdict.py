"""What a table says in words: whether noise bought anything, and which interface is first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dihal_bench.core.markdown import counted
from dihal_bench.leaderboard.site.pages import estimate, number
from dihal_bench.results.metrics import BRIER1, DIFFUSION_GAIN
from dihal_bench.results.table import FEWER, FOOLED

_Row = Mapping[str, Any]
_SPAN = re.compile(r"\(\d+, \d+\]")  # the blocks that a row replaces, in what it is called
_MOST = 3  # of a list in a sentence


def verdict(table: Mapping[str, Any]) -> str:
    """Return what a table says at its first place, and why nothing stands there if it does not."""
    columns = {column["key"]: column for column in table["columns"]}
    if not _of_role(table, "interface"):
        return ""
    if BRIER1.name not in columns:
        return _of_text(table)
    return " ".join(_Verdict(table, columns).sentences())


class _Verdict:
    """Makes the sentences of one table; ranks are the table's own, nothing is ranked here."""

    def __init__(self, table: Mapping[str, Any], columns: Mapping[str, Any]):
        self.title = columns[BRIER1.name]["title"]
        self.digits = columns[BRIER1.name].get("digits", 4)
        self.gain_digits = columns.get(DIFFUSION_GAIN.name, {}).get("digits", 4)
        scored = [row for row in _of_role(table, "interface") if _brier(row) > -math.inf]
        self.interfaces = sorted(scored, key=_brier, reverse=True)
        self.controls = sorted(_of_role(table, "control"), key=_brier, reverse=True)
        self.teachers = _of_role(table, "teacher")

    def sentences(self) -> Iterator[str]:
        leading = [row for row in self.interfaces if _rank(row) == 1]
        if not leading:
            yield "No interface has a rank: that takes three trainings that differ in their seed."
            yield from (f"The best is {self._scored(row)}." for row in self.interfaces[:1])
            return
        first = leading[0]
        rivals = [row for row in self.interfaces if _ranking(row) == _ranking(first)]
        ranked = [row for row in rivals if _rank(row) is not None]
        yield self._bought(first)
        yield self._first(first, len(ranked), leading)
        for row in [row for row in rivals if row not in ranked and _brier(row) > _brier(first)][:1]:
            trainings = counted(row["cells"].get("seeds") or 0, "training")
            yield f"Above it, but of {trainings} and without a rank: {self._scored(row)}."
        yield from self._others(first, [row for row in ranked if row is not first])
        yield from self._elsewhere(first, leading)

    def _bought(self, first: _Row) -> str:
        """Say what the interval of the diffusion gain leaves open."""
        cells, name = first["cells"], _name(first)
        gain, over = cells.get(DIFFUSION_GAIN.name), cells.get("gain_over")
        if not isinstance(gain, Mapping) or _value(gain) is None:
            return f"What noise buys is not known: beside {name} stands no control without it."
        control = f"{over}, its best control without diffusion" if over else "its best control"
        control += ", which saw fewer tokens" if FEWER in gain.get("flags", ()) else ""
        lo, hi = gain.get("lo"), gain.get("hi")
        own = f"diffusion gain {estimate(gain, self.gain_digits)}"
        if not isinstance(lo, int | float) or not isinstance(hi, int | float):
            return f"What noise buys {name} has no interval: {own} over {control}."
        if lo > 0:
            return f"Noise helps: {name} is better than {control} ({own})."
        if hi < 0:
            return f"Noise does not help: {name} is worse than {control} ({own})."
        return (
            f"Noise gains nothing measurable: {name} is not told apart from {control} ({own} holds "
            "zero)."
        )

    def _first(self, first: _Row, ranked: int, leading: list[_Row]) -> str:
        """Say what it is first among, at which score, and what stands beside that."""
        cells = first["cells"]
        steps = self._steps(leading, first)
        again = [step for step, row in steps.items() if _same(row, first)]
        seeds = cells.get("seeds")
        among = f"first of {ranked}" if ranked > 1 else "the only one with a rank"
        said = f"{_place(cells)}it is {among}{_ties(first)}"
        said += f", as at S={_listed(again)}" if again else ""
        said += f": {self.title} {estimate(cells.get(BRIER1.name), self.digits)}"
        said += f" over {counted(seeds, 'training')}" if isinstance(seeds, int) else ""
        beside = [self._beside(first, control) for control in self._able(first)[:1]]
        beside += [f"the teacher {self._number(row)}" for row in self.teachers[:1]]
        return "; ".join([said, ", ".join(beside)] if beside else [said]) + "."

    def _beside(self, first: _Row, control: _Row) -> str:
        if _brier(control) > _brier(first):
            return f"the control {_name(control)} is above it with {self._number(control)}"
        if _name(control) == first["cells"].get("gain_over"):
            return f"that control has {self._number(control)}"
        return f"the best control, {_name(control)}, has {self._number(control)}"

    def _others(self, first: _Row, others: list[_Row]) -> Iterator[str]:
        """Say where those below replace other blocks, and what needs no training to beat them."""
        own = _span(first)
        away = [row for row in others if own and _span(row) not in ("", own)]
        spans = sorted({_span(row) for row in away}, key=_as_numbers)
        said = []
        if away:
            who = "The others" if len(away) == len(others) else "Some of the others"
            said.append(f"{who} replace {_listed(spans)} instead")
        for control in [row for row in self._able(first) if _untrained(row)][:1]:
            below = sum(_brier(control) > _brier(row) for row in others)
            whom = (
                f"{'all' if below == len(others) else below} of {'them' if said else 'the others'}"
            )
            if below:
                what = f"{_name(control)}, a control without training ({self._number(control)}),"
                said.append(f"{what} is above {whom}")
        if said:
            yield f"{'; '.join(said)}."

    def _elsewhere(self, first: _Row, leading: list[_Row]) -> Iterator[str]:
        """Say who else is first: at other S, or among rows that replace more or fewer blocks."""
        said = [
            f"{_name(row)}{_ties(row)} at S={number(step)} ({self._number(row)})"
            for step, row in self._steps(leading, first).items()
            if not _same(row, first)
        ]
        best: dict[int, _Row] = {}
        for row in sorted(self.interfaces, key=lambda row: _rank(row) != 1):
            replaced = row["cells"].get("replaced")
            if isinstance(replaced, int) and replaced != first["cells"].get("replaced"):
                best.setdefault(replaced, row)
        said += [
            f"{_name(row)} at S={number(row['cells'].get('steps'))} where "
            f"{replaced} {'is' if replaced == 1 else 'are'} replaced ({self._number(row)}"
            f"{', without a rank' if _rank(row) is None else ''})"
            for replaced, row in sorted(best.items())
        ]
        if said:
            yield f"Elsewhere the first is {_listed(said, '; ')}."

    def _steps(self, leading: list[_Row], first: _Row) -> dict[Any, _Row]:
        """Return who is first among as many replaced blocks at other S, from the least S on."""
        found: dict[Any, _Row] = {}
        for row in leading:
            cells = row["cells"]
            if cells.get("replaced") == first["cells"].get("replaced"):
                found.setdefault(cells.get("steps"), row)
        found.pop(first["cells"].get("steps"), None)
        return dict(sorted(found.items(), key=lambda pair: _as_numbers(pair[0])))

    def _able(self, first: _Row) -> list[_Row]:
        """Return the controls that replace as many blocks at no more evaluations, best first."""
        cells = first["cells"]
        return [
            row
            for row in self.controls
            if row["cells"].get("replaced") == cells.get("replaced")
            and _real(row["cells"].get("steps")) <= _real(cells.get("steps"))
            and _brier(row) > -math.inf
        ]

    def _number(self, row: _Row) -> str:
        return number(_value(row["cells"].get(BRIER1.name)), self.digits)

    def _scored(self, row: _Row) -> str:
        return f"{_name(row)}, {self.title} {self._number(row)}"


def _of_text(table: Mapping[str, Any]) -> str:
    """Say which generated text is nearest to real text, by the first metric that can be trusted.

    It has a direction and intervals, and nothing in the table fools it.
    """
    real = _of_role(table, "reference")
    for column in table["columns"] if real else ():
        cells = [(row, row["cells"].get(column["key"])) for row in table["rows"]]
        found = [(row, cell) for row, cell in cells if isinstance(cell, Mapping)]
        own = [(row, cell) for row, cell in found if row["cells"].get("role") == "interface"]
        trusted = not any(FOOLED in cell.get("flags", ()) for _, cell in found)
        if not column.get("better") or not trusted or not own:
            continue
        if any(cell.get("lo") is None or cell.get("hi") is None for _, cell in own):
            continue
        sign = 1 if column["better"] == "lower" else -1
        best, cell = min(own, key=lambda pair: sign * _real(pair[1]["value"], nothing=math.inf))
        digits = column.get("digits")
        beside = [
            f"{whose} {estimate(rows[0]['cells'][column['key']], digits)}"
            for whose, rows in (
                ("the teacher's has", _of_role(table, "teacher")),
                ("real text itself", real),
            )
            if rows and rows[0]["cells"].get(column["key"]) is not None
        ]
        naive = ", and no sampler without a model fools it" if _of_role(table, "no model") else ""
        return (
            f"By {column['title']} ({column['better']} is better{naive}) the text of "
            f"{_name(best)} at S={number(best['cells'].get('steps'))} is the nearest to real text "
            f"among the interfaces': {'; '.join([estimate(cell, digits), ', '.join(beside)])}."
        )
    return ""


def _of_role(table: Mapping[str, Any], role: str) -> list[_Row]:
    return [row for row in table["rows"] if row["cells"].get("role") == role]


def _ranking(row: _Row) -> tuple[Any, Any]:
    """Return what rows have in common that are ranked against each other."""
    return row["cells"].get("replaced"), row["cells"].get("steps")


def _same(row: _Row, other: _Row) -> bool:
    return bool(row["cells"].get("row") == other["cells"].get("row"))


def _untrained(row: _Row) -> bool:
    """Whether a control is known to have seen no token in training: a mean, a look-up."""
    return all(row["cells"].get(f"{phase}_tokens") == 0 for phase in ("diffusion", "recovery"))


def _span(row: _Row) -> str:
    found = _SPAN.search(str(row["cells"].get("row")))
    return found.group() if found else ""


def _as_numbers(value: Any) -> list[float]:
    """Return the numbers of a text, to sort by: 4 stands before 16."""
    return [float(digits) for digits in re.findall(r"\d+", str(value))] or [math.inf]


def _listed(values: list[Any], between: str = ", ") -> str:
    """Return a list as text, of more than three the first three and how many are left."""
    texts = [value if isinstance(value, str) else number(value) for value in values]
    left = len(texts) - _MOST
    return between.join([*texts[:_MOST], *([f"{left} more"] if left > 0 else [])])


def _ties(row: _Row) -> str:
    ties = len(row.get("ties", ()))
    return f" (tied with {ties} more)" if ties else ""


def _rank(row: _Row) -> Any:
    return _value(row["cells"].get("rank"))


def _brier(row: _Row) -> float:
    return _real(_value(row["cells"].get(BRIER1.name)), nothing=-math.inf)


def _real(value: Any, *, nothing: float = 0.0) -> float:
    return float(value) if isinstance(value, int | float) else nothing


def _name(row: _Row) -> str:
    cells = row["cells"]
    chains = cells.get("chains")
    return f"{cells.get('row')}{f' with K={number(chains)}' if chains and chains != 1 else ''}"


def _place(cells: Mapping[str, Any]) -> str:
    """Say among what: rows that replace more of the backbone are no rivals, nor other S."""
    replaced, retained = cells.get("replaced"), cells.get("retained")
    at = f"At S={number(cells.get('steps'))}, "
    if not isinstance(replaced, int) or not isinstance(retained, int):
        return at
    return f"{at}with {replaced} of {counted(replaced + retained, 'block')} replaced, "


def _value(cell: Any) -> Any:
    return cell.get("value") if isinstance(cell, Mapping) else cell
