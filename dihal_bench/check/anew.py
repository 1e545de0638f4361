"""Is what is scored a function of the prefix? A fresh process that knows nothing else tells.

The same test as in every run, on redrawn parameters: of one chain and of several, at one step and
at more, on a teacher in float32 and in bfloat16.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.check import sample
from dihal_bench.check.subject import PASSED, STEPS, Outcome, Subject, fail
from dihal_bench.config.resolve import kept
from dihal_bench.config.schema import RunConfig
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES, included_file
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.evaluate import score_rows
from dihal_bench.evaluation.likelihood import TEACHER, Row
from dihal_bench.evaluation.rescoring import Prover
from dihal_bench.training.checkpoint import load_interface, save_interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone

_BUILD = "dihal_bench.check.anew:build"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_WINDOWS, _BATCH, _CHAINS = range(16), 4, 4
_WEIGHTS = "weights.safetensors"


def scored_anew(subject: Subject) -> Outcome:
    """What is scored can be computed without what comes after."""
    for dtype in _DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                _prove(subject, dtype, Path(folder))
            except UserError as error:
                return fail(f"on a {dtype} teacher, {error}")
    return PASSED


def _prove(subject: Subject, dtype: str, folder: Path) -> None:
    began = time.time()
    save_interface(folder / _WEIGHTS, subject.redraw(dtype=_DTYPES[dtype]))
    facts = _facts(subject, dtype, folder)
    interface = _loaded(subject, dtype, folder)
    text = sample.text()
    prover = Prover(
        build=_BUILD,
        facts=facts,
        filler=text.batch(range(_WINDOWS.stop, sample.WINDOWS)).tokens.flatten(),
        began=began,
        own=(str(folder),),
        share=1.0,
    )
    scorer = ScoreCache(
        data=text,
        backbone=interface.backbone,
        windows=_WINDOWS,
        batch=_BATCH,
        block=interface.config.block,
    )
    rows = score_rows(interface, subject.name, steps=(1, STEPS), chains=_CHAINS)
    scorer.score([Row(subject=TEACHER), *rows], {subject.name: interface}, prover)


def _facts(subject: Subject, dtype: str, folder: Path) -> dict[str, Any]:
    """Return what ``build`` reads."""
    kinds = subject.kind, DENOISERS.get(subject.denoiser)
    section = subject.kind.section or subject.name
    config = RunConfig(
        include=tuple(dict.fromkeys(filter(None, map(included_file, kinds)))),
        options={} if subject.options is None else {section: subject.options},
        diffusion=subject.diffusion,
    )
    denoiser = replace(config.denoiser, name=subject.denoiser, options=subject.denoiser_options)
    return {
        "config": replace(config, denoiser=denoiser).to_dict(),
        "name": subject.name,
        "regime": subject.regime,
        "dtype": dtype,
        "folder": str(folder),
    }


def build(facts: Mapping[str, Any]) -> tuple[dict[str, Interface], Backbone]:
    """Return the interface that is checked, in a fresh process, and the teacher."""
    config = kept(facts["config"])
    kind = INTERFACES.get(facts["name"])
    subject = Subject(
        facts["name"],
        kind,
        facts["regime"],
        config.denoiser.name,
        denoiser_options=config.denoiser.options,
        diffusion=config.diffusion,
        options=config.options.get(kind.section or facts["name"]),
    )
    interface = _loaded(subject, facts["dtype"], Path(facts["folder"]))
    return {facts["name"]: interface}, interface.backbone


def _loaded(subject: Subject, dtype: str, folder: Path) -> Interface:
    interface = subject.new(_DTYPES[dtype])
    load_interface(folder / _WEIGHTS, interface)
    return interface
