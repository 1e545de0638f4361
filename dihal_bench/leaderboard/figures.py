"""Figures of the leaderboard: PNG and SVG, the same bytes from the same records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dihal_bench.core.files import safe
from dihal_bench.core.markdown import one_line
from dihal_bench.core.plotting import BLUE, DPI, GREY, ORANGE, bare, save, style
from dihal_bench.leaderboard import drawn
from dihal_bench.leaderboard.colours import colours
from dihal_bench.leaderboard.parallel import spread
from dihal_bench.results.metrics import BRIER1, ENTROPY, GEN_PPL, KL, NLL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Run = Mapping[str, Any]  # what figures show of a run
_COLOURS = {"control": GREY, "teacher": "black"}  # all else has that of its interface
_CELLS = {"paper": "raw states", "matched": "what is diffused"}
_LOSSES = ("fvu_mmse", "kl_one_step", KL.key)  # of a sweep, that are drawn
_MARKERS = "osD^vP*X"
_LETTERS = 40  # of a label in a legend
_ROWS = 40  # of a figure: more cannot be read


def draw(board: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all figures that the records have something for.

    Args:
        board: what is rendered.
        folder: that receives them.

    Returns:
        The paths of PNG and SVG files.
    """
    jobs = [
        (drawn.digest(kind, what, code=Path(__file__)), kind, folder / stem, what)
        for kind, stem, what in _wanted(board)
    ]
    known = [path for name, _, stem, _ in jobs for path in drawn.take(name, stem)]
    new = [job for job in jobs if job[2].with_suffix(".svg") not in known]
    made = spread(_one, new, label="figures", least=12)  # a process takes as long as several
    return sorted([*known, *(path for paths in made for path in paths)])


def _wanted(data: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield kind, name and content of all figures."""
    own_colours = colours(data["runs"])
    of_table: dict[str, list[Any]] = defaultdict(list)
    for run in data["runs"]:
        own = run["record"]
        oracle = own["bridge"].get("oracle") or {}
        of_table[run["table"]].append(
            {
                "label": run["label"],
                "colour": own_colours[run["label"]],
                "seed": run["seed"],
                "interface": run["interface"],
                "frontier": own["frontier"],
                "beside": own["beside"],
                "sigmas": oracle.get("sigmas"),
                "agreement": oracle.get("agreement_under_noise"),
            }
        )
    for table in data["tables"]:
        if table["kind"] == "likelihood" and table["section"] == "matched":
            name, runs = table["id"], of_table[table["id"]]
            coloured = {**table, "colours": own_colours}
            yield "brier", f"brier1-{name}", coloured
            if _points(table):
                yield "cost", f"nll-flops-{name}", coloured
            if any(run["sigmas"] and run["agreement"] for run in runs):
                yield "recovery", f"recovery-{name}", {"title": table["title"], "runs": runs}
            tasks = sorted({(p["task"], p["key"]) for run in runs for p in run["frontier"]})
            for made in tasks:
                several = [task for task, _ in tasks].count(made[0]) > 1
                task = f"{made[0]} ({made[1]})" if several else made[0]
                what = _frontier_of(made, f"{task}: {table['title']}", runs)
                yield "frontier", safe(f"frontier-{name}-{task}"), what
    for name, located in _located(data).items():
        yield "proxies", f"proxies-{name}", located
    for sweep in data["sweeps"]:
        yield "layers", f"layers-{sweep['id']}", sweep


def _located(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found of the layers of every backbone, by its first run that looked."""
    found: dict[str, Any] = {}
    for run in data["runs"]:
        cells = (run["record"]["locate"] or {}).get("cells")
        if cells:
            own = run["record"]["backbone"]["fingerprint"]
            name = safe(f"{run['backbone']}-{own[:8]}")
            found.setdefault(name, {"title": run["backbone"], "cells": cells})
    return found


def _one(job: tuple[str, str, Path, Any]) -> list[Path]:
    name, kind, stem, what = job
    with style():
        from matplotlib.figure import Figure

        figure = Figure(
            layout="constrained", dpi=DPI
        )  # letters are as wide as where they are drawn
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
        _PANELS[kind](figure, what)
        paths = save(figure, stem)
    drawn.keep(name, paths)
    return paths


def _brier(figure: Any, table: Mapping[str, Any]) -> None:
    """Brier-1 with its interval, the one score that all rows have in common."""
    rows = [row for row in table["rows"] if row["cells"].get(BRIER1.name)]
    rows = [row for row in rows if row["cells"]["role"] != "trial"]
    dropped = max(0, len(rows) - _ROWS)
    if dropped:  # the best of them, in the table's order
        bar = sorted((row["cells"][BRIER1.name]["value"] for row in rows), reverse=True)[_ROWS - 1]
        rows = [row for row in rows if row["cells"][BRIER1.name]["value"] >= bar][:_ROWS]
    names = [_name(row["cells"]) for row in rows]
    high = 1 + max((name.count("\n") for name in names), default=0)
    figure.set_size_inches(3.8 + _wide(names), 1.1 + (0.06 + 0.15 * high) * len(rows))
    axis = figure.subplots()
    bare(axis, "x")
    for place, row in enumerate(rows):
        own, role = row["cells"][BRIER1.name], row["cells"]["role"]
        ends = [[max(0, own["value"] - own["lo"])], [max(0, own["hi"] - own["value"])]]
        colour = _COLOURS.get(role) or table["colours"].get(row["cells"]["interface"], GREY)
        axis.errorbar(own["value"], place, xerr=ends, fmt="o", ms=4, color=colour)
        if role == "teacher":
            axis.axvline(own["value"], color="black", linestyle=":", linewidth=0.9)
    axis.set_yticks(range(len(names)), names)
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row["cells"]["role"] == "interface" else "normal")
    axis.invert_yaxis()
    more = f"; the best {_ROWS} rows of {_ROWS + dropped}" if dropped else ""
    axis.set_xlabel(f"Brier-1, higher is better (95 % intervals{more})")
    axis.set_title(_wrapped(table["title"]), loc="left", fontsize=9)


