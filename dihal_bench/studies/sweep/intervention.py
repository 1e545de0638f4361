"""Geometry as an intervention: the same states in other coordinates, layer by layer.

Over layers, information, compute and depth move together with the geometry. Within a layer, under
an invertible change of coordinates that is undone before the upper blocks, only the geometry (and
the squared error that follows it) moves: what the score then says of the loss is its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from dihal_bench.config.identity import settled
from dihal_bench.core import kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import short_hash
from dihal_bench.core.progress import progress
from dihal_bench.geometry.activations import sample_activations
from dihal_bench.geometry.locate import draw_subsets, proxies_of_layers
from dihal_bench.geometry.score import PROXIES, layer_scores
from dihal_bench.interfaces.transform import Transform
from dihal_bench.results.table import UNDEFINED, Table, differences, numbers, words
from dihal_bench.studies.ranking.agreement import Interval, kendall
from dihal_bench.studies.sweep.outcomes import SHORT
from dihal_bench.studies.sweep.plan import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.runs.context import RunContext
    from dihal_bench.studies.ranking.agreement import Array
    from dihal_bench.studies.sweep.outcomes import Outcomes

VIEWS = {"diffused": "A (h - mean) / r, what is generated", "raw": "A h, scale included"}
_TIE = 5  # digits of a score: what differs by less is the same geometry, computed twice


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Scores of every transform of every layer, standardised over the transforms of a layer.

    Attributes:
        layers: ascending.
        transforms: the identity first.
        scores: view -> of the medians over subsamples, [layers, transforms].
        draws: view -> of every subsample, [R, layers, transforms].
    """

    layers: list[int]
    transforms: list[str]
    scores: dict[str, Array]
    draws: dict[str, Array]


def geometry(job: RunContext, layers: Sequence[int], transforms: Sequence[str]) -> Geometry:
    """Measure the proxies of every transform of every layer.

    Args:
        job: of the sweep: backbone, text, and the folder that facts are kept in.
        layers: ascending.
        transforms: as ``Transform`` reads them.
    """
    config = job.config
    depends = [*job.rests_on, settled("locate", config.locate), config.seed, list(layers)]
    depends += [config.budget.diffusion_tokens, list(transforms), config.from_layer]
    path = job.shared / f"transforms-{short_hash(depends)}.json"
    if not kept.usable(path):
        kept.write_json(path, _measured(job, layers, transforms))
    facts = kept.read_json(path)
    scores, draws = {}, {}
    for view in VIEWS:
        tables = {name: np.array(facts[view][name]) for name in PROXIES}  # [R, layers, transforms]
        medians = {name: np.median(values, axis=0) for name, values in tables.items()}
        scores[view] = _scored(medians)
        draws[view] = np.stack(
            [_scored({n: values[r] for n, values in tables.items()}) for r in range(facts["R"])]
        )
    return Geometry(layers=list(layers), transforms=list(transforms), scores=scores, draws=draws)


def _scored(proxies: dict[str, Array]) -> Array:
    """Return S of every layer's transforms, [layers, transforms]."""
    rows = zip(*(proxies[name] for name in PROXIES), strict=True)
    scores: Array = np.stack([layer_scores(*row) for row in rows])
    return scores.round(_TIE)


