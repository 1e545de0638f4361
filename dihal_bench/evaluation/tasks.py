"""Task files: YAML in the format of lm-eval, and one extension of it for generated text.

A task is asked for by name (a file ``NAME.yaml`` in a folder of tasks) or by the path of its file.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dihal_bench.core.checkout import place_of
from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.lm_eval_task import OUTPUT_TYPES, LmEvalTask, task_manager
from dihal_bench.evaluation.rollouts import RolloutTask
from dihal_bench.evaluation.samples.settings import Settings
from dihal_bench.evaluation.samples.task import SampleTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dihal_bench.evaluation.context import Task

_SUFFIX = ".yaml"
_KEYS = ("task", "include", "output_type", "description", "metadata")


def built_in() -> Path:
    """Return the folder of the tasks that come with the package."""
    return place_of("dihal_bench.tasks")


def task_names(folders: Iterable[Path]) -> list[str]:
    """Return the names of all task files in folders."""
    return sorted({path.stem for folder in folders for path in folder.glob(f"*{_SUFFIX}")})


def first_comment(path: Path) -> str:
    """Return what a task file says of itself in the comment that it begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("#").strip() for line in found)


def load_task(name: str, folders: Sequence[Path]) -> Task:
    """Return the task of a name or a path.

    Args:
        name: as the user gives it.
        folders: of task files; the first that has one of that name decides.

    Raises:
        UserError: there is no such file, it is no task, or a key in it is unknown.
    """
    path = _find(name, folders)
    content = _read(path)
    kind = content.get("output_type")
    if kind is None and content.keys() & {"dataset_path", "custom_dataset"}:
        kind = "generate_until"  # lm-eval's default
    if kind not in _KINDS:
        raise UserError(
            f"{path}: output_type={kind} is unknown; choose one of {', '.join(_KINDS)}."
        )
    return _KINDS[kind](path, {**content, "output_type": kind})


def _find(name: str, folders: Sequence[Path]) -> Path:
    path = Path(name).expanduser()
    if path.suffix in (_SUFFIX, ".yml"):
        if path.is_file():
            return path.resolve()
        raise UserError(f"--tasks {name}: there is no such file; give the path of a task file.")
    for folder in folders:
        path = folder / f"{name}{_SUFFIX}"
        if path.is_file():
            return path.resolve()
    own = _of_lm_eval(name)
    if own is not None:
        return own
    known = ", ".join(task_names(folders))
    raise UserError(
        f"--tasks {name}: there is no such task, nor has lm-eval one; choose one of {known}, or "
        "give the path of a YAML file, or a folder of them with --tasks-dir."
    )


def _of_lm_eval(name: str) -> Path | None:
    """Return the file of one of lm-eval's own tasks, if it is installed and has one."""
    if find_spec("lm_eval") is None:
        return None
    return _lm_eval_files().get(name)


@cache
def _lm_eval_files() -> dict[str, Path]:
    """Return the files of lm-eval's own tasks by name; to index them takes seconds."""
    index = task_manager(defaults=True).task_index
    return {name: Path(entry.yaml_path) for name, entry in index.items() if entry.yaml_path}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads lm-eval's tags as text: which kind of task it is can be said without them."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no readable YAML file ({reason}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a task is a mapping of keys, such as task: my-task.")
    includes = content.get("include") or []
    for name in includes if isinstance(includes, list) else [includes]:
        content = {**_read(path.parent / str(name)), **content}
    return content


def _samples(path: Path, content: Mapping[str, Any]) -> SampleTask:
    _only(path, content, (*_KEYS, "samples", "metric_list"), "")
    own = _section(path, content, "samples")
    listed = content.get("metric_list") or []
    if not isinstance(listed, list):
        raise UserError(f"{path}: metric_list must be a list, such as [gen_ppl, entropy].")
    metrics = [item.get("metric") if isinstance(item, dict) else item for item in listed]
    settings = {field.name: field.type for field in fields(Settings) if field.name != "seed"}
    plain = {
        field.name: field.type
        for field in fields(SampleTask)
        if field.name not in ("name", "metrics", "settings", "version")
    }
    _only(path, own, (*plain, *settings), "samples.")
    seed = own.get("seed", 0)
    kinds = {**plain, **settings}
    given = {key: _value(path, f"samples.{key}", own[key], kinds[key]) for key in own}
    return SampleTask(
        name=str(content.get("task", path.stem)),
        metrics=tuple(map(str, metrics)),
        version=_version(path, content),
        settings=Settings(seed=seed, **{key: given[key] for key in given if key in settings}),
        **{key: given[key] for key in given if key in plain},
    )


def _rollouts(path: Path, content: Mapping[str, Any]) -> RolloutTask:
    _only(path, content, (*_KEYS, "rollouts"), "")
    own = _section(path, content, "rollouts")
    kinds = {f.name: f.type for f in fields(RolloutTask) if f.name not in ("name", "version")}
    _only(path, own, tuple(kinds), "rollouts.")
    given = {key: _value(path, f"rollouts.{key}", own[key], kinds[key]) for key in own}
    return RolloutTask(
        name=str(content.get("task", path.stem)), version=_version(path, content), **given
    )


def _version(path: Path, content: Mapping[str, Any]) -> float:
    number = _section(path, content, "metadata").get("version", 1.0)
    return float(_value(path, "metadata.version", number, "float"))


def _section(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    own = content.get(name) or {}
    if not isinstance(own, dict):
        raise UserError(f"{path}: {name} must be a mapping, such as {{count: 128}}.")
    return own


def _harness(path: Path, content: Mapping[str, Any]) -> LmEvalTask:
    kind, name = str(content["output_type"]), str(content.get("task", path.stem))
    return LmEvalTask(name=name, path=path, kind=kind)


_KINDS: dict[str, Callable[[Path, Mapping[str, Any]], Task]] = {
    "samples": _samples,
    "rollouts": _rollouts,
    **dict.fromkeys(OUTPUT_TYPES, _harness),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}


def _only(path: Path, content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        raise UserError(
            f"{path}: the key {where}{unknown[0]} is unknown; those are {', '.join(known)}."
        )


def _value(path: Path, key: str, value: Any, kind: Any) -> Any:
    """Check a value against a field's annotation."""
    if str(kind).startswith("tuple"):
        items = value if isinstance(value, list) else [value]
        of = str(kind).removeprefix("tuple[").partition(",")[0]
        return tuple(_value(path, key, item, of) for item in items)
    wanted = _TYPES[str(kind)]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise UserError(f"{path}: {key}={value} is not of the kind {kind}.")
    found: Any = value
    return float(found) if kind == "float" else found
