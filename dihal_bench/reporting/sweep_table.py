"""What a sweep writes and prints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dihal_bench.core.checksum import sealed
from dihal_bench.core.files import write_json, write_text
from dihal_bench.reporting import intervention_figure
from dihal_bench.reporting import sweep_figure as figure
from dihal_bench.reporting.writers import csv, text, titled
from dihal_bench.results.migrations import SCHEMA
from dihal_bench.studies.ranking.agreement import LEAST
from dihal_bench.studies.sweep import replicate
from dihal_bench.studies.sweep.cells import draw as draw_cells
from dihal_bench.studies.sweep.sweep import clear_earlier, replication_stem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.studies.sweep.cells import Cells
    from dihal_bench.studies.sweep.intervention import Intervention
    from dihal_bench.studies.sweep.sweep import Sweep
    from dihal_bench.studies.sweep.table import SweepTable


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results of one or several backbones.

    Attributes:
        plain: for programs.
        text: for people.
        files: that were written.
    """

    plain: dict[str, Any]
    text: str
    files: list[Path]


def report(sweeps: Sequence[Sweep], root: Path) -> Report:
    """Read all runs, write tables and figures beside them, and return what they say.

    Args:
        sweeps: whose runs are done.
        root: folder of what is said about all backbones together.
    """
    tables = {sweep.name: sweep.table() for sweep in sweeps}
    moved = {s.name: s.intervention(tables[s.name]) for s in sweeps if s.transforms}
    ranked = {sweep.name: sweep.cells(tables[sweep.name]) for sweep in sweeps}
    texts: list[str] = []
    files: list[Path] = []

    def add(stem: Path, content: dict[str, Any] | str, show: Callable[..., str]) -> None:
        texts.append(show())
        files.extend(_write(stem, content, show(form="github") + "\n"))

    ids, axis = {}, sweeps[0].axis.name
    for sweep in sweeps:
        own, change, cells = tables[sweep.name], moved.get(sweep.name), ranked[sweep.name]
        blocks = sweep.job.inputs.backbone.blocks
        content = result(own, change, backbone=sweep.name, axis=axis, blocks=blocks)
        ids[sweep.name] = content["id"]
        clear_earlier(sweep)
        if len(sweeps) > 1:
            texts.append(f"backbone {sweep.name}")
        add(sweep.stem, content, partial(show_sweep, own, change))
        if change is not None:
            files += intervention_figure.draw(change, sweep.stem)
        elif own.ranking:
            files += figure.draw(own, sweep.stem)
        if cells is not None:
            stem = sweep.folder / f"grid-{axis}"
            add(stem, csv(cells.table()), partial(show_cells, cells))
            files += draw_cells(cells, stem)
    rows: list[replicate.Replicated] = []
    if len(sweeps) > 1:
        rows = replicate.within_layers(moved) if moved else replicate.over_layers(tables)
    if rows:
        stem = replication_stem(root, sweeps[0])
        add(stem, replicated(rows, axis, ids), partial(show_replicated, rows))
        files += figure.draw_replicated(rows, stem)
    plain = {
        "tables": {name: own.to_dict() for name, own in tables.items()},
        "interventions": {name: own.to_dict() for name, own in moved.items()},
        "replicated": [own.to_dict() for own in rows],
    }
    return Report(plain=plain, text="\n\n".join(texts), files=files)


def _write(stem: Path, content: dict[str, Any] | str, markdown: str) -> list[Path]:
    """Write a result for programs, a JSON value or a table as CSV, and for people."""
    kind = "csv" if isinstance(content, str) else "json"
    data, page = (stem.with_name(f"{stem.name}.{suffix}") for suffix in (kind, "md"))
    if isinstance(content, str):
        write_text(data, content)
    else:
        write_json(data, content)
    write_text(page, markdown)
    return [data, page]


def show_sweep(own: SweepTable, change: Intervention | None = None, *, form: str = "simple") -> str:
    """Return the tables of a sweep as text.

    Args:
        own: what came out.
        change: what changes of coordinates did, where they were swept.
        form: of ``writers.text``: "simple", or "github" for Markdown.
    """
    outcomes, seeds = own.outcomes, len(own.outcomes.seeds)
    spread = f"±: standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
    parts = [
        titled(own.candidates(), form, *filter(None, [outcomes.setting])),
        f"Sampled: in {outcomes.steps} network evaluations per chain; KL and NLL of one chain. "
        f"{spread}",
        *_subsampled(own.sample),
        *(titled(own.ranked(loss), form) for loss in own.ranking),
        *_notes(own),
        "made by " + "; ".join(outcomes.origins),
    ]
    if change is not None:
        head = "Kendall τ of score and minus the loss within a layer, mean over layers"
        parts += [text(change.moves(), form), head, text(change.agreement(), form), _INTERVENTION]
    return "\n\n".join(parts)


