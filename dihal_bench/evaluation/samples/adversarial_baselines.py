"""The audit: which metrics would rank a sampler without a model above the model?

Rows that no metric should prefer to the teacher's own samples stand beside them: four samplers over
a grid of sizes, real text with its tokens shuffled, and a few real texts over and over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core.progress import progress
from dihal_bench.evaluation.samples.frontier import under
from dihal_bench.evaluation.samples.metrics import measure, measures
from dihal_bench.evaluation.samples.ngram_samplers import GRID, PUBLISHED, Counts
from dihal_bench.evaluation.samples.sampling import Samples
from dihal_bench.results.metrics import ENTROPY, GEN_PPL, GEN_PPL_AT_ENTROPY, LOWER, METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from dihal_bench.evaluation.samples.frontier import Point
    from dihal_bench.evaluation.samples.settings import Measure, SampleMetricContext

_REPEATED = 8  # real texts that stand for all samples


@dataclass(frozen=True)
class NaiveSampler:
    """A row that knows no model.

    Attributes:
        name: for example "periodic-64".
        kind: its sampler.
        published: whether it is one of the settings that are in the literature.
        measures: metric -> what was measured.
    """

    name: str
    kind: str
    published: bool
    measures: Mapping[str, Measure]


@dataclass(frozen=True)
class Verdict:
    """What an audit says of a metric.

    Attributes:
        metric: its name.
        fooled: impostors that it ranks above the teacher's samples.
        worst: of them the one that it likes best; empty: none.
        close: impostors that it ranks below, but not clearly: their intervals (of MAUVE the range
            over seeds) overlap with the teacher's.
    """

    metric: str
    fooled: tuple[str, ...]
    worst: str
    close: tuple[str, ...] = ()


def naive_samplers(
    yard: SampleMetricContext,
    training: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    seed: int,
) -> list[NaiveSampler]:
    """Measure every row that knows no model.

    Args:
        yard: what they are measured with; its real text is what is shuffled and repeated.
        training: tokens that the samplers count.
        tokenizer: theirs.
        prompts: what the samples of a row stand behind, as those of the models do.
        tokens: of a sample.
        seed: of what is drawn.
    """
    counts = Counts.of(training, without=tokenizer.all_special_ids)
    found = []
    rows = list(_rows(counts, yard.real, tokenizer, prompts, tokens, seed))
    with progress("audit", len(rows), unit="rows") as bar:
        for name, kind, published, samples in rows:
            found.append(NaiveSampler(name, kind, published, measure(yard.subject(samples))[0]))
            bar.update(1)
    return found


def _rows(
    counts: Counts,
    real: Samples,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    seed: int,
) -> Iterator[tuple[str, str, bool, Samples]]:
    for kind, sizes in GRID.items():
        for size in sizes:
            ids = counts.draw(kind, size, rows=len(prompts), tokens=tokens, seed=seed)
            samples = Samples.of(ids.tolist(), tokenizer, prompts=prompts)
            yield f"{kind}-{size}", kind, (kind, size) in PUBLISHED, samples
    generator = np.random.default_rng(seed)
    some = real.part(range(min(len(real), len(prompts))))
    shuffled = [generator.permutation(row).tolist() for row in some.ids]
    mixed = Samples.of(shuffled, tokenizer, prompts=some.given)
    yield "real text, shuffled", "shuffled", False, mixed
    chosen = np.resize(np.arange(min(_REPEATED, len(real))), len(prompts))
    yield f"{_REPEATED} real texts, repeated", "repeated", False, real.part(chosen.tolist())


def verdicts(
    rows: list[NaiveSampler], teacher: Mapping[str, Measure], data: Mapping[str, Measure]
) -> dict[str, Verdict]:
    """Say of every metric which impostors it ranks above the teacher's own samples.

    Args:
        rows: the impostors.
        teacher: measures of the teacher's samples, at temperature 1.
        data: measures of real text that the distances do not know.
    """
    found = {}
    for name in measures():
        better = METRICS[name].better
        if name not in teacher or (better is None and name not in data):
            continue
        goal = data[name].value if better is None else None
        bar = distance(better, teacher[name].value, goal)
        worst_case = max(_ends(better, teacher[name], goal))
        able = {row.name: row.measures[name] for row in rows if name in row.measures}
        beaten = {row: distance(better, own.value, goal) for row, own in able.items()}
        fooled = {row: value for row, value in beaten.items() if value < bar}
        close = [
            row
            for row, own in able.items()
            if row not in fooled and min(_ends(better, own, goal)) < worst_case
        ]
        worst = min(fooled, key=lambda row: fooled[row]) if fooled else ""
        found[name] = Verdict(name, tuple(fooled), worst, tuple(close))
    return found


def at_entropy(rows: list[NaiveSampler], teacher: Sequence[Point]) -> dict[str, Verdict]:
    """Say which impostors have a lower perplexity than the teacher at their own entropy.

    Args:
        rows: the impostors.
        teacher: its frontier, in the order of temperatures; none: nothing is said.
    """
    curve = [(point.entropy, point.gen_ppl) for point in teacher]
    places = {
        row.name: (row.measures[ENTROPY.key].value, row.measures[GEN_PPL.key].value)
        for row in rows
        if row.measures.keys() >= {ENTROPY.key, GEN_PPL.key}
    }
    if not (curve and places):
        return {}
    fooled = tuple(under(curve, places))
    return {
        GEN_PPL_AT_ENTROPY.key: Verdict(GEN_PPL_AT_ENTROPY.key, fooled, fooled[0] if fooled else "")
    }


def _ends(better: str | None, own: Measure, goal: float | None) -> tuple[float, float]:
    """Return the least and the largest distance that a measure's interval leaves open."""
    lo, hi = (own.lo, own.hi)
    if lo is None or hi is None:
        lo, hi = own.details.get("least", own.value), own.details.get("largest", own.value)
    ends = distance(better, lo, goal), distance(better, hi, goal)
    across = goal is not None and lo <= goal <= hi
    return (0.0 if across else min(ends)), max(ends)


def distance(better: str | None, value: float, goal: float | None) -> float:
    """Return how far a value is from what the metric calls good: less is better.

    Args:
        better: "higher" or "lower"; None: as near to real text's as can be.
        value: of samples.
        goal: that of real text.
    """
    if better is None:
        assert goal is not None
        return abs(value - goal)
    return value if better == LOWER else -value
