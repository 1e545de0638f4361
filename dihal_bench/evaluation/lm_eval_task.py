"""Tasks in lm-eval's format: rolling perplexity in our own windows, everything else by lm-eval."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import random
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.aggregate import Measured
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.context import EvalContext, System, TaskResult
from dihal_bench.evaluation.evaluate import evaluate
from dihal_bench.evaluation.likelihood import SAMPLED
from dihal_bench.evaluation.likelihood import VERSION as LIKELIHOOD
from dihal_bench.evaluation.rolling_windows import Document, RollingText

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dihal_bench.config.schema import ScoreConfig
    from dihal_bench.results.record import Score

ROLLING = "loglikelihood_rolling"
OUTPUT_TYPES = (ROLLING, "loglikelihood", "multiple_choice", "generate_until")
VERSION = 1  # of what is done with lm-eval's results
_RESAMPLES = 200  # of lm-eval's own errors, where it has none in closed form
_GENERATED = "generated"
_LEAST = 2  # documents


@dataclass(frozen=True, kw_only=True)
class LmEvalTask:
    """A task file of lm-eval.

    Attributes:
        name: of the task.
        path: of its file.
        kind: its output_type.
        limit: documents that are scored at most; 0: all.
    """

    name: str
    path: Path
    kind: str
    limit: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise UserError(f"--limit {self.limit} must be 1 or more, or 0 for all documents.")

    @property
    def gated(self) -> bool:
        """All but generated answers rest on likelihoods."""
        return not self.generates

    @property
    def generates(self) -> bool:
        """Whether answers are generated."""
        return self.kind == "generate_until"

    @property
    def joint(self) -> bool:
        """Rolling perplexities are compared in pairs; scores of the same weights are kept."""
        return self.kind == ROLLING

    def ensemble(self, config: ScoreConfig) -> int:
        """Ensembles are of teacher-forced scores; lm-eval asks single chains."""
        return config.chains if self.kind == ROLLING else 1

    def to_dict(self) -> dict[str, Any]:
        """Return what its scores depend on: its files, resolved, its documents, lm-eval."""
        named = re.findall(r"!function\s+(\w+)\.", self.path.read_text(encoding="utf-8"))
        files = [self.path.parent / f"{module}.py" for module in sorted(set(named))]
        beside = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file()
        }
        task, documents = self.loaded, hashlib.sha256()
        for doc in self._limited(task):
            documents.update(repr(doc).encode())
        if task.config.num_fewshot:
            for doc in task.fewshot_docs():
                documents.update(repr(doc).encode())
        return {
            "name": self.name,
            "file": self.path.name,
            "beside": beside,
            "config": task.config.to_dict(),  # with what is included, and functions' source
            "documents": documents.hexdigest(),
            "limit": self.limit,
            "scorer": [VERSION, LIKELIHOOD, metadata.version("lm_eval")],
        }

    def perform(self, bench: EvalContext) -> TaskResult:
        """Score rolling perplexity in our own windows, and leave the rest to lm-eval."""
        if self.kind == ROLLING:
            return TaskResult(self._rolling(bench))
        return TaskResult(
            [score for one in bench.sources for score in _by_lm_eval(self, one, bench)]
        )

    def _rolling(self, bench: EvalContext) -> list[Score]:
        """Return every teacher-forced score, on the same windows for all rows."""
        text = RollingText(
            self.documents(),
            bench.teacher.tokenizer,
            window=bench.window,
            whole=not bench.block,
        )
        rows = (text.batch([index]).tokens[0] for index in range(len(text)))
        bench.teacher.check_ids(rows, f"task {self.name}")
        if text.skipped:
            bench.say(f"task {self.name}: {text.skipped} blank documents are left out")
        if text.documents < _LEAST:
            raise UserError(
                f"task {self.name} has a single document, and an interval needs several; give more."
            )
        scorer = ScoreCache(
            data=text,
            backbone=bench.teacher,
            windows=range(len(text)),
            batch=bench.config.batch,
            block=bench.block,
            folder=bench.folder,
        )
        measured = Measured(
            task=self.name,
            regime=bench.regime,
            dtype=bench.dtype,
            resamples=bench.config.resamples,
            seed=bench.seed,
        )
        scores, _ = evaluate(bench.interfaces, scorer, bench.config, measured, bench.prover)
        return scores

    @cached_property
    def loaded(self) -> Any:
        """lm-eval's task, with its documents.

        Relative paths of data files are those beside the task file: lm-eval itself takes them from
        wherever it was started.

        Raises:
            UserError: lm-eval cannot make a task of the file, or its data are not to be had.
        """
        manager = task_manager()
        try:
            with _quiet(), contextlib.chdir(self.path.parent):
                found = manager.load([str(self.path)])["tasks"]
        except Exception as error:  # of lm-eval, datasets, the hub, or the file's own functions
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"task {self.path}: lm-eval cannot load it ({type(error).__name__}: "
                f"{reason[:300]}); mend the file, or put its data where it looks for them."
            ) from error
        if len(found) != 1:
            raise UserError(f"--tasks {self.name} is a group of {len(found)} tasks; name them.")
        return next(iter(found.values()))

    def documents(self) -> list[Document]:
        """Return the targets of a rolling task, with the counts that it wants."""
        found, task = [], self.loaded
        for doc in self._limited(task):
            text = task.doc_to_target(doc)
            if not isinstance(text, str):
                raise UserError(
                    f"task {self.name}: a target is a {type(text).__name__}, not a text; give the "
                    "name of the column as doc_to_target, not a template, which lm-eval evaluates "
                    "where it looks like a list."
                )
            counts = task.process_results(doc, (0.0,))
            words = counts.get("word_perplexity", (0.0, len(text.split())))[1]
            size = counts.get("byte_perplexity", counts.get("bits_per_byte"))
            found.append(Document(text, int(words), int(size[1] if size else len(text.encode()))))
        return found

    def _limited(self, task: Any) -> Iterator[Any]:
        for index, doc in enumerate(task.eval_docs):
            if self.limit and index >= self.limit:
                return
            yield doc


def _by_lm_eval(task: LmEvalTask, source: System, bench: EvalContext) -> list[Score]:
    """Return what lm-eval itself scores of a row: multiple choice, generation until, and so on.

    Intervals are those of lm-eval's standard errors; where it gives none, the value alone.
    """
    from lm_eval import simple_evaluate

    from dihal_bench.evaluation.lm_eval_model import InterfaceLM

    bench.say(f"lm-eval: {task.name}, {source.subject} S={source.steps}")
    _check_length(task, bench.window - 1)
    with _quiet():
        model = InterfaceLM(
            source=source.writer,
            steps=source.steps,
            max_length=bench.window - 1,
            batch_size=bench.config.batch,
        )
    with _own_randomness(), _quiet(), _no_git():
        found = simple_evaluate(
            model=model,
            tasks=[task.loaded],
            limit=task.limit or None,
            bootstrap_iters=_RESAMPLES,
            log_samples=False,
            task_manager=task_manager(),  # its own would index all of lm-eval's tasks each time
        )
    if found is None:  # lm-eval gathers results in one process of several
        raise UserError(
            f"task {task.name} is scored by lm-eval, which answers one process only; start "
            "dihal-bench score without torchrun or accelerate launch."
        )
    if model.truncated:
        bench.say(
            f"task {task.name}: the beginnings of {model.truncated} requests are cut off, which "
            f"exceed the run's windows of {bench.window} tokens"
        )
    results: dict[str, Any] = next(iter(found["results"].values()))
    count = next(iter(found["n-samples"].values()))["effective"]
    return list(_scores(results, int(count), model.truncated, task, source, bench))


def _scores(
    results: Mapping[str, Any],
    count: int,
    truncated: int,
    task: LmEvalTask,
    source: System,
    bench: EvalContext,
) -> Iterator[Score]:
    """Turn lm-eval's results, "metric,filter" -> number, into scores."""
    kind = "ensemble" if source.stochastic else "exact"
    for key, value in results.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        if not _is_number(value):
            bench.say(f"task {task.name}: no {metric} of {source.subject}: lm-eval gives {value}")
            continue
        error: Any = results.get(f"{metric}_stderr,{filtered}")
        half = 1.96 * error if _is_number(error) else None
        yield bench.score(
            source,
            task.name,
            signal=SAMPLED if task.gated else _GENERATED,
            metric=metric,
            value=float(value),
            lo=None if half is None else float(value) - half,
            hi=None if half is None else float(value) + half,
            kind=kind if task.gated else "estimate",
            n=count,
            unit="lm-eval",
            version=VERSION,
            details={"filter": filtered, "truncated": truncated},
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Keep lm-eval's seeding of all generators to itself."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide lm-eval's warnings that a model is given as an object, and what else it advises."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _no_git() -> contextlib.AbstractContextManager[Any]:
    """Keep lm-eval from asking git where it was started, which is said where there is none."""
    return mock.patch("lm_eval.evaluator.get_git_commit_hash", return_value=None)


def _check_length(task: LmEvalTask, longest: int) -> None:
    """Refuse answers that leave no room for a question: lm-eval would only assert."""
    wanted = (task.loaded.config.generation_kwargs or {}).get("max_gen_toks", 0)
    if task.kind == "generate_until" and int(wanted) >= longest:
        raise UserError(
            f"task {task.name} asks for {wanted} tokens, and the run's windows hold {longest}; "
            "give a smaller max_gen_toks."
        )


def task_manager(*, defaults: bool = False) -> Any:
    """Return lm-eval's task manager; to index lm-eval's own tasks takes seconds.

    Raises:
        UserError: lm-eval is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            "tasks in lm-eval's format need the package lm-eval: pip install 'dihal-bench[eval]'."
        ) from error
    return TaskManager(include_defaults=defaults)
