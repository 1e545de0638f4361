"""What may tell beforehand at which layer a bridge comes out best: the score, and its rivals.

Every predictor is turned so that higher promises better. The score and its proxies come with their
values in every subsample of activations; a rival that has none stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.config.identity import settled
from dihal_bench.core import kept
from dihal_bench.core.files import short_hash
from dihal_bench.core.progress import progress
from dihal_bench.data.tokens import evaluation_windows
from dihal_bench.geometry.activations import kept_tokens, sample_activations
from dihal_bench.geometry.locate import VIEWS, draw_subsets, proxies_of_layers, sample_of
from dihal_bench.geometry.score import PROXIES, layer_scores, resolve_layer
from dihal_bench.interfaces.batch import Batch
from dihal_bench.studies.ranking.agreement import Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dihal_bench.runs.context import RunContext
    from dihal_bench.studies.ranking.agreement import Array

SCORE, DEPTH = "score", "depth"
POLICIES = ("early", "middle", "late")
_SIGNS = {"curvature": 1, "stiffness": 1, "effective_rank": -1}
_BATCH = 8  # windows per pass

Draws = dict[str, dict[str, list[list[float]]]]  # view -> proxy -> [R][L]


def layer_predictions(
    job: RunContext, layers: Sequence[int], ends: Mapping[int, int]
) -> dict[str, Prediction]:
    """Return every predictor of what comes out at ``layers``.

    Args:
        job: of the sweep: backbone, text, and the folder that facts are kept in.
        layers: candidates, ascending; the score is standardised over them alone.
        ends: layer -> the layer that its bridge is conditioned on.
    """
    facts = _facts(job, ends)
    columns = [facts["layers"].index(layer) for layer in layers]
    found: dict[str, Prediction] = {}
    for view in VIEWS:
        draws = {
            name: np.array(facts["draws"][view][name])[:, columns] for name in PROXIES
        }  # [R, L]
        found |= _of_view(draws, "" if view == "paper" else f", {view}")
    found[DEPTH] = Prediction.of([-layer for layer in layers])
    found["log norm"] = Prediction.of([-facts["log_norm"][c] for c in columns])
    blocks = job.inputs.backbone.blocks
    for policy in POLICIES:
        layer = resolve_layer(policy, blocks, None)
        if layer in layers:
            found[policy] = Prediction.choice(list(layers).index(layer), len(layers))
    for name in ("ridge", "token-mean"):
        found[f"{name} FVU"] = Prediction.of([-facts["fvu"][name][str(n)] for n in layers])
    return found


def subsamples(job: RunContext) -> dict[str, int]:
    """Return how many tokens a subsample of activations has, of how many, and how many there are.

    Args:
        job: of the sweep.
    """
    config = job.config.locate
    pool = kept_tokens(job.inputs.training_text, config.windows, config.per_window)
    sample = sample_of(config, pool)
    return {"tokens": sample["tokens"], "kept": pool, "resamples": sample["resamples"]}


def _of_view(draws: Mapping[str, Array], suffix: str) -> dict[str, Prediction]:
    """Return the score of a view and each of its proxies alone."""
    medians = {name: np.median(values, axis=0) for name, values in draws.items()}
    rescored = [layer_scores(*rows) for rows in zip(*(draws[n] for n in PROXIES), strict=True)]
    found = {
        f"{SCORE}{suffix}": Prediction.of(
            layer_scores(*(medians[n] for n in PROXIES)), np.stack(rescored)
        )
    }
    for name, sign in _SIGNS.items():
        label = f"{'-' if sign < 0 else ''}{name.replace('_', ' ')}{suffix}"
        found[label] = Prediction.of(sign * medians[name], sign * draws[name])
    return found


def _facts(job: RunContext, ends: Mapping[int, int]) -> dict[str, Any]:
    """Return what is measured once for all sweeps of a folder, from a file where it was before."""
    config = job.config
    depends = [
        *job.rests_on,
        job.inputs.validation_text.fingerprint,
        settled("locate", config.locate),
    ]
    depends += [config.residual, config.seed, config.budget.diffusion_tokens]
    depends += [config.score.tokens, sorted(ends.items())]
    path = job.shared / f"predictors-{short_hash(depends)}.json"
    if not kept.usable(path):
        kept.write_json(path, {**_geometry(job), "fvu": _closed_form(job, ends)})
    return kept.read_json(path)


def _geometry(job: RunContext) -> dict[str, Any]:
    """Measure the proxies of all layers in every subsample, in both views."""
    config, backbone = job.config.locate, job.inputs.backbone
    layers = list(range(1, backbone.blocks))
    samples = sample_activations(
        backbone,
        job.inputs.training_text,
        layers,
        windows=config.windows,
        per_window=config.per_window,
        residual=job.config.residual,
        seed=job.config.seed,
        autocast=job.locates_under_autocast,
    )
    pool = len(samples[layers[0]].states)
    subsets = draw_subsets(pool, min(config.sample, pool), config.resamples, job.config.seed + 1)
    draws: Draws = {}
    with progress("proxies", len(VIEWS) * len(layers) * len(subsets), unit="matrices") as bar:
        for view, of in VIEWS.items():
            states = {layer: of(sample) for layer, sample in samples.items()}
            proxies = proxies_of_layers(states, subsets, config, bar.update)
            draws[view] = {
                name: [[getattr(proxies[n][r], name) for n in layers] for r in range(len(subsets))]
                for name in PROXIES
            }
    norms = [float(samples[layer].states.norm(dim=-1).mean().log()) for layer in layers]
    return {"layers": layers, "draws": draws, "log_norm": norms}


@torch.no_grad()
def _closed_form(job: RunContext, ends: Mapping[int, int]) -> dict[str, dict[str, float]]:
    """Measure how much of each layer a linear map, and the token alone, leave unexplained.

    The fraction of variance is that of ``fvu_mmse``: standardised per dimension, starts left out.
    """
    text, backbone = job.inputs.validation_text, job.inputs.backbone
    spans = [(a, b) for b, a in ends.items()]
    job.collect(spans)
    windows = evaluation_windows(text, job.config.score.tokens)
    layers = {layer for span in spans for layer in span}
    own = {span: job.statistics(*span) for span in spans}
    sums = {name: {span: _Fvu() for span in spans} for name in ("ridge", "token-mean")}
    with progress("closed forms", len(windows), unit="windows") as bar:
        for lo in range(0, len(windows), _BATCH):
            batch = Batch.of(text.batch(windows[lo : lo + _BATCH]), backbone, layers=layers)
            inside = batch.positions > 0
            tokens = batch.tokens[inside]
            for (a, b), known in own.items():
                truth = batch.hidden(b)[inside].to(known.std.dtype)
                state = batch.hidden(a)[inside].to(known.std.dtype)
                guesses = {
                    "ridge": state @ known.ridge_weight.mT + known.ridge_bias,
                    "token-mean": known.token_mean[tokens],
                }
                for name, guess in guesses.items():
                    sums[name][a, b].add(truth / known.std, guess / known.std)
            bar.update(len(batch.tokens))
    return {
        name: {str(b): one.value for (_, b), one in some.items()} for name, some in sums.items()
    }


class _Fvu:
    """Squared error over variance, each averaged over dimensions, of rows that come in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._error = self._sum = self._square = torch.zeros(())

    def add(self, truth: torch.Tensor, guess: torch.Tensor) -> None:
        """Add rows [n, D]."""
        truth, guess = truth.double(), guess.double()
        self._count += len(truth)
        self._error = self._error + (guess - truth).square().sum(0)
        self._sum = self._sum + truth.sum(0)
        self._square = self._square + truth.square().sum(0)

    @property
    def value(self) -> float:
        variance = self._square / self._count - (self._sum / self._count).square()
        return float((self._error / self._count).mean() / variance.mean())
