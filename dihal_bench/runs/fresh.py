"""A run's interfaces, built in a fresh process from what lies on disk."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.config.resolve import kept
from dihal_bench.config.schema import AUTO
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES, code_of
from dihal_bench.evaluation.rescoring import Prover
from dihal_bench.runs.context import RunContext
from dihal_bench.training.checkpoint import weights_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone

_BUILD = "dihal_bench.runs.fresh:build"
_FILLER = 1 << 16  # tokens


def prover(job: RunContext, digests: Mapping[str, str]) -> Prover:
    """Return what a fresh process needs to score a run's rows anew.

    Args:
        job: trained.
        digests: of its files of weights.

    Raises:
        UserError: an interface or denoiser is written where no other process finds it.
    """
    config, folder = job.config, job.folder.resolve()
    if config.layer == AUTO and job.locates:
        own = next(name for name in job.names if not INTERFACES.get(name).bears_tokens)
        config = replace(config, layer=str(job.span(own).b))
    kinds = [*map(INTERFACES.get, job.names), DENOISERS.get(config.denoiser.name)]
    for kind in kinds:
        if kind.__module__ == "__main__":
            raise UserError(
                f"{kind.__name__} is written in the main program, and the fresh process that "
                "scores anew cannot import that; write it into a file, and give it by --include."
            )
    text = job.inputs.training_text
    return Prover(
        build=_BUILD,
        facts={
            "config": config.to_dict(),
            "folder": str(folder),
            "weights": dict(digests),
            "modules": [kind.__module__ for kind in kinds if "#" not in code_of(kind)],
        },
        filler=text.stream(min(_FILLER, text.tokens)).astype(np.int64),
        began=job.inputs.loaded,
        own=tuple(str(weights_file(folder, name)) for name in digests),
    )


def build(facts: Mapping[str, Any]) -> tuple[dict[str, Interface], Backbone]:
    """Return the interfaces with their weights, and their backbone.

    Raises:
        UserError: an interface is written where this process cannot find it, or its weights are
            others than they were.
    """
    for name in facts["modules"]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"the module {name} cannot be imported by the fresh process that scores anew "
                f"({error}); write what it registers into a file, and give that by --include."
            ) from error
    job = RunContext(kept(facts["config"]), Path(facts["folder"]))
    interfaces = {name: job.loaded(name, digest) for name, digest in facts["weights"].items()}
    return interfaces, job.inputs.backbone