def _notes(own: SweepTable) -> list[str]:
    """What has to be said of a ranking, or of there being none; nothing of other sweeps."""
    count = len(own.outcomes.candidates)
    if not own.ranking:
        return [_UNRANKED] if own.predictions else []
    orders = math.factorial(count)
    few = f"{count} candidates have {orders} orders: by chance τ is 1 once in {orders} times."
    return [_LEGEND] if count > _FEW else [_LEGEND, few]


def _subsampled(sample: Mapping[str, int] | None) -> Iterator[str]:
    """Yield what the subsamples of activations are, with a warning if they leave nothing out."""
    if sample is not None:
        tokens, kept = sample["tokens"], sample["kept"]
        every = " They leave nothing out: intervals are over trainings alone."
        own = f"Subsamples of activations: {sample['resamples']}, of {tokens:,} of {kept:,} tokens."
        yield own + every * (tokens >= kept)


def show_replicated(rows: Sequence[replicate.Replicated], *, form: str = "simple") -> str:
    """Return the statistics of several backbones as text."""
    return f"{text(replicate.replication_table(rows), form)}\n\n{_REPLICATED}"


def show_cells(own: Cells, *, form: str = "simple") -> str:
    """Return what other definitions of the score say: a row per loss, then per axis and value."""
    return "\n\n".join(
        [
            f"{len(own.protocols):,} definitions of the score",
            text(own.summary(), form),
            "mean τ of the cells with one choice fixed:",
            text(own.by_choice(), form),
            _CELLS,
        ]
    )


def result(
    own: SweepTable, change: Intervention | None, *, backbone: str, axis: str, blocks: int
) -> dict[str, Any]:
    """Return what a sweep's JSON file holds, sealed."""
    about: dict[str, Any] = {"schema": SCHEMA, "run": f"{backbone}-{axis}", "axis": axis}
    about |= {"backbone": backbone, "blocks": blocks}
    if change is not None:
        about["intervention"] = change.to_dict()
    return sealed({**own.to_dict(), **about})


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


_UNRANKED = (
    f"No predictor is ranked: fewer than {LEAST} candidates have no ranking, since the rank "
    "correlation of two is always 1 or -1."
)
_FEW = 4  # candidates, of so few orders that any predictor may hit the right one by chance
_LEGEND = (
    "Predictors are turned so that higher promises a lower loss; rank correlations are with minus "
    "the loss. Intervals: 95 %, over subsamples of activations and over trainings drawn anew, of "
    "the layers as they are; of three trainings they are too narrow. The score sees training text "
    "alone, the FVU of ridge and token mean the very windows that the losses are of. Partial: "
    "Spearman's given the depth, undefined where predictor or loss is monotone in it. τ - τ(depth):"
    " what a predictor adds to naming the earliest layer, in pairs; a score for which it is not "
    "above 0 has shown nothing. Gap: candidates that came out better than the predicted one. No "
    "p-value stands here: layers of one backbone are no sample of anything."
)
_INTERVENTION = (
    "Scores are standardised over the transforms of a layer; moved: largest change against the "
    "identity over layers, of the space that is diffused, A (h - mean) / r, and of A h. Losses: "
    "minus those of the identity, mean over layers, 95 % over seeds (t). rotate is the null: no "
    "score moves, and losses differ by what another start of training differs by. scale divides "
    "out of what is diffused: losses must not move, though the raw score does. So that coordinates "
    "can be changed, every bridge of these, identity's too, predicts the state itself "
    "(bridge.residual=none) and not what its token leaves open, as in other sweeps: that is harder."
)
_REPLICATED = (
    "One value per backbone. p: exact sign-flip test, one-sided: the share of all assignments of "
    "signs to the backbones' values whose mean is at least as large; least: the smallest p that so "
    "many backbones can give. It stands at what the claim is about, per loss: that the score ranks "
    "the candidates, and that it does so better than depth, which is easy where depth ranks them "
    "the wrong way round. It is not corrected for there being several losses. Two seeds of one "
    "architecture are less independent than two architectures."
)
_CELLS = (
    "Each cell is one definition of the score; τ is Kendall's with minus the loss, over the same "
    "layers. The best of so many definitions, chosen by the losses it is compared with, proves "
    "nothing: the shares are what counts."
)
