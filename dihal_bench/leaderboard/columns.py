"""The columns of the leaderboard's tables: what they are, and which way is better."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

HIGHER, LOWER = "higher", "lower"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        key: of its cells.
        title: as it is shown.
        help: what it is, in a sentence.
        better: "higher", "lower", or None where neither is.
        type: "estimate" (with an interval), "number", "integer", "tokens", "flops" or "text".
        digits: after the point.
        likelihood: whether kinds must not be ranked against each other by it.
        brief: whether it stands where there is little room; CSV files have all columns.
    """

    key: str
    title: str
    help: str
    better: str | None = None
    type: str = "text"
    digits: int = 0
    likelihood: bool = False
    brief: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def _estimate(
    key: str, title: str, text: str, better: str | None, digits: int, *, brief: bool = True
) -> Column:
    likely = key in ("nll", "kl", "gain", "bound")
    return Column(
        key=key,
        title=title,
        help=text,
        better=better,
        type="estimate",
        digits=digits,
        likelihood=likely,
        brief=brief,
    )


def _count(
    key: str, title: str, text: str, type_: str = "integer", *, brief: bool = True
) -> Column:
    return Column(key=key, title=title, help=text, type=type_, brief=brief)


LIKELIHOOD: tuple[Column, ...] = (
    Column(
        key="row",
        title="row",
        help="the teacher; an interface and the blocks (a, b] that it replaces, those above layer "
        "a up to layer b; or a control beside one",
    ),
    _count("rank", "rank", "by Brier-1, and among what: equal S, as many replaced blocks"),
    _estimate(
        "brier1", "Brier-1", "2 p(x) - Σ p² of the true token x, unbiased, at most 1", HIGHER, 4
    ),
    _estimate("nll", "NLL", "nats per token, of the ensemble of K chains", LOWER, 3),
    _estimate("kl", "KL", "KL(teacher ‖ row) over the vocabulary, nats per token", LOWER, 4),
    _estimate(
        "gain",
        "diffusion gain",
        "NLL of the best control at no more evaluations minus the row's: what the noise bought",
        HIGHER,
        4,
    ),
    Column(key="gain_over", title="over", help="the control that the gain is over"),
    _count("replaced", "replaced", "blocks of the backbone that it stands in for"),
    _count("retained", "retained", "blocks of the backbone that are executed"),
    Column(
        key="flop_ratio",
        title="FLOP ratio",
        help="FLOPs of a chain over those of the replaced blocks",
        better=LOWER,
        type="number",
        digits=2,
    ),
    _count("steps", "S", "network evaluations per chain"),
    _count("chains", "K", "chains of the ensemble"),
    _count("nfe", "NFE", "network evaluations in all, a decoder's included"),
    Column(key="kind", title="kind", help="exact, or ensemble(K): kinds are not compared by NLL"),
    _estimate("bound", "block bound", "variational bound of a block, nats per token", LOWER, 3),
    _count("seeds", "seeds", "trainings behind the row"),
    _count("n", "n", "scored tokens", "tokens"),
    _count("diffusion_tokens", "diffusion tokens", "seen while the trunk was trained", "tokens"),
    Column(key="dtype", title="dtype", help="of the backbone's arithmetic"),
    Column(key="versions", title="code", help="version and commit that made the row"),
    _estimate(
        "top1", "top-1", "how often its likeliest token is the teacher's", HIGHER, 3, brief=False
    ),
    _count(
        *("recovery_tokens", "recovery tokens", "seen while the recovery was trained", "tokens"),
        brief=False,
    ),
    _count("trunk", "trunk", "parameters of the denoiser", "tokens", brief=False),
    _count("recovery", "recovery", "parameters trained besides", "tokens", brief=False),
    _count("flops", "training FLOPs", "of all phases, mean over seeds", "flops", brief=False),
    _count("seconds", "seconds", "of training, mean over seeds", brief=False),
    Column(
        key="oracle",
        title="oracle",
        help="how often the recovery, given the true signal, names the teacher's token, or the "
        "text's: its ceiling",
        better=HIGHER,
        type="number",
        digits=4,
        brief=False,
    ),
    Column(
        key="sigma_half",
        title="σ½",
        help="standard deviation of noise on the true signal, in units of the signal's, at which "
        "the oracle is down to half",
        type="number",
        digits=2,
        brief=False,
    ),
)

_DIRECTIONS = {
    **dict.fromkeys(("gen_ppl", "gen_ppl_begun", "gen_ppl_at_entropy", "energy"), LOWER),
    **dict.fromkeys(("nll", "ppl", "word_ppl", "bits_per_byte", "kl", "kl_reverse"), LOWER),
    **dict.fromkeys(("mauve", "brier1", "brier2", "brier3", "brier4", "brierlm"), HIGHER),
    **dict.fromkeys(("acc", "acc_norm", "exact_match", "f1", "top1", "diffusion_gain"), HIGHER),
}
_PERPLEXITIES = ("gen_ppl", "gen_ppl_begun", "gen_ppl_at_entropy", "ppl", "word_ppl")
_HELP = {
    "gen_ppl": "perplexity of generated text under a judge that is not the backbone",
    "gen_ppl_begun": "the same with the first token scored, given the one that begins documents",
    "gen_ppl_at_entropy": "the same at the entropy of real text, interpolated over temperatures",
    "entropy": "of a sample's tokens; near that of real text is better",
    **{
        f"distinct_{n}": f"different {n}-grams over all of all samples; real text's is best"
        for n in (1, 2)
    },
    **{
        f"rep_{n}": f"share of a sample's {n}-grams that repeat; real text's is best"
        for n in (2, 4)
    },
    **{f"overlap_{n}": f"share of {n}-grams that the training text has" for n in (4, 8)},
    "mauve": "divergence frontier of features, several seeds of k-means",
    "energy": "energy distance to real text of features that no language model has a part in",
    "self_bleu": "BLEU of a sample against the others; near that of real text is better",
    "duplicates": "share of samples that occur twice",
    "typicality": "share of real text that is less typical; near one half is better",
}


def of_task(metric: str, unit: str) -> Column:
    """Return the column of a task's metric."""
    plain = metric.removeprefix("first_token_").partition(",")[0]
    return Column(
        key=f"metric:{metric}",
        title=metric,
        help=_HELP.get(plain, f"{metric}, {unit}"),
        better=_DIRECTIONS.get(plain),
        type="estimate",
        digits=1 if plain in _PERPLEXITIES else 4 if _DIRECTIONS.get(plain) == HIGHER else 3,
        likelihood=plain in ("nll", "ppl", "word_ppl", "bits_per_byte", "kl"),
    )


TASK_ROW: tuple[Column, ...] = tuple(
    column for column in LIKELIHOOD if column.key in ("row", "steps", "chains")
)
TASK_COSTS: tuple[Column, ...] = tuple(
    column
    for column in LIKELIHOOD
    if column.key in ("kind", "nfe", "replaced", "seeds", "n", "dtype", "versions")
)
