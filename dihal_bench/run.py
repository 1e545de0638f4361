"""The main job: locate a layer, train the interface and its controls, gate, score, record."""

from __future__ import annotations

import datetime
import fcntl
import json
import shlex
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from dihal_bench import environment
from dihal_bench.backbone.model import Backbone
from dihal_bench.errors import UserError
from dihal_bench.files import atomic_path, write_json
from dihal_bench.geometry.locate import Located, locate
from dihal_bench.interfaces.base import Interface, InterfaceConfig, Span
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.progress import progress
from dihal_bench.records import SCHEMA, Record, Score
from dihal_bench.registry import DENOISERS, INTERFACES, include
from dihal_bench.scoring.bridgeability import bridgeability
from dihal_bench.scoring.gate import GateResult, leak_gate
from dihal_bench.scoring.likelihood import TEACHER, Row, score
from dihal_bench.scoring.table import Measured, evaluation_windows, scores_of
from dihal_bench.text.sources import load_corpus
from dihal_bench.text.tokens import PackedTokens, pack
from dihal_bench.training.checkpoint import save_interface
from dihal_bench.training.ledger import Spent
from dihal_bench.training.trainer import Trainee, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dihal_bench.config import RunConfig

_STATISTICS_BATCH = 16  # windows per pass


@dataclass(frozen=True)
class Outcome:
    """What a run gives back: its record and the folder it lies in."""

    record: Record
    folder: Path


def run(
    config: RunConfig,
    *,
    out: Path | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[Located], None] = lambda located: None,
) -> Outcome:
    """Do the whole job, or what is left of it.

    Args:
        config: everything that decides the result.
        out: the run's folder; ``runs/<interface>-<digest of the configuration>`` by default.
        command: the command line, for the record.
        say: takes one-line messages for a person.
        show: is called with the located layers before anything is trained.

    Returns:
        The record (read from disk if the run was complete already) and its folder.

    Raises:
        UserError: the configuration cannot be run, or the folder holds another run.
    """
    for path in config.include:
        include(path)
    folder = out or Path("runs") / f"{config.interface}-{config.digest()}"
    with _claimed(folder, config):
        done = folder / "record.json"
        if done.exists():
            say(f"already complete: {done}")
            return Outcome(Record.read(done), folder)
        job = Job(config, folder, say)
        show(job.located)
        record = job.record(command or shlex.join(sys.argv))
        record.write(done)
        return Outcome(record, folder)


@dataclass(frozen=True)
class Trained:
    """Interfaces ready to be scored, by name, with what each spent and how its losses went."""

    interfaces: dict[str, Interface]
    spent: dict[str, Spent]
    curves: dict[str, list[dict[str, float]]]


