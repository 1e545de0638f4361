"""All phases of all interfaces of a run, in order; what several runs share is trained once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.files import short_hash
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import PHASES
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
        shared: where recovery phases lie that several runs have in common.
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
                missing = [n for n in names if not self._load_shared(done, n, phase)]
                if missing:
                    self._train(done, missing, phase, tokens)
                for name in missing:
                    self._settle(done, name, phase)
        for name, interface in interfaces.items():
            save_interface(self.folder / "weights" / f"{name}.safetensors", interface)
        return done

    def _groups(self, interfaces: Mapping[str, Interface], phase: str) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = defaultdict(list)
        for name, interface in interfaces.items():
            tokens = self.budget.plan(interface.phases).get(phase)
            if tokens:
                groups[tokens].append(name)
        return groups

    def _train(self, done: Trained, names: list[str], phase: str, tokens: int) -> None:
        self.say(f"training {' and '.join(names)}: {phase}")
        trainees = [Trainee(n, done.interfaces[n], self.config, phase) for n in names]
        train(
            trainees,
            self.data,
            self.backbone,
            tokens=tokens,
            seed=self.seed,
            checkpoint=self.folder / f"training-{phase}-{tokens}.safetensors",
            keep=self._keep if phase == "diffusion" else _forget,
        )
        for trainee in trainees:
            done.spent[trainee.name][phase] = trainee.spent
            done.curves[trainee.name][phase] = trainee.curve

    def _keep(self, name: str, interface: Interface, share: float) -> None:
        save_interface(kept_weights(self.folder, name, share), interface)

    def _settle(self, done: Trained, name: str, phase: str) -> None:
        """Finish a recovery phase: statistics, a look at its accuracy, and a copy to share."""
        if phase != "recovery":
            return
        interface = done.interfaces[name]
        interface.settle(self._batches(interface))
        facts: dict[str, Any] = {
            "spent": done.spent[name][phase].to_dict(),
            "curve": done.curves[name][phase],
            "accuracy": self._accuracy(interface),
        }
        save_phase(self._shared_file(name, interface, phase), interface, facts)
        self._check(name, interface, facts["accuracy"])

    def _load_shared(self, done: Trained, name: str, phase: str) -> bool:
        if phase != "recovery":
            return False
        interface = done.interfaces[name]
        file = self._shared_file(name, interface, phase)
        if not file.exists():
            return False
        facts = load_phase(file, interface)
        self.fit(interface)  # its condition may be another than that of the run which trained it
        self.say(f"{name}: its {phase} phase is there already")
        done.spent[name][phase] = Spent(**facts["spent"])
        done.curves[name][phase] = facts["curve"]
        self._check(name, interface, facts["accuracy"])
        return True

    def _check(self, name: str, interface: Interface, accuracy: float) -> None:
        if accuracy < interface.least_accuracy:
            raise UserError(
                f"{name} recovers {accuracy:.1%} of the tokens from their true signal, less than "
                f"the {interface.least_accuracy:.0%} that diffusion needs; give its recovery more "
                "budget.recovery_tokens or a wider signal."
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

    def _shared_file(self, name: str, interface: Interface, phase: str) -> Path:
        """Return where the phase lies; its name is a digest of all that it depends on."""
        depends: dict[str, Any] = {
            "interface": name,
            "origin": f"{type(interface).__module__}:{type(interface).__qualname__}",
            "options": asdict(interface.options) if interface.options else None,
            "key": interface.recovery_key(),
            "backbone": self.backbone.info.fingerprint,
            "text": [self.data.fingerprint, self.data.window],
            "tokens": self.budget.plan(interface.phases)[phase],
            "train": asdict(self.config),
            "seed": self.seed,
        }
        return self.shared / f"{name}-{phase}-{short_hash(depends)}.safetensors"


def kept_weights(folder: Path, name: str, share: float) -> Path:
    """Return where the weights lie that an interface had after a share of its diffusion phase."""
    return folder / "weights" / f"{name}@{share:.0%}.safetensors"


def _forget(name: str, interface: Interface, share: float) -> None:
    """Keep nothing."""
