"""All metrics of the suite, each declared once.

A new one takes its declaration here and the code that computes it; its columns follow.
"""

from __future__ import annotations

import math
from dataclasses import replace

from dihal_bench.results.metric import (
    HIGHER,
    LOWER,
    METRICS,
    SEQUENCE_PREFIX,
    Metric,
    PerToken,
    Shown,
    Sums,
    base_name,
)

__all__ = ["HIGHER", "LOWER", "METRICS", "SEQUENCE_PREFIX", "Metric", "Shown", "Sums", "base_name"]

_NATS, _SHARE = (0.0, 1e9), (0.0, 1.0)  # nats of a token; what a share may be
_POSITIVE = (0.0, math.inf)
_LAW = PerToken(likelihood=True, itself=0.0)  # of a row that has one, held against the teacher's

# --- likelihood of the run's own text -------------------------------------------------------------

NLL = METRICS.register(
    Metric(
        *("nll", "NLL", "nats per token, of the ensemble of K chains"),
        unit="nats/token",
        better=LOWER,
        digits=3,
        range=_NATS,
        mean=PerToken(sums=Sums.SIZES, likelihood=True, of_teacher=True),
        since=3,
        likelihood=True,
        wide=True,
        shown=Shown.EVERYWHERE,
    )
)
NLL_MINUS_INTERFACE = METRICS.register(
    Metric(
        *("nll_minus_interface", "ΔNLL", "NLL minus that of a single chain of the headline row"),
        unit="nats/token",
        better=LOWER,
        signed=True,
        wide=True,
        shown=Shown.RUN,
    )
)
NLL_MINUS_TEACHER = METRICS.register(
    Metric(
        *("nll_minus_teacher", "NLL above teacher", "NLL minus the teacher's"),
        unit="nats/token",
        better=LOWER,
        signed=True,
    )
)
PPL = METRICS.register(
    Metric(
        *("ppl", "PPL", "perplexity: exp(NLL)"),
        unit="per token",
        better=LOWER,
        digits=1,
        range=_POSITIVE,
        likelihood=True,
        shown=Shown.RUN | Shown.CARD,
    )
)
WORD_PPL = METRICS.register(
    replace(PPL, key="word_ppl", title="word PPL", unit="per word", shown=Shown.NOWHERE)
)
BITS_PER_BYTE = METRICS.register(
    Metric(
        *("bits_per_byte", "bits/byte", "NLL in bits over bytes of UTF-8"),
        unit="bits/byte",
        better=LOWER,
        digits=3,
        range=_POSITIVE,
        likelihood=True,
        shown=Shown.RUN | Shown.CARD,
    )
)
KL = METRICS.register(
    Metric(
        *("kl", "KL", "KL(teacher ‖ row) over the vocabulary, nats per token"),
        unit="nats/token",
        better=LOWER,
        range=_NATS,
        mean=replace(_LAW, sums=Sums.WHOLE | Sums.SINGLE),
        since=3,
        likelihood=True,
        shown=Shown.EVERYWHERE,
    )
)
KL_REVERSE = METRICS.register(
    Metric(
        *("kl_reverse", "reverse KL", "KL(row ‖ teacher) over the vocabulary, nats per token"),
        unit="nats/token",
        better=LOWER,
        range=_NATS,
        mean=_LAW,
        since=3,
        likelihood=True,
    )
)
KL_MINUS_INTERFACE = METRICS.register(
    replace(
        NLL_MINUS_INTERFACE,
        key="kl_minus_interface",
        title="ΔKL",
        help="KL of a single chain minus that of the headline row",
        shown=Shown.NOWHERE,
    )
)
TOP1 = METRICS.register(
    Metric(
        *("top1", "top-1", "how often its likeliest token is the teacher's"),
        unit="share",
        better=HIGHER,
        digits=3,
        range=_SHARE,
        mean=PerToken(sums=Sums.WHOLE | Sums.SINGLE, itself=1.0, ties=True),
        since=3,
        brief=False,
        shown=Shown.EVERYWHERE,
    )
)
BRIER1 = METRICS.register(
    Metric(
        *("brier1", "Brier-1", "2 p(x) - Σ p² of the true token x, unbiased, at most 1"),
        unit="score",
        better=HIGHER,
        range=(-1.0, 1.0),
        mean=PerToken(of_teacher=True, unbiased=True),
        since=3,
        ranked=True,
        shown=Shown.EVERYWHERE,
    )
)
DIFFUSION_GAIN = METRICS.register(
    Metric(
        "diffusion_gain",
        "diffusion gain",
        "NLL of the best control at no more evaluations minus the row's: what the noise bought",
        unit="nats/token",
        better=HIGHER,
        likelihood=True,
        signed=True,
        wide=True,
        shown=Shown.EVERYWHERE,
        column="gain",
    )
)
BLOCK_BOUND = METRICS.register(
    Metric(
        *("block_bound", "block bound", "variational bound of a block, nats per token"),
        unit="nats/token",
        better=LOWER,
        digits=3,
        range=_POSITIVE,
        likelihood=True,
        bound=True,
        wide=True,
        shown=Shown.EVERYWHERE,
        column="bound",
    )
)

