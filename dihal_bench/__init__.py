"""dihal-bench: where should diffusion enter a pretrained language model?

The public names are imported at first use, so that ``import dihal_bench`` stays cheap::

    from dihal_bench import RunConfig, run

    record = run(RunConfig(layer="middle"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dihal_bench.core import moved

if TYPE_CHECKING:
    from dihal_bench.config.schema import RunConfig
    from dihal_bench.core.errors import UserError
    from dihal_bench.core.registry import DENOISERS, INTERFACES, SAMPLERS
    from dihal_bench.models.model import Backbone
    from dihal_bench.results.record import Record, Score
    from dihal_bench.runs.execute import run

__version__ = "0.1.0"
__all__ = [
    "DENOISERS",
    "INTERFACES",
    "SAMPLERS",
    "Backbone",
    "Record",
    "RunConfig",
    "Score",
    "UserError",
    "run",
]

_HOMES = {
    "Backbone": "dihal_bench.models.model",
    "DENOISERS": "dihal_bench.core.registry",
    "INTERFACES": "dihal_bench.core.registry",
    "Record": "dihal_bench.results.record",
    "RunConfig": "dihal_bench.config.schema",
    "SAMPLERS": "dihal_bench.core.registry",
    "Score": "dihal_bench.results.record",
    "UserError": "dihal_bench.core.errors",
    "run": "dihal_bench.runs.execute",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


moved.install()
