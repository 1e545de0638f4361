"""What a sweep writes and prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.checksum import sealed
from dihal_bench.core.files import atomic_path, write_json
from dihal_bench.reporting import intervention_report
from dihal_bench.reporting import sweep_figure as figure
from dihal_bench.results.migrations import SCHEMA
from dihal_bench.studies.sweep import cells, replicate, table
from dihal_bench.studies.sweep.earlier import clear_earlier, replication_stem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dihal_bench.studies.sweep.intervention import Intervention
    from dihal_bench.studies.sweep.sweep import Sweep
    from dihal_bench.studies.sweep.table import Table


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results of one or several backbones.

    Attributes:
        tables: by backbone.
        interventions: by backbone, where coordinates were swept.
        replicated: over backbones, where there are several.
        text: for people.
        files: that were written.
    """

    tables: dict[str, Table]
    interventions: dict[str, Intervention]
    replicated: list[replicate.Replicated]
    text: str
    files: list[Path]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "tables": {name: own.to_dict() for name, own in self.tables.items()},
            "interventions": {name: own.to_dict() for name, own in self.interventions.items()},
            "replicated": [own.to_dict() for own in self.replicated],
        }


def report(sweeps: Sequence[Sweep], root: Path) -> Report:
    """Read all runs, write tables and figures beside them, and return what they say.

    Args:
        sweeps: whose runs are done.
        root: folder of what is said about all backbones together.
    """
    tables = {sweep.name: sweep.table() for sweep in sweeps}
    moved = {s.name: s.intervention(tables[s.name]) for s in sweeps if s.transforms}
    ranked = {s.name: s.cells(tables[s.name]) for s in sweeps}
    graded = {name: every for name, every in ranked.items() if every is not None}
    texts, files, ids = [], [], {}
    for sweep in sweeps:
        own, change = tables[sweep.name], moved.get(sweep.name)
        title = f"backbone {sweep.name}\n\n" if len(sweeps) > 1 else ""
        texts.append(title + _text(own, change, "simple"))
        blocks = sweep.job.inputs.backbone.blocks
        content = result(own, change, backbone=sweep.name, axis=sweep.axis.name, blocks=blocks)
        ids[sweep.name] = content["id"]
        clear_earlier(sweep)
        files += _write(sweep, own, change, content)
        if sweep.name in graded:
            texts.append(f"{cells.show(graded[sweep.name])}\n\n{cells.LEGEND}")
            files += _write_cells(sweep, graded[sweep.name])
    rows: list[replicate.Replicated] = []
    if len(sweeps) > 1:
        rows = replicate.within_layers(moved) if moved else replicate.over_layers(tables)
    if rows:
        texts.append(replicate.show(rows))
        axis = sweeps[0].axis.name
        said = replicated(rows, axis, ids)
        files += _write_replicated(rows, said, replication_stem(root, sweeps[0]))
    return Report(
        tables=tables,
        interventions=moved,
        replicated=rows,
        text="\n\n".join(texts),
        files=files,
    )


def _text(own: Table, change: Intervention | None, form: str) -> str:
    parts = [table.show(own, form=form)]
    if change is not None:
        parts.append(intervention_report.show(change, form=form))
    return "\n\n".join(parts)


def result(
    own: Table, change: Intervention | None, *, backbone: str, axis: str, blocks: int
) -> dict[str, Any]:
    """Return what a sweep's JSON file holds, sealed."""
    about: dict[str, Any] = {"schema": SCHEMA, "run": f"{backbone}-{axis}", "axis": axis}
    about |= {"backbone": backbone, "blocks": blocks}
    if change is not None:
        about["intervention"] = change.to_dict()
    return sealed({**own.to_dict(), **about})


def _write(
    sweep: Sweep, own: Table, change: Intervention | None, content: dict[str, Any]
) -> list[Path]:
    stem = sweep.stem
    write_json(stem.with_name(f"{stem.name}.json"), content)
    markdown = stem.with_name(f"{stem.name}.md")
    with atomic_path(markdown) as temporary:
        temporary.write_text(_text(own, change, "github") + "\n", encoding="utf-8")
    figures: Sequence[Path] = []
    if change is not None:
        figures = intervention_report.draw(change, stem)
    elif own.ranking:
        figures = figure.draw(own, stem)
    return [stem.with_name(f"{stem.name}.json"), markdown, *figures]


def _write_cells(sweep: Sweep, graded: cells.Cells) -> list[Path]:
    import pandas

    stem = sweep.folder / f"grid-{sweep.axis.name}"
    contents = {
        "csv": pandas.DataFrame(graded.rows()).to_csv(index=False, lineterminator="\n"),
        "md": f"{cells.show(graded, form='github')}\n\n{cells.LEGEND}\n",
    }
    for suffix, text in contents.items():
        with atomic_path(stem.with_name(f"{stem.name}.{suffix}")) as temporary:
            temporary.write_text(text, encoding="utf-8")
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in contents]
    return [*paths, *cells.draw(graded, stem)]


def replicated(
    rows: Sequence[replicate.Replicated], axis: str, ids: dict[str, str]
) -> dict[str, Any]:
    """Return what the JSON file over several backbones holds, sealed.

    Args:
        rows: statistics.
        axis: of the sweeps.
        ids: of the sweeps' results, by backbone.
    """
    about = {"schema": SCHEMA, "axis": axis, "run": f"replication-{axis}", "sweeps": ids}
    return sealed({**about, "rows": [row.to_dict() for row in rows]})


def _write_replicated(
    rows: Sequence[replicate.Replicated], content: dict[str, Any], stem: Path
) -> list[Path]:
    write_json(stem.with_name(f"{stem.name}.json"), content)
    markdown = stem.with_name(f"{stem.name}.md")
    with atomic_path(markdown) as temporary:
        temporary.write_text(replicate.show(list(rows), form="github") + "\n", encoding="utf-8")
    return [stem.with_name(f"{stem.name}.json"), markdown, *figure.draw_replicated(rows, stem)]
