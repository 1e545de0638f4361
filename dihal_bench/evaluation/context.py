"""What every task is given: who is scored, and what with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dihal_bench.evaluation.evaluate import traits_of
from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER
from dihal_bench.results.record import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dihal_bench.config.schema import ScoreConfig
    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.evaluation.aggregate import Traits
    from dihal_bench.evaluation.rescoring import Prover
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone


@dataclass(frozen=True)
class System:
    """A row: who it is, in how many steps; traits of the teacher are None."""

    subject: str
    writer: Backbone | Interface
    steps: int = 1
    traits: Traits | None = None

    @property
    def evaluations(self) -> int:
        """Network evaluations per place of one chain."""
        return self.traits.evaluations(self.steps) if self.traits else 1

    @property
    def stochastic(self) -> bool:
        """Whether chains differ."""
        return bool(self.traits and self.traits.stochastic)


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """What tasks are done with.

    Attributes:
        teacher: the backbone.
        interfaces: by name; the first is the one that is benchmarked.
        trained_on: text that interfaces were trained on, then whatever else is not for validation:
            the backbone may know it.
        validation: text that was not.
        window: tokens per window.
        regime: "causal" or "sequence".
        block: tokens per block in the sequence regime.
        dtype: of the arithmetic.
        config: of teacher-forced scores.
        seed: of intervals.
        folder: where scores of weights are kept.
        say: takes one-line messages for a person.
        prover: proves that no likelihood rests on what comes after; None: nobody does.
    """

    teacher: Backbone
    interfaces: dict[str, Interface]
    trained_on: Sequence[PackedTokens]
    validation: PackedTokens
    window: int
    regime: str
    block: int
    dtype: str
    config: ScoreConfig
    seed: int
    folder: Path
    say: Callable[[str], None]
    prover: Prover | None = None

    @property
    def sources(self) -> list[System]:
        """The teacher, and every interface in every number of steps."""
        return [
            System(TEACHER, self.teacher),
            *(
                System(name, interface, steps, traits_of(interface))
                for name, interface in self.interfaces.items()
                for steps in steps_of(interface, self.config.steps)
            ),
        ]

    def score(
        self, source: System, task: str, *, chains: int = 1, signal: str = SAMPLED, **fields: Any
    ) -> Score:
        """Return a score of a row.

        Args:
            source: the row.
            task: name of the task.
            chains: that it rests on, where chains differ.
            signal: see ``Score``.
            fields: the others of a ``Score``.
        """
        count = chains if source.stochastic else 1
        return Score(
            subject=source.subject,
            task=task,
            regime=self.regime,
            dtype=self.dtype,
            steps=source.steps,
            chains=count,
            nfe=source.evaluations * count,
            signal=signal,
            **fields,
        )


@dataclass(frozen=True)
class TaskResult:
    """What came of a task.

    Attributes:
        scores: for the record.
        audit: what the record keeps beside them; empty: nothing.
        files: file name -> writer of what else is kept in the run's folder.
    """

    scores: list[Score]
    audit: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Callable[[Path], object]] = field(default_factory=dict)


class Task(Protocol):
    """Something that a run can be scored on."""

    @property
    def name(self) -> str:
        """What it is called, and what its scores name."""

    @property
    def gated(self) -> bool:
        """Whether it gives likelihoods."""

    @property
    def generates(self) -> bool:
        """Whether it needs text token by token, and so the backbone's cached pass."""

    @property
    def joint(self) -> bool:
        """Whether rows are compared in pairs, so that all are to be scored together."""

    def ensemble(self, config: ScoreConfig) -> int:
        """Return how many chains its rows rest on, where chains differ."""

    def to_dict(self) -> dict[str, Any]:
        """Return all that its scores depend on, its version too."""

    def perform(self, bench: EvalContext) -> TaskResult:
        """Score everybody.

        Raises:
            UserError: it cannot be done with this interface, text or judge.
        """


def steps_of(interface: Interface | type[Interface], steps: Sequence[int]) -> list[int]:
    """Return in how many steps an interface is scored, of those that are asked for."""
    if interface.stochastic:
        return sorted(set(steps))
    return [max(steps)] if interface.iterative else [1]
