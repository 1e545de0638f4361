"""What comes of a trained run: gates, scores, reconstruction, costs, and the record of it all."""

from __future__ import annotations

import datetime
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.config.identity import identity
from dihal_bench.config.resolve import kept
from dihal_bench.core import environment
from dihal_bench.core.registry import code_of
from dihal_bench.data.selection import evaluation_windows
from dihal_bench.evaluation.aggregate import Measured
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.cost import cost
from dihal_bench.evaluation.document_sums import to_plain
from dihal_bench.evaluation.evaluate import check_gates, evaluate
from dihal_bench.evaluation.learning_curve import scores_on_the_way
from dihal_bench.evaluation.reconstruction import bridgeability
from dihal_bench.evaluation.recovery_under_noise import oracle
from dihal_bench.interfaces.batch import Batch
from dihal_bench.results.record import Record
from dihal_bench.results.schema import SCHEMA
from dihal_bench.training.budget import TRUNK_TOLERANCE

if TYPE_CHECKING:
    from dihal_bench.evaluation.cost import Cost
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.runs.context import RunContext


_STAYS = ("run", "environment", "tasks", "audits")  # of a record whose run is scored anew
_CURVE_DEPENDS = ("tokens", "steps", "oracle_tokens", "batch")  # settings of scores on the way


def _continued(earlier: Record, made: dict[str, Any]) -> dict[str, Any]:
    """Return what was scored anew with what an earlier record has besides.

    That is where the run was trained, and its scores on other tasks, which have settings of their
    own.
    """
    data = earlier.data
    tasks = data.get("tasks", {})
    others = [score for score in data["scores"] if score["task"] in tasks]
    stays = {name: data[name] for name in _STAYS if name in data}
    return {**made, **stays, "scores": [*made["scores"], *others]}


class RecordBuilder:
    """The judgement of a job's trained interfaces; each step keeps its result in the folder."""

    def __init__(self, job: RunContext):
        self.job = job
        self.config = job.config
        self.inputs = job.inputs

    def record(self, command: str) -> Record:
        """Do everything that is not done yet and assemble the record."""
        config, interfaces = self.config, self.job.trained.interfaces
        text = self.inputs.validation_text
        self.job.say("leak gate")
        gates = check_gates(interfaces, text, self._scorer)
        self.job.say("scoring")
        scores, sums = evaluate(interfaces, self._scorer, config.score, self._measured())
        costs = {n: cost(i, text, steps=config.score.steps[-1]) for n, i in interfaces.items()}
        results = {
            "locate": self.job.located.to_dict() if self.job.locates else {},
            "bridge": self._bridge(),
            "costs": {name: own.to_dict() for name, own in costs.items()},
            "scores": [score.to_dict() for score in scores],
            "sums": to_plain(sums),
            "gates": {"leak": {name: gate.to_dict() for name, gate in gates.items()}},
        }
        made = {**self._identity(command), **self._inputs(), **self._budget(costs), **results}
        return Record.of(made if self.job.finished is None else _continued(self.job.finished, made))

    def _learning_curve(self, part: ScoreCache) -> list[dict[str, Any]]:
        """Return the scores on the way; those of a run that is scored anew, if they can be told.

        They stay as they were where the settings that they depend on did.
        """
        config, finished = self.config.score, self.job.finished
        if finished is not None:
            before = kept(finished.data["config"]).score
            if all(getattr(before, n) == getattr(config, n) for n in _CURVE_DEPENDS):
                known: list[dict[str, Any]] = finished.data["bridge"]["progress"]
                return known
        return scores_on_the_way(self.job.trained.interfaces, self.job.trainer.file, part, config)

    def _measured(self) -> Measured:
        config = self.config
        return Measured(
            task=f"{config.corpus}:validation",
            regime=config.regime,
            dtype=config.dtype,
            resamples=config.score.resamples,
            seed=config.seed,
        )

    def _bridge(self) -> dict[str, Any]:
        """Reconstruction, recovery, and scores on the way, on a part of the evaluated windows."""
        config, scorer, interfaces = self.config.score, self._scorer, self.job.trained.interfaces
        text, windows = scorer.data, scorer.windows
        part = scorer.on(windows[:: max(1, len(windows) * text.window // config.oracle_tokens)])
        own = interfaces[self.config.interface]

        def reconstruct() -> dict[str, Any]:
            return bridgeability(
                own, text, windows=windows, batch=config.batch, steps=config.steps[-1]
            ).to_dict()

        def recover() -> dict[str, Any]:
            return oracle(own, text, windows=part.windows, batch=config.batch).to_dict()

        return {
            **scorer.facts(f"bridge{config.steps[-1]}", own, reconstruct),
            "denoiser": self._denoiser_oracle(own),
            "oracle": part.facts("oracle", own, recover),
            "progress": self._learning_curve(part),
            "curves": self.job.trained.curves,
        }

    @cached_property
    def _scorer(self) -> ScoreCache:
        text, config = self.inputs.validation_text, self.config
        return ScoreCache(
            data=text,
            backbone=self.inputs.backbone,
            windows=evaluation_windows(text, config.score.tokens),
            batch=config.score.batch,
            block=config.block_size,
            folder=self.job.shared,
        )

    def _denoiser_oracle(self, interface: Interface) -> dict[str, float]:
        """Ask the trunk what it loses of true signals before any noise is added."""
        if interface.trunk is None:
            return {}
        windows = self.inputs.validation_text.batch([0])
        batch = Batch.of(windows, self.inputs.backbone, layers=interface.layers)
        signal = interface.clean(batch).flatten(0, 1).detach()
        copies = interface.trunk.inputs // signal.shape[-1]  # it may see an earlier estimate too
        return interface.trunk.oracle(signal.repeat(1, copies))

    def _identity(self, command: str) -> dict[str, Any]:
        config, own = self.config, identity(self.config)
        interface = self.job.trained.interfaces[config.interface]
        return {
            "schema": SCHEMA,
            "run": f"{config.interface}-{own.training}",
            "code": dict(own.code),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command,
            "config": config.to_dict(),
            "interface": {
                "name": config.interface,
                "origin": code_of(type(interface)),
                "args": asdict(replace(interface.config, options=interface.options)),
                "controls": self.job.names[1:],
                "replaced": interface.span.replaced,
                "from": interface.span.a,
            },
            "regime": config.regime,
            "layer": interface.span.b,
            "layer_policy": "last" if interface.bears_tokens else config.layer,
        }

    def _inputs(self) -> dict[str, Any]:
        about = environment.describe(device=self.config.device, seed=self.config.seed)
        return {**self.inputs.describe(), "environment": about}

    def _budget(self, costs: dict[str, Cost]) -> dict[str, Any]:
        budget, trained, name = self.config.budget, self.job.trained, self.config.interface
        checked = budget.check(trained.interfaces[name].phases, trained.spent[name])
        checked["trunk"] = costs[name].trunk_parameters / self.job.trunk_parameters()
        checked["within"] &= abs(checked["trunk"] - 1) <= TRUNK_TOLERANCE
        spent = {
            name: {phase: one.to_dict() for phase, one in phases.items()}
            for name, phases in trained.spent.items()
        }
        return {"budget": {**asdict(budget), **checked}, "spent": spent}
