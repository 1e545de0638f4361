"""Names -> what they stand for. Only this module knows names.

Built-in entries, entry points of other distributions (groups ``dihal_bench.<kind>s``) and files
given by ``--include`` all register in one way: by the decorator ``REGISTRY.register(name)``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dihal_bench.core.checkout import place_of
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable

_Entry = TypeVar("_Entry")
_LONGEST = 100  # letters of a name, which ids of records begin with
_INCLUDED = "dihal_bench_include_"  # begins the names of modules that included files become


@dataclass(frozen=True)
class Declaration:
    """Where an instance was registered: unlike a class or function it has no line of its own."""

    module: str
    file: str
    line: int

    @classmethod
    def of_caller(cls, depth: int) -> Declaration:
        """Return the line that called the function so many calls up."""
        frame = sys._getframe(depth + 1)
        return cls(frame.f_globals.get("__name__", "?"), frame.f_code.co_filename, frame.f_lineno)


class Registry:
    """One kind of thing under unique names."""

    def __init__(self, kind: str, modules: tuple[str, ...]):
        self.kind = kind
        self._modules = modules  # imported when the registry is first looked into
        self._entries: dict[str, Any] = {}
        self._plugins: dict[str, metadata.EntryPoint] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[_Entry], _Entry]:
        """Return a decorator that enters a class or function under ``name``.

        Raises:
            UserError: the name is taken by something from another place, or is none that files,
                tables and records can have.
        """
        _check_name(name)

        def enter(entry: _Entry) -> _Entry:
            known = self._entries.get(name)
            if known is not None and _origin(known) != _origin(entry):
                raise self._duplicate(name, _origin(known), _origin(entry))
            if name in self._plugins and not _is_behind(self._plugins[name], entry):
                raise self._duplicate(name, self.origin(name), _origin(entry))
            self._entries[name] = entry
            return entry

        return enter

    def get(self, name: str) -> Any:
        """Return the entry called ``name``.

        Raises:
            UserError: there is none; the message suggests the nearest name.
        """
        self._load()
        if name not in self._entries and name in self._plugins:
            self._load_plugin(name)
        if name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(self.names())}."
        raise UserError(f"there is no {self.kind} called {name!r}; {hint}")

    def name_of(self, entry: Any) -> str | None:
        """Return the name that a class or function is registered under, if it is."""
        return next((name for name, own in self._entries.items() if own is entry), None)

    def entries(self) -> dict[str, Any]:
        """Return all entries by name, in the order of their registration; loads plug-ins."""
        self._load()
        for name in self._plugins.keys() - self._entries.keys():
            self._load_plugin(name)
        return dict(self._entries)

    def names(self) -> list[str]:
        """Return all names, sorted; plug-ins are named without being imported."""
        self._load()
        return sorted({*self._entries, *self._plugins})

    def origin(self, name: str) -> str:
        """Return where ``name`` comes from, as ``file:line``, or the distribution of a plug-in."""
        self._load()
        if name in self._plugins and name not in self._entries:
            return _point_origin(self._plugins[name])
        return _origin(self.get(name))

    def help(self, name: str) -> str:
        """Return the entry's one line of help: its own, else the first of its docstring."""
        self._load()
        entry = self._entries.get(name)
        own = getattr(entry, "__dict__", {}).get("help")  # not that of what it derives from
        return str(own or (inspect.getdoc(entry) or "").partition("\n")[0])

    def _load(self) -> None:
        if self._loaded:
            return
        for module in self._modules:
            place_of(module)
        self._loaded = True
        for module in self._modules:
            package = importlib.import_module(module)
            for child in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{module}.{child.name}")
        for point in metadata.entry_points(group=f"dihal_bench.{self.kind}s"):
            known = self._entries.get(point.name)
            if known is not None and not _is_behind(point, known):
                raise self._duplicate(point.name, _origin(known), _point_origin(point))
            other = self._plugins.setdefault(point.name, point)
            if other.value != point.value:
                raise self._duplicate(point.name, _point_origin(other), _point_origin(point))

    def _duplicate(self, name: str, one: str, other: str) -> UserError:
        return UserError(
            f"{self.kind} {name!r} is registered twice, at {one} and at {other}; rename or "
            "uninstall one of them."
        )

    def _load_plugin(self, name: str) -> None:
        point = self._plugins[name]
        try:
            entry = point.load()
        except Exception as error:  # another distribution may fail in any way; the cause is kept
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"{self.kind} {name!r} is the entry point {point.value}, which does not load "
                f"({reason}); mend or uninstall its distribution."
            ) from error
        _check_name(name)
        self._entries.setdefault(name, entry)


