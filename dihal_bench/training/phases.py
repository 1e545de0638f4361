"""All phases of all interfaces of a run, in order; what several runs share is trained once."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.files import lock, short_hash
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import PHASES
from dihal_bench.interfaces.validate import source_hash
from dihal_bench.training.checkpoint import load_phase, save_interface, save_phase
from dihal_bench.training.ledger import Spent
from dihal_bench.training.trainer import Trainee, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from dihal_bench.backbone.model import Backbone
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.text.tokens import PackedTokens
    from dihal_bench.training.budget import BudgetConfig
    from dihal_bench.training.trainer import TrainConfig

_SETTLING_WINDOWS, _SETTLING_BATCH = 64, 16
_ACCURACY_WINDOWS = 16


@dataclass
class Trained:
    """Interfaces ready to be scored, by name, with what each spent and how its losses went.

    Attributes:
        interfaces: by name.
        spent: name -> phase -> what it cost.
        curves: name -> phase -> losses along the way.
    """

    interfaces: dict[str, Interface]
    spent: dict[str, dict[str, Spent]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What the phases of a run are trained with.

    Attributes:
        data: training text.
        held_out: text on which a recovery is tried before diffusion starts.
        backbone: the teacher.
        budget: tokens per phase.
        config: optimiser, batches, rates.
        seed: of the data order.
        folder: of the run: checkpoints and weights.
        shared: where finished phases lie; runs that have one in common train it once.
        fit: estimates an interface's closed-form parts.
        say: takes one-line messages for a person.
    """

    data: PackedTokens
    held_out: PackedTokens
    backbone: Backbone
    budget: BudgetConfig
    config: TrainConfig
    seed: int
    folder: Path
    shared: Path
    fit: Callable[[Interface], None]
    say: Callable[[str], None]

    def run(self, interfaces: Mapping[str, Interface]) -> Trained:
        """Train every phase that an interface declares, side by side where steps agree.

        Raises:
            UserError: a loss is not finite, or a recovery is too poor to go on with.
        """
        done = Trained(interfaces=dict(interfaces))
        for name in interfaces:
            done.spent[name], done.curves[name] = {}, {}
        for phase in PHASES:
            for tokens, names in self._groups(interfaces, phase).items():
                self._complete({n: interfaces[n] for n in names}, phase, tokens)
                for name in names:
                    self._take(done, name, phase)
        for name, interface in interfaces.items():
            save_interface(self.folder / "weights" / f"{name}.safetensors", interface)
        return done

    def file(self, name: str, interface: Interface, phase: str) -> Path:
        """Return where a finished phase lies; its name is a digest of all that it depends on."""
        plan = self.budget.plan(interface.phases)
        depends: dict[str, Any] = {
            "origin": f"{type(interface).__module__}:{type(interface).__qualname__}",
            "source": source_hash(type(interface)),
            "options": asdict(interface.options) if interface.options else None,
            "key": interface.recovery_key(),
            "backbone": self.backbone.info.fingerprint,
            "text": [self.data.fingerprint, self.data.window],
            "tokens": {"recovery": plan.get("recovery")},
            "train": asdict(self.config),
            "seed": self.seed,
        }
        if phase == "diffusion":
            own = asdict(replace(interface.config, options=None))
            depends |= {"config": own, "span": asdict(interface.span), "tokens": plan}
        return self.shared / f"{name}-{phase}-{short_hash(depends)}.safetensors"

    def _groups(self, interfaces: Mapping[str, Interface], phase: str) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = defaultdict(list)
        for name, interface in interfaces.items():
            tokens = self.budget.plan(interface.phases).get(phase)
            if tokens:
                groups[tokens].append(name)
        return groups

    def _complete(self, interfaces: Mapping[str, Interface], phase: str, tokens: int) -> None:
        """Train what is missing, and wait for what another process is training."""
        files = {name: self.file(name, interface, phase) for name, interface in interfaces.items()}
        while missing := [name for name, file in files.items() if not file.exists()]:
            with ExitStack() as claims:
                held = [n for n in missing if claims.enter_context(lock(files[n], wait=False))]
                mine = {n: interfaces[n] for n in held if not files[n].exists()}
                if mine:
                    self._train(mine, phase, tokens)
            if not held:
                self.say(f"waiting for {missing[0]}, whose {phase} another run trains")
                with lock(files[missing[0]], wait=True):
                    pass

    def _train(self, interfaces: Mapping[str, Interface], phase: str, tokens: int) -> None:
        """Train a phase and write what came of it."""
        self.say(f"training {' and '.join(interfaces)}: {phase}")
        trainees = [Trainee(n, i, self.config, phase) for n, i in interfaces.items()]
        files = {name: self.file(name, interface, phase) for name, interface in interfaces.items()}

        def keep(name: str, interface: Interface, share: float) -> None:
            save_phase(kept_weights(files[name], share), interface, phase, {})

        train(
            trainees,
            self.data,
            self.backbone,
            tokens=tokens,
            seed=self.seed,
            checkpoint=self.folder / f"training-{'-'.join([phase, *interfaces])}.safetensors",
            keep=keep,
        )
        for trainee in trainees:
            interface = trainee.interface
            facts = {"spent": trainee.spent.to_dict(), "curve": trainee.curve, "accuracy": 1.0}
            if phase == "recovery":
                interface.settle(self._batches(interface))
                facts["accuracy"] = self._accuracy(interface)
            save_phase(files[trainee.name], interface, phase, facts)

    def _take(self, done: Trained, name: str, phase: str) -> None:
        """Load a finished phase, and look whether its recovery is good enough."""
        interface = done.interfaces[name]
        facts = load_phase(self.file(name, interface, phase), interface)
        self.fit(interface)  # its condition may be another than that of the run which trained it
        done.spent[name][phase] = Spent(**facts["spent"])
        done.curves[name][phase] = facts["curve"]
        if facts["accuracy"] < interface.least_accuracy:
            raise UserError(
                f"{name} recovers {facts['accuracy']:.1%} of the tokens from their true signal, "
                f"less than the {interface.least_accuracy:.0%} that diffusion needs; give its "
                "recovery more budget.recovery_tokens or a wider signal."
            )

    def _accuracy(self, interface: Interface) -> float:
        count = min(_ACCURACY_WINDOWS, len(self.held_out))
        windows = self.held_out.batch(range(count))
        batch = Batch.of(windows, self.backbone, layers=interface.layers)
        return recovery_accuracy(interface, batch)

    def _batches(self, interface: Interface) -> Iterator[Batch]:
        count = min(_SETTLING_WINDOWS, len(self.data))
        for lo in range(0, count, _SETTLING_BATCH):
            windows = self.data.draw(self.seed, lo, min(_SETTLING_BATCH, count - lo))
            yield Batch.of(windows, self.backbone, layers=interface.layers)


def kept_weights(file: Path, share: float) -> Path:
    """Return where the weights lie that belong to a share of the phase that ends in ``file``."""
    return file.with_name(f"{file.stem}@{share:.0%}{file.suffix}")