def _cost(figure: Any, table: Mapping[str, Any]) -> None:
    """NLL of the best of each row's numbers of evaluations against what its training took."""
    points = _points(table)
    names = [_wrapped(row["cells"]["row"], _LETTERS, most=1) for row in points]
    figure.set_size_inches(6 + _wide(names), max(4.2, 0.7 + 0.16 * len(points)))
    axis = figure.subplots()
    bare(axis, "y")
    interfaces = sorted({row["cells"]["interface"] for row in points})
    for row, name in zip(points, names, strict=True):
        cells = row["cells"]
        place = interfaces.index(cells["interface"])
        colour = table["colours"].get(cells["interface"], GREY)
        hollow = cells["role"] == "control"
        axis.plot(
            cells["flops"], cells[NLL.name]["value"], _MARKERS[place % len(_MARKERS)], ms=6,
            color=colour, mfc="white" if hollow else colour, label=name,
        )  # fmt: skip
    for row in table["rows"]:
        if row["cells"]["role"] == "teacher" and row["cells"].get(NLL.name):
            axis.axhline(
                row["cells"][NLL.name]["value"], color="black", linestyle=":", linewidth=0.9
            )
    axis.set_xlabel("FLOPs of training")
    axis.set_ylabel("NLL, nats per token, lower is better")
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    note = "single chains and exact rows (hollow: controls; dotted: teacher)"
    axis.set_title(f"{_wrapped(table['title'], 60)}\n{note}", loc="left", fontsize=9)


