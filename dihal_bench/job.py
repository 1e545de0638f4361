"""The main job: locate a layer, train the interface and its controls, gate, score, record."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from dihal_bench import environment
from dihal_bench.backbone.loading import JUDGE, bundled_facts, bundled_fingerprint, check_device
from dihal_bench.backbone.model import Backbone
from dihal_bench.diffusion.schedule import Diffusion
from dihal_bench.errors import UserError
from dihal_bench.files import atomic_path, write_json
from dihal_bench.folder import claimed, run_folder
from dihal_bench.geometry.locate import Located, locate
from dihal_bench.geometry.score import resolve_layer
from dihal_bench.interfaces.base import Interface, InterfaceConfig, Span
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.progress import progress
from dihal_bench.records import SCHEMA, Record
from dihal_bench.registry import DENOISERS, INTERFACES, include
from dihal_bench.scoring.bridgeability import bridgeability
from dihal_bench.scoring.evaluate import check_gates, evaluate, evaluation_windows
from dihal_bench.scoring.table import Measured
from dihal_bench.text.sources import load_corpus
from dihal_bench.text.tokens import PackedTokens, pack
from dihal_bench.training.checkpoint import save_interface
from dihal_bench.training.ledger import Spent
from dihal_bench.training.trainer import Trainee, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dihal_bench.config import RunConfig
    from dihal_bench.scoring.bridgeability import Bridgeability
    from dihal_bench.text.documents import Corpus

_STATISTICS_BATCH = 16  # windows per pass
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def run(
    config: RunConfig,
    *,
    out: Path | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[Located], None] = lambda located: None,
) -> Record:
    """Do the whole job, or what is left of it.

    Args:
        config: everything that decides the result.
        out: the run's folder; by default the one that ``run_folder`` says.
        command: the command line, for the record.
        say: takes one-line messages for a person.
        show: is called with the located layers before anything is trained.

    Returns:
        The record, read from the folder if the run was complete already.

    Raises:
        UserError: the configuration cannot be run, or the folder holds another run.
    """
    folder = run_folder(config, out)
    job = Job(config, folder, say)
    with claimed(folder, config):
        done = folder / "record.json"
        if done.exists():
            say(f"already complete: {done}")
            return Record.read(done)
        show(job.located)
        record = job.record(command or shlex.join(sys.argv))
        record.write(done)
        return record


@dataclass(frozen=True)
class Trained:
    """Interfaces ready to be scored, by name, with what each spent and how its losses went."""

    interfaces: dict[str, Interface]
    spent: dict[str, Spent]
    curves: dict[str, list[dict[str, float]]]


class Job:
    """The steps of a run; each keeps its result in the folder and is not done twice."""

    def __init__(
        self, config: RunConfig, folder: Path, say: Callable[[str], None] = lambda text: None
    ):
        self.config = config
        self.folder = folder
        self.say = say
        for path in config.include:
            include(path)
        if config.regime != "causal":
            raise UserError(f"--regime {config.regime} is unknown; choose causal.")
        if config.dtype not in _DTYPES:
            raise UserError(
                f"--dtype {config.dtype} is unknown; choose one of {', '.join(_DTYPES)}."
            )
        for name in self.names:
            INTERFACES.get(name)
        DENOISERS.get(config.denoiser.name)
        Diffusion.create(config.diffusion)
        self.device = check_device(config.device)

    @property
    def names(self) -> list[str]:
        """The interface and its controls."""
        return list(dict.fromkeys((self.config.interface, *self.config.controls)))

    # --- what everything rests on -----------------------------------------------------------------

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen teacher; it has the layers that are asked for."""
        name, window = self.config.backbone, self.config.text.window
        self.say(f"backbone: {name}")
        dtype = _DTYPES[self.config.dtype]
        backbone = Backbone.load(name, device=self.device, dtype=dtype)
        if _is_judge(backbone):
            raise UserError(
                f"--backbone {name} is the judge, which must stay independent; choose bundled."
            )
        if window > backbone.info.context:
            raise UserError(
                f"text.window={window} exceeds the context of {name} ({backbone.info.context}); "
                "give a smaller --set text.window."
            )
        highest = resolve_layer(self.config.layer, backbone.blocks, {backbone.blocks - 1: 0.0})
        self._span(highest, backbone.blocks)
        return backbone

    @cached_property
    def corpus(self) -> Corpus:
        """The text."""
        self.say(f"corpus: {self.config.corpus}")
        corpus = load_corpus(self.config.corpus)
        if corpus.name == "bundled" and corpus.fingerprint != (pinned := bundled_fingerprint()):
            self.say(
                f"corpus: its fingerprint is {corpus.fingerprint}, not {pinned}: other versions of "
                "the dependencies are installed than constraints.txt pins, so results are not "
                "comparable"
            )
        return corpus

    @cached_property
    def training_text(self) -> PackedTokens:
        """What interfaces are trained and fitted on."""
        return self._pack("train", self.config.text.train_tokens)

    @cached_property
    def validation_text(self) -> PackedTokens:
        """What is evaluated on."""
        return self._pack("validation", self.config.text.validation_tokens)

    def _pack(self, split: str, limit: int) -> PackedTokens:
        tokenizer, window = self.backbone.tokenizer, self.config.text.window
        return pack(self.corpus, split, tokenizer, window=window, max_tokens=limit or None)

    def _check_inputs(self) -> None:
        """Refuse text that cannot be scored, and results of another model or text of one name."""
        evaluation_windows(self.validation_text, self.config.score.tokens)
        found = {
            "backbone": self.backbone.info.fingerprint,
            "training text": self.training_text.fingerprint,
            "validation text": self.validation_text.fingerprint,
        }
        kept = self.folder / "inputs.json"
        if kept.exists():
            begun = json.loads(kept.read_text(encoding="utf-8"))
            changed = [name for name, value in found.items() if begun.get(name) != value]
            if changed:
                raise UserError(
                    f"--out {self.folder} was begun with another {changed[0]} of the same name; "
                    "choose another folder."
                )
        write_json(kept, found)

    # --- locate -----------------------------------------------------------------------------------

    @cached_property
    def located(self) -> Located:
        """Proxies and score of every candidate layer."""
        self._check_inputs()
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
        b = self.located.select(self.config.layer, above=self.config.from_layer)
        return self._span(b, self.backbone.blocks)

    def _span(self, b: int, blocks: int) -> Span:
        a = self.config.from_layer
        if not 0 <= a < b:
            raise UserError(
                f"--from {a} must be at least 0 and below the layer that is generated "
                f"({b} for --layer {self.config.layer}); choose another."
            )
        return Span(a=a, b=b, blocks=blocks)

    # --- replace ----------------------------------------------------------------------------------

    @cached_property
    def statistics(self) -> SpanStatistics:
        """Closed-form statistics of the span over the windows that trunks are trained on."""
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
        with progress("statistics", count, unit="windows") as bar:
            for lo in range(0, count, _STATISTICS_BATCH):
                batch = min(_STATISTICS_BATCH, count - lo)
                windows = self.training_text.draw(self.config.seed, lo, batch)
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

    @property
    def trained_count(self) -> int:
        """How many of the interface and its controls are trained by gradient."""
        return sum(INTERFACES.get(name).trainable for name in self.names)

    @cached_property
    def trained(self) -> Trained:
        """The interface and its controls, fitted, and trained side by side where they learn."""
        interfaces = {name: self._new(name) for name in self.names}
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
        fitted = {n: i.closed_form_parameters for n, i in interfaces.items()}
        spent = {name: Spent(closed_form_parameters=count) for name, count in fitted.items()}
        return Trained(
            interfaces=interfaces,
            spent=spent | {t.name: t.spent for t in trainees},
            curves={t.name: t.curve for t in trainees},
        )

    # --- judge ------------------------------------------------------------------------------------

    def record(self, command: str) -> Record:
        """Do everything that is not done yet and assemble the record."""
        config, interfaces = self.config, self.trained.interfaces
        self.say("leak gate")
        gates = check_gates(interfaces, self.validation_text)
        self.say("scoring")
        scores = evaluate(
            interfaces, self.validation_text, self.backbone, config.score, self._measured()
        )
        results = {
            "locate": self.located.to_dict(),
            "bridge": {**self._bridge().to_dict(), "curves": self.trained.curves},
            "scores": [score.to_dict() for score in scores],
            "gates": {"leak": {name: gate.to_dict() for name, gate in gates.items()}},
        }
        return Record({**self._identity(command), **self._inputs(), **self._budget(), **results})

    def _measured(self) -> Measured:
        config = self.config
        return Measured(
            task=f"{config.corpus}:validation",
            regime=config.regime,
            dtype=config.dtype,
            resamples=config.score.resamples,
            seed=config.seed,
        )

    def _bridge(self) -> Bridgeability:
        config, text = self.config.score, self.validation_text
        return bridgeability(
            self.trained.interfaces[self.config.interface],
            text,
            windows=evaluation_windows(text, config.tokens),
            batch=config.batch,
            steps=config.steps[-1],
        )

    def _identity(self, command: str) -> dict[str, Any]:
        config = self.config
        interface = self.trained.interfaces[config.interface]
        return {
            "schema": SCHEMA,
            "id": f"{config.interface}-{config.digest()}",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            "config": config.to_dict(),
            "interface": {
                "name": config.interface,
                "origin": f"{type(interface).__module__}:{type(interface).__qualname__}",
                "args": asdict(interface.config),
                "replaced": self.span.replaced,
                "from": self.span.a,
            },
            "regime": config.regime,
            "layer": self.span.b,
            "layer_policy": config.layer,
        }

    def _inputs(self) -> dict[str, Any]:
        return {
            "backbone": asdict(self.backbone.info),
            "corpus": {
                "name": self.corpus.name,
                "fingerprint": self.corpus.fingerprint,
                "train_tokens": self.training_text.tokens,
                "val_tokens": self.validation_text.tokens,
                "notes": self.corpus.notes,
            },
            "environment": environment.describe(device=self.config.device, seed=self.config.seed),
        }

    def _budget(self) -> dict[str, Any]:
        budget, spent = self.config.budget, self.trained.spent
        phases = self.trained.interfaces[self.config.interface].phases
        checked = budget.check(phases, {"diffusion": spent[self.config.interface]})
        return {
            "budget": {**asdict(budget), **checked},
            "spent": {name: {"diffusion": s.to_dict()} for name, s in spent.items()},
        }


def _is_judge(backbone: Backbone) -> bool:
    """Whether a backbone has the judge's weights, whatever its name."""
    if backbone.info.parameters != bundled_facts(JUDGE)["parameters"]:
        return False
    judge = Backbone.load(JUDGE, device=backbone.device, dtype=backbone.model.dtype)
    return judge.info.fingerprint == backbone.info.fingerprint