# --- generated text -------------------------------------------------------------------------------

GEN_PPL = METRICS.register(
    Metric(
        "gen_ppl",
        "gen-PPL",
        "perplexity of generated text under a judge that is not the backbone",
        unit="per token",
        better=LOWER,
        digits=1,
        range=_POSITIVE,
        shown=Shown.CARD,
    )
)
GEN_PPL_BEGUN = METRICS.register(
    replace(
        GEN_PPL,
        key="gen_ppl_begun",
        title="gen-PPL after BOS",
        help="the same with the first token scored, given the one that begins documents",
        shown=Shown.NOWHERE,
    )
)
GEN_PPL_AT_ENTROPY = METRICS.register(
    replace(
        GEN_PPL_BEGUN,
        key="gen_ppl_at_entropy",
        title="gen-PPL at entropy",
        help="the same at the entropy of real text, interpolated over temperatures",
    )
)
ENTROPY = METRICS.register(
    Metric(
        *("entropy", "entropy", "of a sample's tokens; near that of real text is better"),
        unit="nats/sample",
        digits=3,
        range=_POSITIVE,
        shown=Shown.CARD,
    )
)
DISTINCT = {
    n: METRICS.register(
        Metric(
            f"distinct_{n}",
            f"distinct-{n}",
            f"different {n}-grams over all of all samples; real text's is best",
            unit="share",
            digits=3,
            range=_SHARE,
        )
    )
    for n in (1, 2)
}
REPEATED = {
    n: METRICS.register(
        Metric(
            f"rep_{n}",
            f"rep-{n}",
            f"share of a sample's {n}-grams that repeat; real text's is best",
            unit="share",
            digits=3,
            range=_SHARE,
        )
    )
    for n in (2, 4)
}
SELF_BLEU = METRICS.register(
    Metric(
        "self_bleu",
        "self-BLEU",
        "BLEU of a sample against the others; near that of real text is better",
        unit="share",
        digits=3,
        range=_SHARE,
    )
)
DUPLICATES = METRICS.register(
    Metric(
        *("duplicates", "duplicates", "share of samples that occur twice"),
        unit="share",
        digits=3,
        range=_SHARE,
    )
)
OVERLAP = {
    n: METRICS.register(
        Metric(
            f"overlap_{n}",
            f"{n}-grams seen",
            f"share of {n}-grams that the training text has",
            unit="share",
            digits=3,
            range=_SHARE,
        )
    )
    for n in (4, 8)
}
MAUVE = METRICS.register(
    Metric(
        *("mauve", "MAUVE", "divergence frontier of features, several seeds of k-means"),
        unit="score",
        better=HIGHER,
        range=_SHARE,
    )
)
ENERGY = METRICS.register(
    Metric(
        "energy",
        "energy",
        "energy distance to real text of features that no language model has a part in",
        unit="standard deviations",
        better=LOWER,
        digits=3,
    )
)
TYPICALITY = METRICS.register(
    Metric(
        "typicality",
        "typicality",
        "share of real text that is less typical; near one half is better",
        unit="share",
        digits=3,
        range=_SHARE,
    )
)

# --- rollouts -------------------------------------------------------------------------------------

BRIER = {1: BRIER1} | {
    n: METRICS.register(
        Metric(
            f"brier{n}",
            f"Brier-{n}",
            f"the same of {n} tokens at once",
            unit=BRIER1.unit,
            better=HIGHER,
            range=BRIER1.range,
        )
    )
    for n in (2, 3, 4)
}
BRIER_MINUS_TEACHER = {
    n: METRICS.register(
        Metric(
            f"brier{n}_minus_teacher",
            f"{own.title} above teacher",
            f"{own.title} minus the teacher's",
            unit=own.unit,
            better=HIGHER,
            signed=True,
        )
    )
    for n, own in BRIER.items()
}
BRIERLM = METRICS.register(
    Metric(
        *("brierlm", "BrierLM", "100 times the geometric mean of Brier-1 to Brier-4"),
        unit="score x 100",
        better=HIGHER,
        range=(0.0, 100.0),
    )
)

# --- tasks of lm-eval -----------------------------------------------------------------------------

for _key, _title, _help in (
    ("acc", "accuracy", "share of questions whose likeliest choice is right"),
    ("acc_norm", "normalised accuracy", "the same with log-likelihoods over bytes of the choice"),
    ("exact_match", "exact match", "how often the answer is the reference to the letter"),
    ("f1", "F1", "harmonic mean of precision and recall"),
):
    METRICS.register(Metric(_key, _title, _help, unit="lm-eval", better=HIGHER))


def main_metrics() -> list[Metric]:
    """Return the metrics that readers compare rows by: what ranks comes first."""
    found = [m for m in METRICS.shown_in(Shown.LEADERBOARD) if m.brief and not m.bound]
    return sorted(found, key=lambda metric: not metric.ranked)
