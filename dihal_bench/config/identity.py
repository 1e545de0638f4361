"""What makes two configurations the same run, and two evaluations of a run the same.

*Training id*: what is trained. A hash of the training keys whose value differs from the frozen
``baseline``, of the content of a backbone or corpus that lies on this machine, of the code that is
not this package's, and of ``TRAINING_VERSION``. *Evaluation id*: the same, with the scoring keys
that differ. Device, threads, where things lie and what a budget is called are no part of either.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.config.baseline import BASELINE, VERSION_3
from dihal_bench.config.choices import RENAMED, plain
from dihal_bench.config.schema import RunConfig, flatten, keys_of
from dihal_bench.core.content import content_id
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import short_hash
from dihal_bench.core.registry import DENOISERS, INTERFACES, SAMPLERS, find
from dihal_bench.interfaces.validate import source_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dihal_bench.interfaces.base import Interface

TRAINING_VERSION = 1  # rises when an equal configuration trains differently
_SCORING = "score."  # begins the keys that decide nothing but what is evaluated
_NEITHER = ("device", "include", "budget.name")  # what is included counts by its content
_LYING = ("backbone", "corpus")  # may be paths: these count by their content


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Of a configuration.

    Attributes:
        training: what is trained; names folders and records.
        evaluation: that, and how it is scored.
        code: name -> digest of every file of code that is not this package's.
        content: key -> digest of what lies at the path that it names.
    """

    training: str
    evaluation: str
    code: Mapping[str, str]
    content: Mapping[str, str]


def identity(config: RunConfig) -> Identity:
    """Return the identity of a configuration.

    Raises:
        UserError: an included file cannot be read.
    """
    given = differing(config.keys())
    code = foreign_code(config)
    scoring = {key: value for key, value in given.items() if key.startswith(_SCORING)}
    trained = {k: v for k, v in given.items() if k not in scoring and k not in _NEITHER}
    content = {key: content_id(Path(trained[key])) for key in _LYING if _lies(trained.get(key))}
    trained |= content
    training = short_hash([TRAINING_VERSION, trained, sorted(code.values())])
    evaluation = short_hash([training, scoring]) if scoring else training
    return Identity(training=training, evaluation=evaluation, code=code, content=content)


def evaluated_as(kept: Mapping[str, Any], config: RunConfig) -> bool:
    """Whether what was kept of a run's configuration has the scoring keys of another.

    Args:
        kept: nested plain values, as a record has them; a key that is newer has its baseline value.
        config: of the same training.
    """
    own = keys_of(kept)
    return all(
        own.get(key, baseline_of(key, value)) == value
        for key, value in config.keys().items()
        if key.startswith(_SCORING)
    )


def differing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys whose value differs from the baseline's.

    A key without a baseline differs from its default; of a plug-in's options, whose defaults may
    change with the plug-in, every key counts.
    """
    plain = json.loads(json.dumps(dict(values)))
    return {key: value for key, value in plain.items() if baseline_of(key, ...) != value}


def settled(section: str, settings: Any) -> dict[str, Any]:
    """Return a section's settings for the name of a file that is kept of them.

    Every key that version 3 had, and of newer ones those that differ from their baseline: a new key
    makes no file out of date.
    """
    own = {f"{section}.{key}": value for key, value in asdict(settings).items()}
    counts = VERSION_3.keys() | differing(own).keys()
    return {key.removeprefix(f"{section}."): own[key] for key in own if key in counts}


def baseline_of(key: str, otherwise: Any) -> Any:
    """Return the value of a key that reproduces how the first version with it behaved."""
    return BASELINE[key] if key in BASELINE else _defaults().get(key, otherwise)


@cache
def _defaults() -> dict[str, Any]:
    return RunConfig().keys()


def foreign_code(config: RunConfig) -> dict[str, str]:
    """Return the digests of the included files, and of plug-ins' files, that a run would use.

    Args:
        config: of the run; its included files need not have been run.

    Raises:
        UserError: an included file cannot be read.
    """
    files = [find(path) for path in config.include]
    names = {config.interface, *config.controls} & {*INTERFACES.names()}
    names |= {*INTERFACES.get(config.interface).controls} if config.interface in names else set()
    kinds = [INTERFACES.get(name) for name in sorted(names)]
    for registry, name in ((DENOISERS, config.denoiser.name), (SAMPLERS, config.diffusion.sampler)):
        kinds += [registry.get(name)] if name in registry.names() else []
    foreign = (kind for kind in kinds if not _is_own(kind))
    files += [Path(inspect.getsourcefile(kind) or "").resolve() for kind in foreign]
    found: dict[str, str] = {}
    for file in dict.fromkeys(file for file in files if file.is_file()):
        name = file.name if file.name not in found else f"{file.name} ({len(found)})"
        found[name] = digest_of_file(file)
    return found


def digest_of_file(path: Path) -> str:
    """Return twelve digits that stand for the content of an included file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise UserError(
            f"--include {path}: {error.strerror}; give the path of a Python file."
        ) from error


def interface_identity(interface: Interface) -> dict[str, Any]:
    """Return what tells an interface from others, weights apart: code, options, other settings.

    Of this package's own code the registered name; ``TRAINING_VERSION`` stands for the rest.
    """
    kind, config = type(interface), interface.config
    parts = (interface, interface.trunk, interface.recovery)
    section = kind.section or INTERFACES.name_of(kind) or kind.__qualname__
    options = asdict(interface.options) if interface.options else {}
    return {
        "code": [TRAINING_VERSION, *(_code(type(p)) for p in parts if p is not None)],
        "options": differing({f"{section}.{key}": value for key, value in options.items()}),
        "config": differing(flatten(plain(replace(config, options=None)))),
    }


def _code(kind: type) -> str:
    names = [name for registry in (INTERFACES, DENOISERS) if (name := registry.name_of(kind))]
    name = next(iter(names), kind.__qualname__)
    return name if _is_own(kind) else f"{name}#{source_hash(kind)}"


def _is_own(kind: Any) -> bool:
    """Whether a class or function is written in this package."""
    return str(getattr(kind, "__module__", "")).startswith(("dihal_bench.", "builtins"))


def version_3_digest(values: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Return what version 3 called a configuration: a hash of every key and of included files.

    Folders of its runs are named by it, and it tells whether included code is still the same.

    Args:
        values: dotted keys; one that version 3 had no word for is left out.
        files: that are included.
    """
    tree: dict[str, Any] = {"options": {}}
    known = {key: values.get(RENAMED.get(key, key), value) for key, value in VERSION_3.items()}
    sections = {key.partition(".")[0] for key in VERSION_3}
    own = {f"options.{k}": v for k, v in values.items() if k.partition(".")[0] not in sections}
    for key, value in {**known, **own}.items():
        *parents, last = key.split(".")
        place = tree
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _lies(name: str | None) -> bool:
    """Whether a name is that of a file or folder here."""
    return name is not None and Path(name).exists()