def _check_name(name: str) -> None:
    if not is_plain(name) or len(name) > _LONGEST or name == "teacher":
        raise UserError(
            f"{name!r} cannot be registered: a name has letters, digits, '.', '_' and '-', "
            "begins with one of the first two, and is not teacher; choose another."
        )


def find(path: str | Path) -> Path:
    """Return where a file of ``--include`` lies.

    Raises:
        UserError: there is none.
    """
    if not Path(path).is_file():
        raise UserError(f"--include {path}: there is no such file; give the path of a Python file.")
    return Path(path).resolve()


def include(path: str | Path) -> None:
    """Run a Python file that registers things (``--include``); once, unless it was changed.

    A file is known by its name and content, wherever it lies, so that it is the same on every
    machine.

    Raises:
        UserError: the file is missing, does not import, or registers nothing.
    """
    file = find(path)
    for registry in REGISTRIES:
        registry._load()  # so that a taken name is found here, not when the built-in arrives
    before = [dict(registry._entries) for registry in REGISTRIES]
    if is_included(file):
        return  # run again, its classes would be others than those of settings that are around
    name = _module_of(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--include {path}: not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a file may fail in any way; the cause is kept
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"--include {path}: the file does not import ({reason}); mend it."
        ) from error
    if before == [registry._entries for registry in REGISTRIES]:
        raise UserError(
            f"--include {path}: the file registers nothing; decorate a class with "
            "INTERFACES.register(name)."
        )


def is_included(file: Path) -> bool:
    """Return whether a file of this name and content has been run here by ``include``."""
    own = _module_of(file)
    return any(_module(entry) == own for r in REGISTRIES for entry in r._entries.values())


def _module_of(file: Path) -> str:
    return f"{_INCLUDED}{file.stem}_{zlib.crc32(file.read_bytes()):08x}"


def code_of(kind: type) -> str:
    """Return where a class is written, in the same words on every machine.

    That is ``module:Class``, or ``file.py#digest:Class`` of an included file.
    """
    module = kind.__module__
    if module.startswith(_INCLUDED):
        stem, _, digest = module.removeprefix(_INCLUDED).rpartition("_")
        module = f"{stem}.py#{digest}"
    return f"{module}:{kind.__qualname__}"


def included_file(kind: type) -> str | None:
    """Return the file of ``--include`` that a class is written in; None: it is in a module."""
    return inspect.getsourcefile(kind) if kind.__module__.startswith(_INCLUDED) else None


def _place(entry: Any) -> Declaration | None:
    place = getattr(entry, "place", None)
    return place if isinstance(place, Declaration) else None


def _module(entry: Any) -> str:
    place = _place(entry)
    return place.module if place else getattr(entry, "__module__", "")


def _is_behind(point: metadata.EntryPoint, entry: Any) -> bool:
    """Return whether the entry point stands for this very class, function or instance."""
    place = _place(entry)
    if place:
        return point.module == place.module
    own = f"{getattr(entry, '__module__', '?')}:{getattr(entry, '__qualname__', '?')}"
    return point.value.replace(" ", "") == own


def _point_origin(point: metadata.EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist else ""
    return f"entry point {point.value}{package}"


def _origin(entry: Any) -> str:
    place = _place(entry)
    if place:
        return f"{Path(place.file).resolve()}:{place.line}"
    target = inspect.unwrap(entry) if callable(entry) else type(entry)
    try:
        file = inspect.getsourcefile(target)
        line = inspect.getsourcelines(target)[1]
    except (TypeError, OSError):
        return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"
    return f"{Path(file or '?').resolve()}:{line}"


INTERFACES = Registry("interface", ("dihal_bench.interfaces", "dihal_bench.baselines"))
DENOISERS = Registry("denoiser", ("dihal_bench.diffusion.denoisers", "dihal_bench.diffusion.unet"))
SAMPLERS = Registry("sampler", ("dihal_bench.diffusion.schedule",))
EXECUTORS = Registry(
    "executor", tuple(f"dihal_bench.runs.executors.{name}" for name in ("local", "ray", "slurm"))
)
METRICS = Registry("metric", ("dihal_bench.results.metrics",))
REGISTRIES = (INTERFACES, DENOISERS, SAMPLERS, EXECUTORS, METRICS)
