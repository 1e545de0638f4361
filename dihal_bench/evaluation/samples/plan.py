"""What is generated, and how it is scored: the settings of a task of generation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.generation import Choice
from dihal_bench.evaluation.samples.compat import COMPAT
from dihal_bench.evaluation.samples.metrics import measures
from dihal_bench.evaluation.samples.settings import LEAST, Settings


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """What is generated, and how it is scored.

    Attributes:
        name: of the task.
        count: samples of every row.
        tokens: of a sample: all are of one length, so that they can be compared.
        prefix: tokens of a real document that every sample continues; 0: whole documents.
        temperature: of the tokens.
        top_p: nucleus.
        chains: whose mean is drawn from.
        seed: of everything that is drawn.
        judge: "bundled-judge", a folder, or a hub id.
        audit: whether rows without a model are measured as well.
        temperatures: of the frontier; none: it is not drawn.
        batch: samples at a time; nothing depends on it.
        metrics: names of what is measured; empty: everything.
        compat: whose definition of generative perplexity is given besides; empty: nobody's.
        settings: of the metrics.
        version: of the task.
    """

    name: str
    count: int = 256
    tokens: int = 128
    prefix: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    chains: int = 1
    seed: int = 0
    judge: str = "bundled-judge"
    audit: bool = True
    temperatures: tuple[float, ...] = ()
    batch: int = 64
    metrics: tuple[str, ...] = ()
    compat: str = ""
    settings: Settings = field(default_factory=Settings)
    version: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (
            ("count", LEAST),
            ("tokens", 1),
            ("prefix", 0),
            ("batch", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(
                    f"task {self.name}: {name}={getattr(self, name)} must be {least} or more."
                )
        for temperature in (self.temperature, *self.temperatures):
            replace(self.choice, temperature=temperature)  # says what is out of range
        if self.compat and self.compat not in COMPAT:
            raise UserError(
                f"--compat {self.compat} is unknown; choose one of {', '.join(COMPAT)}."
            )
        known = measures()
        unknown = [name for name in self.metrics if name not in known]
        if unknown:
            raise UserError(
                f"task {self.name}: there is no metric {unknown[0]} of samples; those are "
                f"{', '.join(known)}."
            )

    @property
    def choice(self) -> Choice:
        """How tokens are drawn."""
        return Choice(temperature=self.temperature, top_p=self.top_p, seed=self.seed)