def _points(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return every subject's single chain of the most steps, of the lowest NLL first."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in table["rows"]:
        cells = row["cells"]
        known = cells.get("flops") and cells.get(NLL.name) and cells["chains"] == 1
        if known and cells["role"] in ("interface", "control"):
            found[cells["row"]] = row
    return sorted(found.values(), key=lambda row: row["cells"][NLL.name]["value"])[:_ROWS]


def _recovery(figure: Any, what: Mapping[str, Any]) -> None:
    """What recovery makes of the true signal under noise, a line per interface's first run."""
    figure.set_size_inches(6.4, 3.6)
    axis = figure.subplots()
    bare(axis, "y")
    shown: dict[str, Mapping[str, Any]] = {}
    for run in what["runs"]:
        if run["sigmas"] and run["agreement"]:
            shown.setdefault(run["label"], run)
    for place, (label, own) in enumerate(list(shown.items())[: len(_MARKERS)]):
        axis.plot(
            own["sigmas"], own["agreement"], f"{_MARKERS[place]}-", ms=3.5, lw=1,
            color=own["colour"], label=_wrapped(label, _LETTERS, most=2),
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlabel("standard deviation of noise on the true signal, in units of the signal's")
    axis.set_ylabel("tokens that are recovered")
    axis.legend(fontsize=7, frameon=False)
    note = "what recovery makes of the true signal under noise"
    axis.set_title(f"{_wrapped(what['title'])}\n{note}", loc="left", fontsize=9)


def _frontier_of(made: tuple[str, str], title: str, runs: Sequence[_Run]) -> dict[str, Any]:
    """Return a line per row over temperatures: means over seeds; and what stands beside them.

    Args:
        made: the task and the key of how it was scored: texts of other keys are others.
        title: of the figure.
        runs: of the table.
    """
    found: dict[tuple[str, str, str], dict[float, list[Any]]] = defaultdict(
        lambda: defaultdict(list)
    )
    beside: dict[str, tuple[float, float]] = {}
    for run in runs:
        for one in _of_task(run["frontier"], made):
            line = _line(one["row"], run)
            found[line][one["temperature"]].append((one[ENTROPY.key], log(one[GEN_PPL.key])))
        for one in _of_task(run["beside"], made):
            beside.setdefault(one["row"], (one[ENTROPY.key], one[GEN_PPL.key]))
    lines = [
        {
            "name": name,
            "label": label,
            "role": role,
            "many": " S=" in name and not name.endswith(" S=1") and role == "interface",
            "points": [tuple(map(fmean, zip(*at[t], strict=True))) for t in sorted(at)],
        }
        for (name, label, role), at in found.items()
    ]
    own = {run["label"]: {"colour": run["colour"], "interface": run["interface"]} for run in runs}
    return {"title": title, "lines": lines, "beside": beside, "labels": own}


def _of_task(points: Iterable[Mapping[str, Any]], made: tuple[str, str]) -> Iterator[Any]:
    """Return the points of a task that a logarithm can show."""
    return (one for one in points if (one["task"], one["key"]) == made and one[GEN_PPL.key] > 0)


def _line(row: str, run: _Run) -> tuple[str, str, str]:
    """Return what a line is called, the label that it is coloured by, and its role."""
    label, own = run["label"], f"{run['interface']} S="
    if row == "teacher":
        return row, "", "teacher"
    if row.startswith(own):
        return f"{label} S={row.removeprefix(own)}", label, "interface"
    return f"{row} (beside {label})", label, "control"


def _frontier(figure: Any, what: Mapping[str, Any]) -> None:
    """Generative perplexity against entropy, a line per row over temperatures."""
    figure.set_size_inches(7.6, 4.4)
    axis = figure.subplots()
    bare(axis, "y")
    marks = _marks(what["labels"])
    for line in what["lines"][:_ROWS]:
        xs, logs = zip(*line["points"], strict=True)
        axis.plot(
            xs,
            [exp(own) for own in logs],
            color=what["labels"][line["label"]]["colour"] if line["label"] else "black",
            linestyle={"control": ":", "teacher": "-"}.get(
                line["role"], "--" if line["many"] else "-"
            ),
            marker=marks.get(line["label"], "os")[line["many"]],
            markersize=3,
            linewidth=1,
            label=_wrapped(line["name"], most=1),
        )
    for place, (name, (entropy, perplexity)) in enumerate(what["beside"].items()):
        marker = "*" if name == "real text" else "xP1+234"[place % 7]
        size = 10 if name == "real text" else 6
        axis.plot(entropy, perplexity, marker, color="black", ms=size, label=_wrapped(name, most=1))
    axis.set_yscale("log")
    axis.set_xlabel("entropy of a sample's tokens, nats")
    axis.set_ylabel("generative perplexity")
    axis.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title(_wrapped(what["title"]), loc="left", fontsize=9)


def _marks(labels: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return marks of one step and of many: labels of one interface share its colour."""
    of_interface: dict[str, list[str]] = defaultdict(list)
    for label, own in labels.items():
        of_interface[own["interface"]].append(label)
    pairs = [_MARKERS[start : start + 2] for start in range(0, len(_MARKERS), 2)]
    return {
        label: pairs[place % len(pairs)]
        for some in of_interface.values()
        for place, label in enumerate(some)
    }


def _proxies(figure: Any, located: Mapping[str, Any]) -> None:
    """The three proxies and the score of every layer, of raw states and of what is diffused."""
    figure.set_size_inches(7.2, 4.6)
    names = ("curvature", "stiffness", "effective_rank", "score")
    for axis, name in zip(figure.subplots(2, 2).flat, names, strict=True):
        for (cell, label), colour in zip(_CELLS.items(), (BLUE, ORANGE), strict=True):
            rows = located["cells"].get(cell, {}).get("layers", [])
            rows = [row for row in rows if row.get(name)]
            layers = [row["layer"] for row in rows]
            middle = [row[name]["value"] for row in rows]
            axis.plot(layers, middle, "o-", ms=3.5, lw=1, color=colour, label=label)
            ends = [[row[name][end] for row in rows] for end in ("lo", "hi")]
            axis.vlines(layers, *ends, color=colour, lw=1)  # of subsamples: need not hold the point
            axis.set_xticks(layers[:: 1 + len(layers) // 12])
        bare(axis, "y")
        axis.set_title(name.replace("_", " "), loc="left", fontsize=9)
        axis.set_xlabel("layer", fontsize=8)
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.suptitle(_wrapped(located["title"]), fontsize=9)


def _layers(figure: Any, sweep: Mapping[str, Any]) -> None:
    """Scores and losses over layers, and each score against each loss: falling is as promised."""
    losses = [sweep["losses"][name] for name in _LOSSES if name in sweep["losses"]]
    wanted = ("score", "score, matched", "score, raw")
    scores = [(name, sweep["predictors"][name]) for name in wanted if name in sweep["predictors"]]
    figure.set_size_inches(3.6 * (1 + len(losses)), 4.8)
    axes = figure.subplots(2, 1 + len(losses), squeeze=False)
    for (name, values), colour in zip(scores, (BLUE, ORANGE, GREY), strict=False):
        axes[0, 0].plot(sweep["layers"], values, "o-", ms=3.5, lw=1, color=colour, label=name)
        for axis, loss in zip(axes[1, 1:], losses, strict=True):
            axis.plot(values, [own["value"] for own in loss["cells"]], "o", ms=4, color=colour)
            for layer, x, own in zip(sweep["layers"], values, loss["cells"], strict=True):
                axis.annotate(
                    str(layer), (x, own["value"]), xytext=(4, 2),
                    textcoords="offset points", fontsize=7, color=colour,
                )  # fmt: skip
    axes[0, 0].set_title("score, higher: chosen", loc="left", fontsize=9)
    axes[1, 0].legend(*axes[0, 0].get_legend_handles_labels(), loc="upper left", frameon=False)
    for above, below, loss in zip(axes[0, 1:], axes[1, 1:], losses, strict=True):
        values = loss["cells"]
        middle = [own["value"] for own in values]
        ends = [
            [own["value"] - own.get("lo", own["value"]) for own in values],
            [own.get("hi", own["value"]) - own["value"] for own in values],
        ]
        above.errorbar(sweep["layers"], middle, yerr=ends, fmt="o-", ms=3.5, lw=1, color="black")
        above.set_title(_wrapped(f"{loss['title']}, lower is better", 52), loc="left", fontsize=9)
        below.set_title(_wrapped(loss["title"], 52), loc="left", fontsize=9)
        below.set_xlabel("score (numbers: layers)")
    for axis in axes[0]:
        axis.set_xticks(sweep["layers"][:: 1 + len(sweep["layers"]) // 12])
        axis.set_xlabel("layer")
    axes[1, 0].axis("off")
    for axis in axes.flat:
        bare(axis, "y")
    figure.suptitle(_wrapped(f"{sweep['backbone']}: {sweep['title']}"), fontsize=9)


def _name(cells: Mapping[str, Any]) -> str:
    inset = "" if cells["role"] in ("teacher", "interface") else "· "
    steps = "" if cells["kind"] == "exact" and cells["steps"] == 1 else f", S={cells['steps']}"
    chains = f", K={cells['chains']}" if cells["chains"] > 1 else ""
    return f"{_wrapped(inset + cells['row'], _LETTERS, most=2)}{steps}{chains}"


def _plain(text: str) -> str:
    """Keep a stranger's dollar signs from being mathematics, and SVG well-formed."""
    return one_line(text).replace("$", r"\$")


def _wide(names: Sequence[str]) -> float:
    """Return the inches that the longest line of labels takes: in bold capitals at worst."""
    lines = [line for name in names for line in name.split("\n")]
    return max((sum(0.14 if c.isupper() else 0.08 for c in line) for line in lines), default=0.0)


def _wrapped(text: str, width: int = 80, most: int | None = None) -> str:
    """Return text in lines of so many letters; what is beyond the last is cut."""
    import textwrap

    lines = textwrap.wrap(text, width, max_lines=most, placeholder="…")
    return "\n".join(map(_plain, lines))


_PANELS: dict[str, Callable[[Any, Any], None]] = {
    "brier": _brier,
    "cost": _cost,
    "recovery": _recovery,
    "frontier": _frontier,
    "proxies": _proxies,
    "layers": _layers,
}
