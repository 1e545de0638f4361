"""All phases of all interfaces of a run, in order; what several runs share is trained once."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core import distributed, kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import lock, short_hash
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import PHASES
from dihal_bench.interfaces.validate import source_hash
from dihal_bench.training.checkpoint import load_phase, save_interface, save_phase, weights_file
from dihal_bench.training.ledger import TrainingCost
from dihal_bench.training.trainee import TrainState
from dihal_bench.training.trainer import SHARES, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone
    from dihal_bench.training.config import BudgetConfig, TrainConfig

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
    spent: dict[str, dict[str, TrainingCost]]
    curves: dict[str, dict[str, list[dict[str, float]]]]

    @classmethod
    def begin(cls, interfaces: Mapping[str, Interface]) -> Trained:
        """Nothing is trained yet."""
        return cls(
            interfaces=dict(interfaces),
            spent={name: {} for name in interfaces},
            curves={name: {} for name in interfaces},
        )


@dataclass(frozen=True, kw_only=True)
class PhaseRunner:
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
        identity: of an interface: its code, its options, its other settings.
        settings: the optimiser's, as far as they tell runs apart.
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
    identity: Callable[[Interface], Mapping[str, Any]]
    settings: Mapping[str, Any]
    say: Callable[[str], None]

    def run(self, interfaces: Mapping[str, Interface]) -> Trained:
        """Train every phase that an interface declares, side by side where steps agree.

        Raises:
            UserError: a loss is not finite, or a recovery is too poor to go on with.
        """
        done = train_together([(self, interfaces)])[0]
        for name, interface in done.interfaces.items():
            save_interface(weights_file(self.folder, name), interface, near=self.shared)
        return done

    def pupils(self, interfaces: Mapping[str, Interface], phase: str) -> list[PhaseTask]:
        """Return those that have something to learn in a phase."""
        return [
            PhaseTask(trainer=self, name=name, interface=interface, tokens=tokens)
            for name, interface in interfaces.items()
            if (tokens := self.budget.plan(interface.phases).get(phase))
        ]

    def file(self, name: str, interface: Interface, phase: str) -> Path:
        """Return where a finished phase lies; its name is a digest of all that it depends on."""
        plan, own = self.budget.plan(interface.phases), self.identity(interface)
        depends: dict[str, Any] = {
            **{name: own[name] for name in ("code", "options")},
            "key": interface.recovery_key(),
            "backbone": self.backbone.info.fingerprint,
            "text": [self.data.fingerprint, self.data.window],
            "tokens": {"recovery": plan.get("recovery")},
            "train": self.settings,
            "seed": self.seed,
        }
        if phase == "diffusion":
            depends |= {"config": own["config"], "span": asdict(interface.span), "tokens": plan}
        return self.shared / f"{name}-{phase}-{short_hash(depends)}.safetensors"

    def take(self, done: Trained, name: str, phase: str) -> None:
        """Load a finished phase, and look whether its recovery is good enough."""
        interface = done.interfaces[name]
        facts = load_phase(self.file(name, interface, phase), interface)
        if facts.get("source") not in (None, source_hash(type(interface))):
            self.say(
                f"{name}: its code was edited since its {phase} was trained, which is kept; raise "
                "TRAINING_VERSION if it trains otherwise now"
            )
        self.fit(interface)  # its condition may be another than that of the run which trained it
        done.spent[name][phase] = TrainingCost(**facts["spent"])
        done.curves[name][phase] = facts["curve"]
        if facts["accuracy"] < interface.least_accuracy:
            raise UserError(
                f"{name} recovers {facts['accuracy']:.1%} of the tokens from their true signal, "
                f"less than the {interface.least_accuracy:.0%} that diffusion needs; give its "
                "recovery more budget.recovery_tokens or a wider signal."
            )

    def accuracy(self, interface: Interface) -> float:
        """Return the share of held-out tokens that a recovery gets right from true signals.

        A copy is tried: held-out text leaves nothing behind in what is saved.
        """
        interface = copy.deepcopy(interface, {id(interface.backbone): interface.backbone})
        count = min(_ACCURACY_WINDOWS, len(self.held_out))
        windows = self.held_out.batch(range(count))
        batch = Batch.of(windows, self.backbone, layers=interface.layers)
        return recovery_accuracy(interface, batch)

    def batches(self, interface: Interface) -> Iterator[Batch]:
        """Yield training text that a trained recovery is settled on."""
        count = min(_SETTLING_WINDOWS, len(self.data))
        for lo in range(0, count, _SETTLING_BATCH):
            windows = self.data.draw(self.seed, lo, min(_SETTLING_BATCH, count - lo))
            yield Batch.of(windows, self.backbone, layers=interface.layers)


@dataclass(frozen=True, kw_only=True)
class PhaseTask:
    """An interface in a phase, and the run that it is trained for.

    Attributes:
        trainer: of the run.
        name: of the interface in the run.
        interface: as it enters the phase.
        tokens: of the phase.
    """

    trainer: PhaseRunner
    name: str
    interface: Interface
    tokens: int


def train_together(parts: Sequence[tuple[PhaseRunner, Mapping[str, Interface]]]) -> list[Trained]:
    """Train the interfaces of several runs, phase by phase, on one teacher pass per batch.

    The runs must have text, optimiser and seed in common. What comes of each is what would come of
    it alone: its noise, its weights and its optimiser are its own.

    Args:
        parts: a run's trainer and its interfaces, fitted and not yet trained.

    Raises:
        UserError: a loss is not finite, or a recovery is too poor to go on with.
    """
    done = [Trained.begin(interfaces) for _, interfaces in parts]
    for phase in PHASES:
        pupils = [trainer.pupils(interfaces, phase) for trainer, interfaces in parts]
        _complete([pupil for own in pupils for pupil in own], phase)
        for trained, own in zip(done, pupils, strict=True):
            for pupil in own:
                pupil.trainer.take(trained, pupil.name, phase)
    return done


def _complete(pupils: Sequence[PhaseTask], phase: str) -> None:
    """Train what is missing of a phase, and wait for what another process is training."""
    for tokens in dict.fromkeys(pupil.tokens for pupil in pupils):
        wanted = {
            pupil.trainer.file(pupil.name, pupil.interface, phase): pupil
            for pupil in pupils
            if pupil.tokens == tokens
        }
        while missing := _missing(list(wanted), phase, quiet=True):
            with ExitStack() as claims:
                held = [f for f in missing if claims.enter_context(lock(f, wait=False))]
                mine = {file: wanted[file] for file in _missing(held, phase)}
                if mine:
                    _train(mine, phase, tokens)
            if not held:
                first = wanted[missing[0]]
                first.trainer.say(f"waiting for {first.name}, whose {phase} another run trains")
                with lock(missing[0], wait=True):
                    pass


def _missing(files: Sequence[Path], phase: str, *, quiet: bool = False) -> list[Path]:
    """Return those that are not there or not intact, as the main process sees it."""

    def usable(file: Path) -> bool:
        shares = SHARES if phase == "diffusion" and file.exists() else ()
        own = [file, *(kept_weights(file, share) for share in shares)]
        damaged = [path for path in own if not kept.usable(path, quiet=quiet)]
        return not damaged

    return distributed.on_main(lambda: [file for file in files if not usable(file)])


def _forget(files: Iterable[Path], checkpoint: Path) -> None:
    """Take away a finished phase of which something is damaged, to train it from its beginning."""
    damaged = [file for file in files if file.exists()]
    for path in [checkpoint, *damaged] if damaged else []:
        path.unlink(missing_ok=True)


def _train(pupils: Mapping[Path, PhaseTask], phase: str, tokens: int) -> None:
    """Train a phase side by side and write what came of it, each into its own file."""
    one = next(iter(pupils.values())).trainer
    labels = _labels(pupils)
    one.say(f"training {' and '.join(labels)}: {phase}")
    files = dict(zip(labels, pupils, strict=True))
    trainees = [
        TrainState(label, pupil.interface, one.config, phase)
        for label, pupil in zip(labels, pupils.values(), strict=True)
    ]

    def keep(label: str, interface: Interface, share: float) -> None:
        save_phase(kept_weights(files[label], share), interface, phase, {})

    alone = all(pupil.trainer is one for pupil in pupils.values())
    parts = labels if alone else [short_hash([file.stem for file in pupils])]
    checkpoint = one.folder / f"training-{'-'.join([phase, *parts])}.safetensors"
    distributed.on_main(lambda: _forget(pupils, checkpoint))
    train(
        trainees,
        one.data,
        one.backbone,
        tokens=tokens,
        seed=one.seed,
        checkpoint=checkpoint,
        keep=keep,
    )
    for trainee, pupil in zip(trainees, pupils.values(), strict=True):
        facts = {"spent": trainee.spent.to_dict(), "curve": trainee.curve, "accuracy": 1.0}
        facts["source"] = source_hash(type(pupil.interface))
        if phase == "recovery":
            pupil.interface.settle(pupil.trainer.batches(pupil.interface))
            facts["accuracy"] = pupil.trainer.accuracy(pupil.interface)
        save_phase(files[trainee.name], pupil.interface, phase, facts)


def _labels(pupils: Mapping[Path, PhaseTask]) -> list[str]:
    """Return names that tell pupils apart: the interface's, with its span, or its file's."""
    names = [p.name for p in pupils.values()]
    spans = [f"{p.name}@{p.interface.span.a}-{p.interface.span.b}" for p in pupils.values()]
    files = [file.stem for file in pupils]
    return next(some for some in (names, spans, files) if len(set(some)) == len(some))


def kept_weights(file: Path, share: float) -> Path:
    """Return where the weights lie that belong to a share of the phase that ends in ``file``."""
    return file.with_name(f"{file.stem}@{share:.0%}{file.suffix}")
