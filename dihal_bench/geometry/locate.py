"""Locate: score every candidate layer of a backbone by geometry, with resampling intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.geometry.activations import (
    LayerSample,
    chosen_windows,
    filled_cache,
    sample_activations,
)
from dihal_bench.geometry.crossfit import cross_stiffness
from dihal_bench.geometry.pool import resampled_proxies
from dihal_bench.geometry.score import ResampledScore, resolve_layer, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.data.tokens import Text
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.geometry.proxies import LayerProxies
    from dihal_bench.models.model import Backbone

VIEWS: Mapping[str, Callable[[LayerSample], Tensor]] = {
    "paper": lambda sample: sample.states,
    "matched": lambda sample: sample.transformed,
}


@dataclass(frozen=True, kw_only=True)
class LocateConfig:
    """Settings of the geometry score (DiHAL, section 3.2 and 4.1).

    Attributes:
        neighbours: k of the local covariance.
        ridge: rho of the regularised precision, in units of the mean variance.
        pairs: sampled pairs of the stiffness.
        windows: at most so many windows are run through the backbone.
        per_window: tokens kept of each.
        sample: tokens n per resample.
        resamples: subsamples of ``sample`` tokens.
        stability_sample: tokens of the small subsamples.
        stability_resamples: how many small ones.
    """

    neighbours: int = 20
    ridge: float = 1e-3
    pairs: int = 5000
    windows: int = 640
    per_window: int = 8
    sample: int = 3000
    resamples: int = 10
    stability_sample: int = 500
    stability_resamples: int = 10


class Sample(TypedDict):
    """What resamples are of.

    Attributes:
        tokens: of a large one.
        kept: tokens that all are drawn from.
        resamples: how many large ones.
        stability_tokens: of a small one.
        stability_resamples: how many small ones.
    """

    tokens: int
    kept: int
    resamples: int
    stability_tokens: int
    stability_resamples: int


@dataclass(frozen=True)
class Located:
    """What locating found.

    Attributes:
        blocks: N of the backbone.
        cells: per view ("paper": raw states; "matched": as the interface's target has them) the
            summary of all candidates, as plain values.
        stability: per view, the share of small resamples that select the same layer.
        log_norm: per candidate, the log of the mean norm of a state (its negative is a rival).
        sample: how many tokens a resample had, of how many kept.
        cross: per cross-fitted candidate the plain values of `CrossStiffness`, of the raw states.
    """

    blocks: int
    cells: dict[str, dict[str, Any]]
    stability: dict[str, float]
    log_norm: list[float]
    sample: Sample
    cross: list[dict[str, Any]] = field(default_factory=list)

    @property
    def layers(self) -> list[int]:
        """The candidates, 1..N-1."""
        return [row["layer"] for row in self.cells["paper"]["layers"]]

    def select(self, policy: str, *, above: int = 0) -> int:
        """Return the layer that a policy means; "auto" is the best of the paper's cell.

        Args:
            policy: as ``resolve_layer`` takes it.
            above: "auto" chooses among the layers above this one, where a span can end.

        Raises:
            UserError: the policy or number is none of this backbone's.
        """
        rows = self.cells["paper"]["layers"]
        scores = {row["layer"]: row["score"]["value"] for row in rows if row["layer"] > above}
        return resolve_layer(policy, self.blocks, scores)

    def remarks(self) -> list[str]:
        """Return what a reader of the table has to know, one sentence each."""
        paper, matched = self.cells["paper"], self.cells["matched"]
        share = self.stability["paper"]
        remarks = [
            f"the score is highest at layer {paper['selected']} ({share:.0%} of "
            f"{self.sample['stability_resamples']} small resamples agree); "
            f"Spearman of score and -depth: {_number(paper['depth_correlation'])}"
        ]
        if matched["selected"] != paper["selected"]:
            remarks.append(
                "the matched cell (the space that is really diffused) selects layer "
                f"{matched['selected']}"
            )
        if paper["flips"]:
            remarks.append("the selection flips when a candidate that is not selected is left out")
        if any(row["in_sample"] for row in paper["layers"]):
            remarks.append("n < 2 d: the stiffness is in-sample and says little more than the norm")
        remarks += whole(self.sample)
        remarks += self._cross_remarks()
        duplicates = sum(row["duplicates"] for row in paper["layers"])
        if duplicates:
            remarks.append(f"{duplicates:g} exact duplicates were removed over all layers (median)")
        return remarks

    def _cross_remarks(self) -> list[str]:
        if not self.cross:
            return []
        remarks, row = [], self.cross[0]
        if any(row["stiffness_cross"] is None for row in self.cross):
            remarks.append("the cross-fitted stiffness needs distinct tokens of two documents")
        elif not row["enough"]:
            remarks.append(
                f"the cross-fitted stiffness has a covariance of {row['n_sigma']:,} tokens, fewer "
                "than 10 per dimension; read more windows"
            )
        if len(self.cross) < len(self.layers):
            remarks.append(
                f"the stiffness is cross-fitted in {len(self.cross)} of {len(self.layers)} layers: "
                "the covariances of all exceed 4 GiB"
            )
        return remarks

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Located:
        """Restore what ``to_dict`` gave."""
        return cls(**data)


def whole(sample: Sample) -> list[str]:
    """Return a sentence for each kind of resample that leaves nothing out."""
    sizes = {
        "large": (sample["tokens"], "intervals say"),
        "small": (sample["stability_tokens"], "agreement says"),
    }
    return [
        f"every {kind} resample is all of the {sample['kept']:,} tokens that were kept, so its "
        f"{says} nothing; read more windows, or give fewer tokens to a resample"
        for kind, (tokens, says) in sizes.items()
        if tokens >= sample["kept"]
    ]


def locate(
    backbone: Backbone,
    data: Text,
    config: LocateConfig,
    *,
    residual: str,
    seed: int,
    cache: CacheConfig | None = None,
    autocast: bool = False,
) -> Located:
    """Score the candidate layers 1..N-1 from one pass over the text.

    Args:
        backbone: the model; it needs at least two blocks.
        data: text.
        config: settings.
        residual: what the interface's target subtracts; decides the matched cell.
        seed: of all sampling.
        cache: where the activations are kept, to be read instead of computed another time.
        autocast: whether a float32 backbone computes in bfloat16 where that is safe.

    Raises:
        UserError: too few blocks, too little text for the neighbourhoods, or a cache of other
            activations.
    """
    if backbone.blocks < 2:
        raise UserError(
            f"{backbone.name} has {backbone.blocks} block; there is no layer to choose from."
        )
    layers = list(range(1, backbone.blocks))
    samples = sample_activations(
        backbone,
        data,
        layers,
        windows=config.windows,
        per_window=config.per_window,
        residual=residual,
        seed=seed,
        cross_fit=True,
        cache=cache,
        autocast=autocast,
    )
    pool = len(samples[layers[0]].states)
    sample = sample_of(config, pool)
    full = draw_subsets(pool, sample["tokens"], config.resamples, seed + 1)
    little = draw_subsets(pool, sample["stability_tokens"], config.stability_resamples, seed + 2)
    views = {
        name: {layer: view(sample) for layer, sample in samples.items()}
        for name, view in VIEWS.items()
    }
    work = len(views) * len(layers) * (config.resamples + config.stability_resamples)
    with progress("proxies", work, unit="matrices") as bar:
        cells = {
            name: summarise(proxies_of_layers(view, full, config, bar.update))
            for name, view in views.items()
        }
        small_cells = {
            name: summarise(proxies_of_layers(view, little, config, bar.update))
            for name, view in views.items()
        }
    return Located(
        blocks=backbone.blocks,
        cells={name: cell.to_dict() for name, cell in cells.items()},
        stability={name: _share(small_cells[name], cell.selected) for name, cell in cells.items()},
        log_norm=[float(samples[layer].states.norm(dim=-1).mean().log()) for layer in layers],
        sample=sample,
        cross=_cross(samples, config, seed + 3),
    )


def _cross(
    samples: Mapping[int, LayerSample], config: LocateConfig, seed: int
) -> list[dict[str, Any]]:
    """The cross-fitted stiffness of the raw states, for the layers that have a covariance."""
    with progress("cross-fitted stiffness", len(samples), unit="layers") as bar:
        found = []
        for layer, sample in samples.items():
            if sample.scatter is not None and sample.crossed is not None:
                states = sample.states[sample.crossed]
                cross = cross_stiffness(
                    layer,
                    sample.scatter,
                    states,
                    ridge=config.ridge,
                    pairs=config.pairs,
                    seed=seed,
                )
                found.append(cross.to_dict())
            bar.update()
    return found


def fill_cache(
    backbone: Backbone,
    data: Text,
    config: LocateConfig,
    cache: CacheConfig,
    *,
    seed: int,
    autocast: bool = False,
) -> None:
    """Verify and complete the cache that `locate` with the same arguments reads.

    Raises:
        UserError: it holds something else, or cannot be written.
    """
    chosen = chosen_windows(data, config.windows, np.random.default_rng(seed))
    layers = list(range(1, backbone.blocks))
    filled_cache(backbone, data, chosen, layers, cache, autocast=autocast)


def sample_of(config: LocateConfig, kept: int) -> Sample:
    """Return what resamples are of where so many tokens were kept."""
    return {
        "tokens": min(config.sample, kept),
        "kept": kept,
        "resamples": config.resamples,
        "stability_tokens": min(config.stability_sample, kept),
        "stability_resamples": config.stability_resamples,
    }


def draw_subsets(pool: int, size: int, count: int, seed: int) -> list[NDArray[np.int64]]:
    """Return ``count`` random subsets of ``size`` rows out of ``pool``."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(pool)[:size] for _ in range(count)]


def proxies_of_layers(
    states: Mapping[int, Tensor],
    subsets: list[NDArray[np.int64]],
    config: LocateConfig,
    done: Callable[[float], object],
) -> dict[int, list[LayerProxies]]:
    """Return the proxies of every layer in every subset; layers are dealt to all processes.

    Args:
        states: layer -> [rows, D].
        subsets: rows of each resample; the same pairs in all layers.
        config: settings.
        done: is called with the number of matrices that are done.
    """
    own = []
    for layer, counts in distributed.turns(list(states)):
        proxies = []
        for one in resampled_proxies(
            states[layer],
            subsets,
            neighbours=config.neighbours,
            ridge=config.ridge,
            pairs=config.pairs,
        ):
            proxies.append(one)
            done(distributed.size())
        if counts:
            own.append((layer, proxies))
    return dict(distributed.gather(own))


def _share(cell: ResampledScore, selected: int) -> float:
    return next(row.selected_share for row in cell.layers if row.layer == selected)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2f}"
