"""The main job: locate a layer, train the interface and its controls, gate, score, record."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from dihal_bench.config.identity import differing, interface_identity, settled
from dihal_bench.config.schema import AUTO, flatten
from dihal_bench.core import distributed, kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import short_hash
from dihal_bench.core.progress import progress
from dihal_bench.core.registry import DENOISERS, INTERFACES, include
from dihal_bench.diffusion.denoisers import check_denoiser
from dihal_bench.diffusion.schedule import Diffusion
from dihal_bench.geometry.cache import is_large
from dihal_bench.geometry.locate import Located, Sample, fill_cache, locate
from dihal_bench.geometry.score import resolve_layer
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import InterfaceConfig, Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.interfaces.validate import blamed, declared, validate
from dihal_bench.runs.inputs import Inputs
from dihal_bench.training.checkpoint import check_weights, load_interface, weights_file
from dihal_bench.training.ledger import TrainingCost
from dihal_bench.training.phases import PhaseRunner, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.diffusion.denoisers import Denoiser, DenoiserConfig
    from dihal_bench.geometry.cache import CacheConfig
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.results.record import Record

STATISTICS_BATCH = 16  # windows per pass
_VALIDATED = 2  # windows


class RunContext:
    """The steps of a run; each keeps its result in the folder and is not done twice.

    Attributes:
        config: of the run.
        folder: where it is kept.
        shared: where lies what several runs have in common.
        finished: the record of the run, if it is trained already: then nothing is located or
            trained, and its weights are read.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        say: Callable[[str], None] = lambda text: None,
        *,
        shared: Path | None = None,
        inputs: Inputs | None = None,
        cache: CacheConfig | None = None,
    ):
        self.config = config
        self.cache = cache
        self.folder = folder
        self.shared = shared or folder / "shared"
        self.say = say
        self.finished: Record | None = None
        for path in config.include:
            include(path)
        for name in self.names:
            regimes = INTERFACES.get(name).regimes
            if config.regime not in regimes:
                raise UserError(
                    f"{name} has no {config.regime} regime; leave it out of this table, or give "
                    f"--regime {regimes[0]}."
                )
        if any("diffusion" in INTERFACES.get(name).phases for name in self.names):
            check_denoiser(config.denoiser.name, config.regime)
        DENOISERS.get(config.denoiser.name)
        Diffusion.create(config.diffusion)
        self.inputs = inputs or Inputs(config, say)

    @cached_property
    def names(self) -> list[str]:
        """The interface and its controls."""
        config = self.config
        controls = config.controls
        if controls == (AUTO,):
            own = INTERFACES.get(config.interface).controls
            controls = tuple(n for n in own if config.regime in INTERFACES.get(n).regimes)
        return list(dict.fromkeys((config.interface, *controls)))

    # --- locate -----------------------------------------------------------------------------------

    @property
    def locates(self) -> bool:
        """Whether anything here enters at a layer that has to be chosen."""
        return not all(INTERFACES.get(name).bears_tokens for name in self.names)

    @cached_property
    def located(self) -> Located:
        """Proxies and score of every candidate layer."""
        config, path = self.config, self._located
        if self.finished is not None:
            return Located.from_dict(self.finished.data["locate"])
        if distributed.on_main(partial(kept.usable, path)):
            if self.cache is not None:
                fill_cache(
                    self.inputs.backbone,
                    self.inputs.training_text,
                    config.locate,
                    self.cache,
                    seed=config.seed,
                    autocast=self.locates_under_autocast,
                )
            return Located.from_dict(kept.read_json(path))
        found = locate(
            self.inputs.backbone,
            self.inputs.training_text,
            config.locate,
            residual=config.residual,
            seed=config.seed,
            cache=self.cache,
            autocast=self.locates_under_autocast,
        )
        found = distributed.from_main(found)
        kept.write_json(path, found.to_dict())
        return found

    @property
    def _located(self) -> Path:
        config = self.config
        depends = [*self.rests_on, settled("locate", config.locate), config.residual, config.seed]
        depends += sorted(Sample.__annotations__)
        return self.shared / f"locate-{short_hash(depends)}.json"

    @property
    def locates_under_autocast(self) -> bool:
        """Whether layers are located as bridges are trained; a small backbone is read in full."""
        return self.config.train.autocast and is_large(self.inputs.backbone)

    @property
    def rests_on(self) -> list[Any]:
        """What everything measured here depends on: the teacher's weights, and the text read."""
        text = self.inputs.training_text
        precision = ["autocast"] if self.locates_under_autocast else []
        fingerprint = self.inputs.backbone.info.fingerprint
        return [fingerprint, text.fingerprint, text.window, *precision]

    @property
    def knows_layer(self) -> bool:
        """Whether the layer is given, or was located before; text is read only if it may be."""
        if self.config.layer != AUTO:
            return True
        return any(self.shared.glob("locate-*.json")) and self._located.exists()

    def span(self, name: str) -> Span:
        """Return the blocks that an interface replaces; signals that bear tokens replace the top.

        Raises:
            UserError: there are none.
        """
        a, blocks = self.config.from_layer, self.inputs.backbone.blocks
        if INTERFACES.get(name).bears_tokens:
            b = blocks
        elif self.config.layer == AUTO:
            b = self.located.select(AUTO, above=a)
        else:
            b = resolve_layer(self.config.layer, blocks, None)
        return self._span(a, b)

    @property
    def ends(self) -> list[tuple[int, int]]:
        """The ends of the pass that each interface's statistics are of: its condition and signal.

        Built for it, since only an interface knows which layers it asks for.
        """
        layers = (self.new(name).layers for name in self.names)
        return [(own[0], own[-1]) for own in layers]

    def entered(self, name: str, *, dry: bool) -> int | None:
        """Return the layer that an interface enters; None if it is located when this is run.

        Args:
            name: of the interface.
            dry: do nothing that takes long: a layer that is not known yet stays so.
        """
        if dry and not self.knows_layer:
            self.say("the layer is located when this is run: layers, and the folders named after")
            self.say("them, are not known yet; give --layer to see them")
            return None
        return self.span(name).b

    def check_span(self) -> None:
        """Refuse a --layer or --from that the backbone does not have, before anything is done."""
        blocks = self.inputs.backbone.blocks
        if self.locates:
            highest = resolve_layer(self.config.layer, blocks, {blocks - 1: 0.0})
            self._span(self.config.from_layer, highest)
        else:
            self._span(self.config.from_layer, blocks)

    def _span(self, a: int, b: int) -> Span:
        if not 0 <= a < b:
            layer = f" for --layer {self.config.layer}" if self.locates else ""
            raise UserError(
                f"--from {a} must be at least 0 and below the layer that is generated "
                f"({b}{layer}); choose another."
            )
        return Span(a=a, b=b, blocks=self.inputs.backbone.blocks)

    # --- replace ----------------------------------------------------------------------------------

    def statistics(self, a: int, b: int) -> SpanStatistics:
        """Return closed-form statistics of h_a -> h_b over the windows that trunks see."""
        self.collect([(a, b)])
        path = self._statistics(a, b)
        return SpanStatistics(**kept.read_tensors(path, device=str(self.inputs.device)).tensors)

    def collect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Collect what is missing of the statistics of several spans, in one pass."""

        def missing() -> list[tuple[int, int]]:
            return [s for s in dict.fromkeys(spans) if not kept.usable(self._statistics(*s))]

        wanted = distributed.on_main(missing)
        if not wanted:
            return
        layers = {layer for span in wanted for layer in span}
        for span, found in SpanStatistics.collect_spans(self._pass(layers), wanted).items():
            tables = asdict(found)
            kept.write_tensors(self._statistics(*span), tables, common=tables.keys())
        distributed.barrier()

    def _statistics(self, a: int, b: int) -> Path:
        known = [field.name for field in fields(SpanStatistics)]
        depends = [*self.rests_on, a, b, self._statistics_windows, self.config.seed, known]
        return self.shared / f"statistics-{short_hash(depends)}.safetensors"

    @property
    def _statistics_windows(self) -> int:
        text = self.inputs.training_text
        return max(1, min(len(text), self.config.budget.diffusion_tokens // text.window))

    def _pass(self, layers: Iterable[int]) -> Iterator[Batch]:
        text, backbone = self.inputs.training_text, self.inputs.backbone
        count = self._statistics_windows
        with progress("statistics", count, unit="windows") as bar:
            for lo, counts in distributed.turns(range(0, count, STATISTICS_BATCH)):
                size = min(STATISTICS_BATCH, count - lo)
                windows = text.draw(self.config.seed, lo, size)
                batch = Batch.of(windows, backbone, layers=layers)
                if counts:
                    yield batch
                bar.update(size * distributed.size())

    def new(self, name: str) -> Interface:
        """Return an interface as it is before anything is fitted or trained."""
        config, kind = self.config, INTERFACES.get(name)
        own = InterfaceConfig(
            residual=config.residual,
            denoiser=config.denoiser,
            diffusion=config.diffusion,
            losses=config.losses,
            seed=config.seed,
            block=config.block_size,
            options=config.options.get(kind.section or name),
        )
        backbone, span = self.inputs.backbone, self.span(name)
        with blamed(kind):
            interface: Interface = kind(backbone, span, own)
            declared(interface)
        return interface.eval()

    def _fit(self, interface: Interface) -> None:
        statistics = self.statistics(interface.layers[0], interface.layers[-1])
        with blamed(type(interface)):
            interface.fit(statistics)

    def trunk_parameters(self) -> int:
        """Return the parameters of a trunk between states of the backbone: the reference size."""
        size, config = self.inputs.backbone.hidden_size, self.config
        inputs = size * (2 if config.diffusion.self_conditioning else 1)
        return _trunk_parameters(DENOISERS.get(config.denoiser.name), inputs, size, config.denoiser)

    @cached_property
    def trained(self) -> Trained:
        """The interface and its controls, fitted, and trained side by side where they learn.

        They are built anew from their weights: what training left beside those is gone.
        """
        if self.finished is not None:
            return self._restored(self.finished)
        done = self.trainer.run(self.fitted())
        distributed.barrier()
        done.interfaces = {name: self.loaded(name, None) for name in done.interfaces}
        return done

    def weights(self, name: str, record: Record) -> Interface:
        """Return an interface with the weights that the run's folder has of it.

        Args:
            name: of the interface.
            record: of the run.

        Raises:
            UserError: there are none, they are not those of the record, or they do not fit.
        """
        return self.loaded(name, record.data["weights"].get(name))

    def loaded(self, name: str, digest: str | None) -> Interface:
        """Return an interface built anew, with the weights that the run's folder has of it.

        Args:
            name: of the interface.
            digest: SHA-256 of the file; None: it may be any.

        Raises:
            UserError: there are none, they have another digest, or they do not fit.
        """
        interface, path = self.new(name), weights_file(self.folder, name)
        check_weights(path, digest)
        load_interface(path, interface)
        return interface

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the file of weights that every name has after training."""
        files = {name: weights_file(self.folder, name) for name in self.trained.interfaces}
        return distributed.on_main(lambda: {n: kept.sha256(path) for n, path in files.items()})

    def renewed(self, digests: Mapping[str, str]) -> dict[str, Interface]:
        """Return all of them, built anew from weights of these digests, for all that follows."""
        self.trained.interfaces = {name: self.loaded(name, digests[name]) for name in self.names}
        return self.trained.interfaces

    def _restored(self, record: Record) -> Trained:
        trained = Trained.begin({name: self.weights(name, record) for name in self.names})
        for name, phases in record.data["spent"].items():
            trained.spent[name] = {phase: TrainingCost(**own) for phase, own in phases.items()}
        trained.curves |= record.data["bridge"]["curves"]
        return trained

    def fitted(self) -> dict[str, Interface]:
        """Return the interface and its controls anew, fitted but not trained."""
        interfaces = {name: self.new(name) for name in self.names}
        windows = self.inputs.training_text.draw(self.config.seed, 0, _VALIDATED)
        for interface in interfaces.values():
            self._fit(interface)
            layers = interface.layers
            validate(interface, Batch.of(windows, self.inputs.backbone, layers=layers))
        return interfaces

    @cached_property
    def trainer(self) -> PhaseRunner:
        """What its interfaces are trained with."""
        return PhaseRunner(
            data=self.inputs.training_text,
            held_out=self.inputs.validation_text,
            backbone=self.inputs.backbone,
            budget=self.config.budget,
            config=self.config.train,
            seed=self.config.seed,
            folder=self.folder,
            shared=self.shared,
            fit=self._fit,
            identity=interface_identity,
            settings=differing(flatten({"train": asdict(self.config.train)})),
            say=self.say,
        )


@cache
def _trunk_parameters(kind: type[Denoiser], inputs: int, size: int, config: DenoiserConfig) -> int:
    trunk = kind(inputs, size, size, config)
    return sum(p.numel() for p in trunk.parameters() if p.requires_grad)