def _measured(job: RunContext, layers: Sequence[int], transforms: Sequence[str]) -> dict[str, Any]:
    config, seed = job.config.locate, job.config.seed
    a = job.config.from_layer
    samples = sample_activations(
        job.inputs.backbone,
        job.inputs.training_text,
        list(layers),
        windows=config.windows,
        per_window=config.per_window,
        residual="none",
        seed=seed,
        autocast=job.locates_under_autocast,
    )
    job.collect([(a, layer) for layer in layers])
    pool = len(samples[layers[0]].states)
    subsets = draw_subsets(pool, min(config.sample, pool), config.resamples, seed + 1)
    shape = (len(subsets), len(layers), len(transforms))
    tables = {view: {name: np.empty(shape) for name in PROXIES} for view in VIEWS}
    with progress("geometry", int(np.prod(shape)), unit="matrices") as bar:
        for row, layer in enumerate(layers):
            covariance = job.statistics(a, layer).covariance.cpu().double()
            states = samples[layer].states.double()
            for column, text in enumerate(transforms):
                there, _ = Transform.parse(text).maps(covariance, seed)
                raw = Transform.parse(text).matrix(covariance, seed)
                unit = float((there.norm() / raw.norm()) ** 2)  # 1 / r^2
                found = proxies_of_layers({layer: states @ there.mT}, subsets, config, bar.update)[
                    layer
                ]
                for r, own in enumerate(found):
                    for name in PROXIES:
                        value = getattr(own, name)
                        scaled = value if name == "effective_rank" else value * unit
                        tables["diffused"][name][r, row, column] = value
                        tables["raw"][name][r, row, column] = scaled
    plain = {v: {n: table.tolist() for n, table in some.items()} for v, some in tables.items()}
    return {**plain, "R": len(subsets)}


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What the transforms did.

    Attributes:
        geometry: scores.
        losses: name -> [seeds, layers, transforms].
        tau: view -> loss -> Kendall's tau-b of score and minus the loss within a layer, the mean
            over layers.
    """

    geometry: Geometry
    losses: dict[str, Array]
    tau: dict[str, dict[str, Interval]]

    @classmethod
    def of(cls, geometry: Geometry, outcomes: Outcomes, *, resamples: int) -> Intervention:
        """Compare scores with what came out.

        Raises:
            UserError: fewer than two transforms besides the identity.
        """
        if len(geometry.transforms) < 3:
            raise UserError(
                "--transform names fewer than two changes of coordinates besides the identity; "
                "give more, such as rotate,scale,spectrum:0.5,1."
            )
        shape = (-1, len(geometry.layers), len(geometry.transforms))
        losses = {name: own.reshape(shape) for name, own in outcomes.losses.items()}
        tau = {
            view: {name: _pooled(geometry, view, own, resamples) for name, own in losses.items()}
            for view in VIEWS
        }
        return cls(geometry=geometry, losses=losses, tau=tau)

    def difference(self, transform: str, name: str) -> Interval:
        """Return a loss minus that of the identity, mean over layers; interval over seeds (t)."""
        column = self.geometry.transforms.index(transform)
        values = self.losses[name]
        own = (values[:, :, column] - values[:, :, 0]).mean(1)  # per seed
        mean = float(own.mean())
        if len(own) < 2:
            return Interval(value=mean, lo=None, hi=None)
        reach = float(stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own)))
        return Interval(value=mean, lo=mean - reach, hi=mean + reach)

    def moved(self, transform: str, view: str) -> float:
        """Return the largest change of the score against the identity, over layers."""
        column = self.geometry.transforms.index(transform)
        scores = self.geometry.scores[view]
        return float(np.abs(scores[:, column] - scores[:, 0]).max())

    def moves(self) -> Table:
        """Return a row per change of coordinates: by how much scores and losses move."""
        return Table.of(
            [name for name in self.geometry.transforms if name != IDENTITY],
            (words("transform"), lambda name: name),
            *(
                (
                    numbers(f"{view} score moved", digits=2),
                    lambda name, view=view: self.moved(name, view),
                )
                for view in VIEWS
            ),
            *(
                (
                    differences(f"Δ{SHORT[loss]}", digits=4),
                    lambda name, loss=loss: self.difference(name, loss).cell or UNDEFINED,
                )
                for loss in self.losses
            ),
        )

    def agreement(self) -> Table:
        """Return a row per view of the score: how it ranks the transforms of a layer."""
        return Table.of(
            VIEWS.items(),
            (words("score"), lambda view: ": ".join(view)),
            *(
                (
                    differences(SHORT[loss]),
                    lambda view, loss=loss: self.tau[view[0]][loss].cell or UNDEFINED,
                )
                for loss in self.losses
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = [t for t in self.geometry.transforms if t != IDENTITY]
        return {
            "layers": self.geometry.layers,
            "transforms": self.geometry.transforms,
            "scores": {view: own.tolist() for view, own in self.geometry.scores.items()},
            "losses": {name: own.tolist() for name, own in self.losses.items()},
            "tau": {v: {n: asdict(i) for n, i in some.items()} for v, some in self.tau.items()},
            "differences": {
                t: {n: asdict(self.difference(t, n)) for n in self.losses} for t in names
            },
            "moved": {t: {view: self.moved(t, view) for view in VIEWS} for t in names},
        }


def _pooled(geometry: Geometry, view: str, losses: Array, resamples: int) -> Interval:
    """Return the mean over layers of tau, with its interval over subsamples and trainings."""
    generator = np.random.default_rng(0)
    seeds = generator.integers(len(losses), size=(resamples, len(losses)))
    rows = generator.integers(len(geometry.draws[view]), size=resamples)
    scores = np.concatenate([geometry.scores[view][None], geometry.draws[view][rows]])
    mean = np.concatenate([losses.mean(0)[None], losses[seeds].mean(1)])
    taus = kendall(scores, -mean)  # [1 + resamples, layers]
    known = ~np.isnan(taus)
    counts = known.sum(-1)
    pooled = np.where(known, taus, 0).sum(-1)[counts > 0] / counts[counts > 0]
    if not counts[0] or len(pooled) < 2:
        return Interval(value=None, lo=None, hi=None)
    lo, hi = np.percentile(pooled[1:], (2.5, 97.5))
    return Interval(value=float(pooled[0]), lo=float(lo), hi=float(hi))
