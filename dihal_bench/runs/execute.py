"""Do a run, or what is left of it, and make the record of it all: gates, scores, costs."""

from __future__ import annotations

import datetime
import shlex
import sys
import time
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dihal_bench.config.choices import plain
from dihal_bench.config.identity import evaluated_as, identity
from dihal_bench.config.resolve import kept
from dihal_bench.core import distributed, environment
from dihal_bench.core.registry import code_of
from dihal_bench.data.tokens import evaluation_windows
from dihal_bench.evaluation.aggregate import Measured
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.cost import cost
from dihal_bench.evaluation.document_sums import to_plain
from dihal_bench.evaluation.evaluate import check_gates, evaluate, gates_of, scores_on_the_way
from dihal_bench.evaluation.reconstruction import bridgeability, oracle
from dihal_bench.interfaces.batch import Batch
from dihal_bench.results.migrations import SCHEMA
from dihal_bench.results.record import Record
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.folder import claimed, run_folder
from dihal_bench.runs.fresh import prover
from dihal_bench.training.config import TRUNK_TOLERANCE
from dihal_bench.training.shares import check_shares
from dihal_bench.training.trainer import SHARES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.evaluation.cost import Cost
    from dihal_bench.geometry.locate import Located
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.runs.inputs import Inputs

_STAYS = ("run", "environment", "tasks", "audits")  # of a record whose run is scored anew
_CURVE_DEPENDS = ("tokens", "steps", "oracle_tokens", "batch")  # settings of scores on the way


def _continued(earlier: Record, made: dict[str, Any]) -> dict[str, Any]:
    """Return what was scored anew with what an earlier record has besides.

    That is where the run was trained, and its scores on other tasks, which have settings of their
    own. Where it was scored anew stands beside it.
    """
    data = earlier.data
    tasks = data.get("tasks", {})
    others = [score for score in data["scores"] if score["task"] in tasks]
    stays = {name: data[name] for name in _STAYS if name in data}
    scored = {"scores": [*made["scores"], *others], "evaluated": made["environment"]}
    return {**made, **stays, **scored}


class RecordBuilder:
    """The judgement of a job's trained interfaces; each step keeps its result in the folder."""

    def __init__(self, job: RunContext):
        self.job = job
        self.config = job.config
        self.inputs = job.inputs

    def record(self, command: str) -> Record:
        """Do everything that is not done yet and assemble the record."""
        config, text = self.config, self.inputs.validation_text
        digests = self.job.digests()
        proof = None if self.inputs.backbone.sharded else prover(self.job, digests)
        if proof:
            proof.ready()
        gates, seconds = self._gates()
        interfaces = self.job.renewed(digests)
        self.job.say("scoring")
        scores, sums = evaluate(interfaces, self._scorer, config.score, self._measured(), proof)
        if proof:
            gates = gates_of(gates, proof.results)
            seconds += sum(proof.seconds)
        costs = {n: cost(i, text, steps=config.score.steps[-1]) for n, i in interfaces.items()}
        results = {
            "locate": self.job.located.to_dict() if self.job.locates else {},
            "bridge": self._bridge(),
            "costs": {name: own.to_dict() for name, own in costs.items()},
            "scores": [score.to_dict() for score in scores],
            "sums": to_plain(sums),
            "gates": {"leak": gates, "seconds": seconds},
            "weights": digests,
        }
        made = {**self._identity(command), **self._inputs(), **self._budget(costs), **results}
        return Record.of(made if self.job.finished is None else _continued(self.job.finished, made))

    def _gates(self) -> tuple[dict[str, dict[str, Any]], float]:
        """Change tokens of the run's own text; return what moved, and in how many seconds."""
        began = time.monotonic()
        self.job.say("leak gate")
        gates = check_gates(self.job.trained.interfaces, self.inputs.validation_text, self._scorer)
        seconds = time.monotonic() - began
        return {name: gate.to_dict() for name, gate in gates.items()}, seconds

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
        trained, file = self.job.trained.interfaces, self.job.trainer.file
        found = scores_on_the_way(trained, file, part, config)
        if found and len({point["share"] for point in found}) <= len(SHARES):
            self.job.say(
                "weights at shares of the budget are not kept any more: the curve lacks them"
            )
        return found

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
                "args": plain(replace(interface.config, options=interface.options)),
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


def run(
    config: RunConfig,
    *,
    out: Path | None = None,
    shared: Path | None = None,
    inputs: Inputs | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[Located], None] = lambda located: None,
) -> Record:
    """Do the whole job, or what is left of it.

    A run that is complete and was scored with other settings is scored anew; nothing is trained.

    Args:
        config: everything that decides the result.
        out: the run's folder; by default the one that ``run_folder`` says.
        shared: where lies what several runs have in common; by default in ``out``.
        inputs: backbone and text, if they are loaded already.
        command: the command line, for the record.
        say: takes one-line messages for a person.
        show: is called with the located layers, if any, before anything is trained.

    Returns:
        The record, read from the folder if the run was complete already.

    Raises:
        UserError: the configuration cannot be run, or the folder holds another run.
    """
    check_shares(config.train)
    folder = run_folder(config, out)
    job = RunContext(config, folder, say, shared=shared, inputs=inputs)
    with claimed(folder, config):
        done = folder / "record.json"
        earlier = Record.read(done) if distributed.on_main(done.exists) else None
        if earlier is not None and evaluated_as(earlier.data["config"], config):
            say(f"already complete: {done}")
            return earlier
        job.check_span()
        job.inputs.check(folder)
        if earlier is not None:
            say(f"trained already: {done} was scored with other settings, and is scored anew")
            job.finished = earlier
        elif job.locates:
            show(job.located)
        record = RecordBuilder(job).record(command or shlex.join(sys.argv))
        record.write(done)
        return record