class Job:
    """The steps of a run; each keeps its result in the folder and is not done twice."""

    def __init__(self, config: RunConfig, folder: Path, say: Callable[[str], None] = lambda text: None):
        self.config = config
        self.folder = folder
        self.say = say
        if config.regime != "causal":
            raise UserError(f"--regime {config.regime} is unknown; choose causal.")
        for name in (config.interface, *config.controls):
            INTERFACES.get(name)
        self.device = environment.check_device(config.device)

    # --- what everything rests on -----------------------------------------------------------------

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen teacher."""
        self.say(f"backbone: {self.config.backbone}")
        dtype = getattr(torch, self.config.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise UserError(f"--dtype {self.config.dtype} is unknown; choose float32 or bfloat16.")
        backbone = Backbone.load(self.config.backbone, device=self.device, dtype=dtype)
        if self.config.text.window > backbone.info.context:
            raise UserError(
                f"text.window={self.config.text.window} exceeds the context of {self.config.backbone} "
                f"({backbone.info.context}); give a smaller --set text.window."
            )
        return backbone

    @cached_property
    def corpus(self) -> Any:
        """The text."""
        self.say(f"corpus: {self.config.corpus}")
        return load_corpus(self.config.corpus)

    @cached_property
    def training_text(self) -> PackedTokens:
        """What interfaces are trained and fitted on."""
        return self._pack("train", self.config.text.train_tokens)

    @cached_property
    def validation_text(self) -> PackedTokens:
        """What is evaluated on."""
        return self._pack("validation", self.config.text.validation_tokens)

    def _pack(self, split: str, limit: int) -> PackedTokens:
        window = self.config.text.window
        return pack(self.corpus, split, self.backbone.tokenizer, window=window, max_tokens=limit or None)

    # --- locate -----------------------------------------------------------------------------------

    @cached_property
    def located(self) -> Located:
        """Proxies and score of every candidate layer."""
        kept = self.folder / "locate.json"
        if kept.exists():
            return Located.from_dict(json.loads(kept.read_text(encoding="utf-8")))
        found = locate(
            self.backbone,
            self.training_text,
            self.config.locate,
            residual=self.config.bridge.residual,
            seed=self.config.seed,
        )
        write_json(kept, found.to_dict())
        return found

    @cached_property
    def span(self) -> Span:
        """The blocks that are replaced."""
        a, blocks = self.config.from_layer, self.backbone.blocks
        b = self.located.select(self.config.layer)
        if not 0 <= a < b:
            raise UserError(
                f"--from {a} must be at least 0 and below the layer that is generated, {b}; choose another."
            )
        return Span(a=a, b=b, blocks=blocks)

    # --- replace ----------------------------------------------------------------------------------

    @cached_property
    def statistics(self) -> SpanStatistics:
        """Closed-form statistics of the span over the training text, up to the budget."""
        kept = self.folder / "statistics.safetensors"
        if kept.exists():
            return SpanStatistics(**load_file(kept, device=str(self.device)))
        limit = self.config.budget.diffusion_tokens // self.training_text.window
        count = max(1, min(len(self.training_text), limit))
        found = SpanStatistics.collect(self._sweep(count), self.span.a, self.span.b)
        with atomic_path(kept) as temporary:
            save_file(asdict(found), temporary)
        return found

    def _sweep(self, count: int) -> Iterator[Batch]:
        with progress("statistics", count, unit="window") as bar:
            for lo in range(0, count, _STATISTICS_BATCH):
                windows = self.training_text.batch(range(lo, min(lo + _STATISTICS_BATCH, count)))
                yield Batch.of(windows, self.backbone, layers=(self.span.a, self.span.b))
                bar.update(len(windows.tokens))

    def _new(self, name: str) -> Interface:
        config = InterfaceConfig(
            residual=self.config.bridge.residual,
            denoiser=self.config.denoiser,
            diffusion=self.config.diffusion,
            losses=self.config.losses,
            seed=self.config.seed,
        )
        interface: Interface = INTERFACES.get(name)(self.backbone, self.span, config)
        interface.fit(self.statistics)
        return interface.eval()

    def trunk_parameters(self) -> int:
        """Trainable parameters of the denoiser, without fitting or training anything."""
        size = self.backbone.hidden_size
        trunk = DENOISERS.get(self.config.denoiser.name)(size, size, self.config.denoiser)
        return sum(p.numel() for p in trunk.parameters())

    @cached_property
    def trained(self) -> Trained:
        """The interface and its controls, fitted, and trained side by side where they learn."""
        names = dict.fromkeys((self.config.interface, *self.config.controls))
        interfaces = {name: self._new(name) for name in names}
        trainees = [Trainee(n, i, self.config.train) for n, i in interfaces.items() if i.trainable]
        if trainees:
            self.say("training " + " and ".join(t.name for t in trainees))
            train(
                trainees,
                self.training_text,
                self.backbone,
                tokens=self.config.budget.diffusion_tokens,
                seed=self.config.seed,
                checkpoint=self.folder / "training.safetensors",
            )
        for name, interface in interfaces.items():
            save_interface(self.folder / "weights" / f"{name}.safetensors", interface)
        fitted = {n: Spent(closed_form_parameters=i.closed_form_parameters) for n, i in interfaces.items()}
        return Trained(
            interfaces=interfaces,
            spent=fitted | {t.name: t.spent for t in trainees},
            curves={t.name: t.curve for t in trainees},
        )

    # --- judge ------------------------------------------------------------------------------------

    @cached_property
    def gates(self) -> dict[str, GateResult]:
        """The leak test of every row's trained weights."""
        self.say("leak gate")
        interfaces = self.trained.interfaces
        results = {n: leak_gate(i, self.validation_text) for n, i in interfaces.items()}
        bad = {n: r for n, r in results.items() if r.verdict != "pass"}
        if bad:
            name, result = next(iter(bad.items()))
            raise UserError(
                f"{name} did not pass the leak gate ({result.verdict}: logits before a changed token "
                f"moved by {result.future:.3g}, after it by {result.effect:.3g}), so no likelihood is "
                "written; make the interface causal or, if untrained, train it."
            )
        return results

    @property
    def windows(self) -> list[int]:
        """The validation windows that are scored."""
        text = self.validation_text
        return evaluation_windows(len(text), self.config.score.tokens, text.window)

    def scores(self) -> list[Score]:
        """Score the teacher, the interface at every number of steps, and the controls."""
        rows = [Row(subject=TEACHER)]
        interfaces = self.trained.interfaces
        for name, interface in interfaces.items():
            rows += self._rows(name, interface)
        totals = score(
            rows,
            interfaces,
            self.validation_text,
            self.backbone,
            windows=self.windows,
            batch=self.config.score.batch,
        )
        measured = Measured(
            task=f"{self.config.corpus}:validation",
            regime=self.config.regime,
            dtype=self.config.dtype,
            resamples=self.config.score.resamples,
            seed=self.config.seed,
        )
        stochastic = {name: i.stochastic for name, i in interfaces.items()}
        headline = self._rows(self.config.interface, interfaces[self.config.interface])[-1]
        return scores_of(totals, stochastic, measured, reference=headline)

    def _rows(self, name: str, interface: Interface) -> list[Row]:
        if interface.stochastic:
            chains = self.config.score.chains
            return [Row(subject=name, steps=s, chains=chains) for s in self.config.score.steps]
        steps = self.config.score.steps[-1] if interface.iterative else 1
        return [Row(subject=name, steps=steps)]

    def record(self, command: str) -> Record:
        """Do everything that is not done yet and assemble the record."""
        config, trained = self.config, self.trained
        interface = trained.interfaces[config.interface]
        gates = {name: result.to_dict() for name, result in self.gates.items()}
        self.say("scoring")
        scores = [s.to_dict() for s in self.scores()]
        bridge = bridgeability(
            interface,
            self.validation_text,
            windows=self.windows,
            batch=config.score.batch,
            steps=config.score.steps[-1],
        )
        spent = {name: {"diffusion": s.to_dict()} for name, s in trained.spent.items()}
        checked = config.budget.check(interface.phases, {"diffusion": trained.spent[config.interface]})
        return Record(
            {
                "schema": SCHEMA,
                "id": f"{config.interface}-{config.digest()}",
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "command": command,
                "config": config.to_dict(),
                "interface": {
                    "name": config.interface,
                    "origin": INTERFACES.origin(config.interface),
                    "args": asdict(interface.config),
                    "replaced": self.span.replaced,
                    "from": self.span.a,
                },
                "regime": config.regime,
                "layer": self.span.b,
                "layer_policy": config.layer,
                "backbone": asdict(self.backbone.info),
                "corpus": {
                    "name": self.corpus.name,
                    "fingerprint": self.corpus.fingerprint,
                    "train_tokens": self.training_text.tokens,
                    "val_tokens": self.validation_text.tokens,
                    "notes": self.corpus.notes,
                },
                "budget": {**asdict(config.budget), **checked},
                "spent": spent,
                "locate": self.located.to_dict(),
                "bridge": {**bridge.to_dict(), "curves": trained.curves},
                "scores": scores,
                "gates": {"leak": gates},
                "environment": environment.describe(device=config.device, seed=config.seed),
            }
        )


@contextmanager
def _claimed(folder: Path, config: RunConfig) -> Iterator[None]:
    """Hold the folder for this process, and make sure that it belongs to this configuration.

    Raises:
        UserError: no permission, another process works on it, or it holds another configuration.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--out {folder}: {error.strerror or error}; choose a folder you may write to."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--out {folder}: another process works on this run; wait for it.") from error
        kept = folder / "config.json"
        if kept.exists() and json.loads(kept.read_text(encoding="utf-8")) != config.to_dict():
            raise UserError(f"--out {folder} holds a run of another configuration; choose another folder.")
        write_json(kept, config.to_dict())
        yield

