"""A finished run as a model of lm-eval (0.4.13), which calls it ``dihal-bench``.

It is offered through the entry point group ``lm_eval.models`` to versions that look there::

    import dihal_bench.runs.lm_eval_model
    lm_eval.simple_evaluate("dihal-bench", "run=runs/hidden-...,steps=16", tasks=["arc_easy"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.registry import register_model

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.evaluation.lm_eval_model import InterfaceLM
from dihal_bench.runs.finished import FinishedRun

if TYPE_CHECKING:
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone


@register_model("dihal-bench")
class DihalLM(InterfaceLM):
    """What a run has trained, or its teacher."""

    def __init__(
        self,
        run: str | None = None,
        *,
        interface: str = "",
        steps: int | str = 0,
        max_length: int | str = 0,
        device: str | None = None,
        **others: Any,
    ):
        """Load it.

        Args:
            run: folder of a run.
            interface: which one of the run; by default the run's own; "teacher".
            steps: network evaluations per chain; 0: the run's most.
            max_length: tokens of a window before the last target; 0: the run's window less one.
            device: another one than the run's.
            others: of ``InterfaceLM``, and what else lm-eval passes to a model.

        Raises:
            UserError: the run cannot be read, or the interface has no likelihood of texts.
        """
        if run is None:
            raise UserError("dihal-bench as a model of lm-eval needs run=FOLDER.")
        source, most, window = _trained(Path(run), interface, device)
        super().__init__(
            source, steps=int(steps) or most, max_length=int(max_length) or window, **others
        )


def _trained(folder: Path, name: str, device: str | None) -> tuple[Interface | Backbone, int, int]:
    """Return what a run has trained, its most steps, and its windows' tokens but the last."""
    run = FinishedRun(folder, device=device)
    run.check()
    name = name or run.name
    source = run.inputs.backbone if name == TEACHER else run.interface(name)
    return source, run.config.score.steps[-1], run.config.text.window - 1
