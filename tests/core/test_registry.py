"""Names: unique, suggested when mistyped, traceable to a line, loaded only when needed."""

import re
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from dihal_bench.core import registry as module
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import (
    DENOISERS,
    INTERFACES,
    REGISTRIES,
    SAMPLERS,
    Registry,
    code_of,
    include,
)

USER_FILE = """
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.core.registry import INTERFACES


@INTERFACES.register({name!r})
class Mine(HiddenSpace):
    "A user's own."
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the registries as they were found."""
    for registry in REGISTRIES:
        registry.names()
    kept = [dict(registry._entries) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, kept, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)


def write(folder: Path, name: str = "mine", file: str = "mine.py") -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(USER_FILE.format(name=name), encoding="utf-8")
    return path


def line_of(path: Path, text: str = "@INTERFACES") -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return 1 + next(i for i, line in enumerate(lines) if line.startswith(text))


# --- names ----------------------------------------------------------------------------------------


def test_built_in_entries() -> None:
    assert {"hidden", "regress", "regress-loop", "token-mean", "ridge", "mean", "identity"} <= set(
        INTERFACES.names()
    )
    assert SAMPLERS.names() == ["ddim", "ddpm", "dpm", "euler", "flow"]
    assert "transformer" in DENOISERS.names()
    assert INTERFACES.names() == sorted(INTERFACES.names())


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_origins_are_lines_of_files(registry: Registry) -> None:
    for name in registry.names():
        file, _, line = registry.origin(name).rpartition(":")
        source = Path(file).read_text(encoding="utf-8").splitlines()
        assert f'"{name}"' in source[int(line) - 1], name
        assert registry.help(name).strip()


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no interface called 'hiden'; did you mean 'hidden'\?"):
        INTERFACES.get("hiden")
    with pytest.raises(UserError, match=r"called 'zzz'; choose one of ddim, ddpm, dpm"):
        SAMPLERS.get("zzz")
    with pytest.raises(UserError, match="did you mean"):
        INTERFACES.origin("hiden")


def test_duplicates_name_both_origins() -> None:
    registry = Registry("thing", ())

    @registry.register("one")
    class First: ...

    with pytest.raises(UserError) as caught:

        @registry.register("one")
        class Second: ...

    here, text = Path(__file__).resolve(), str(caught.value)
    lines = _lines_with('@registry.register("one")')
    assert f"thing 'one' is registered twice, at {here}:{lines[0]} and at {here}:{lines[1]}" in text
    assert registry.get("one") is First


def _lines_with(text: str) -> list[int]:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return [i for i, line in enumerate(lines, start=1) if line.strip() == text]


def test_functions_and_instances_can_be_registered() -> None:
    registry = Registry("thing", ())
    registry.register("function")(line_of)
    registry.register("instance")(types.SimpleNamespace())
    assert registry.names() == ["function", "instance"]
    assert str(Path(__file__).resolve()) in registry.origin("function")
    assert "SimpleNamespace" in registry.origin("instance")


# --- --include ------------------------------------------------------------------------------------


def test_an_included_interface_is_listed_with_its_origin(tmp_path: Path) -> None:
    path = write(tmp_path)
    include(path)
    assert "mine" in INTERFACES.names()
    assert INTERFACES.origin("mine") == f"{path.resolve()}:{line_of(path)}"
    assert INTERFACES.get("mine").__name__ == "Mine"
    assert INTERFACES.help("mine")


def test_including_a_file_twice_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path)
    include(path)
    include(str(path))
    assert INTERFACES.origin("mine") == f"{path.resolve()}:{line_of(path)}"


def test_a_copy_of_an_included_file_is_that_file(tmp_path: Path) -> None:
    first, copy = write(tmp_path / "a"), write(tmp_path / "b")
    include(first)
    known = INTERFACES.get("mine")
    include(copy)
    assert INTERFACES.get("mine") is known
    assert INTERFACES.origin("mine") == f"{first.resolve()}:{line_of(first)}"


def test_the_code_of_a_class_is_named_alike_wherever_its_file_lies(tmp_path: Path) -> None:
    def code(path: Path) -> str:
        include(path)
        return code_of(INTERFACES._entries.pop("mine"))

    same = [code(write(tmp_path / folder)) for folder in ("a", "b")]
    assert same[0] == same[1]
    assert re.fullmatch(r"mine\.py#[0-9a-f]{8}:Mine", same[0])
    assert code(write(tmp_path / "a", file="other.py")).startswith("other.py#")
    edited = write(tmp_path / "a")
    edited.write_text(edited.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    assert code(edited) != same[0]
    assert code_of(INTERFACES.get("hidden")) == "dihal_bench.interfaces.hidden:Hidden"


def test_two_files_of_one_thing_are_both_named(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    second.write_text("\n" + second.read_text(encoding="utf-8"), encoding="utf-8")
    include(first)
    with pytest.raises(UserError) as caught:
        include(second)
    for path in (first, second):
        assert f"{path.resolve()}:{line_of(path)}" in str(caught.value)


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "first"), write(tmp_path / "b", "second")
    include(first)
    include(second)
    assert INTERFACES.origin("first") == f"{first.resolve()}:{line_of(first)}"
    assert INTERFACES.origin("second") == f"{second.resolve()}:{line_of(second)}"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--include .*nowhere\.py: there is no such file"):
        include(tmp_path / "nowhere.py")
    with pytest.raises(UserError, match="there is no such file"):
        include(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_does_not_import(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"broken\.py: the file does not import \({reason}"):
        include(path)


def test_an_interrupt_is_not_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text("raise KeyboardInterrupt", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        include(path)


def test_a_file_that_registers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x = 1", encoding="utf-8")
    with pytest.raises(UserError, match=r"registers nothing; decorate a class with"):
        include(path)
    other = tmp_path / "mine.txt"
    other.write_text("x = 1", encoding="utf-8")
    with pytest.raises(UserError, match=r"must end in \.py"):
        include(other)


def test_a_taken_name(tmp_path: Path) -> None:
    path, original = write(tmp_path, "hidden"), INTERFACES.get("hidden")
    with pytest.raises(UserError) as caught:
        include(path)
    assert INTERFACES.origin("hidden") in str(caught.value)
    assert f"{path.resolve()}:{line_of(path)}" in str(caught.value)
    assert INTERFACES.get("hidden") is original


def test_a_fresh_process_loads_nothing_early_and_finds_a_taken_name(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from dihal_bench.core.registry import include\n"
        "assert 'torch' not in sys.modules\n"
        f"include({str(write(tmp_path, 'hidden'))!r})\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError: interface 'hidden' is registered twice" in ran.stderr


# --- entry points ---------------------------------------------------------------------------------


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of things with a working and a broken plug-in installed."""
    plugin = types.ModuleType("a_plugin")
    plugin.Thing = type("Thing", (), {"__module__": "a_plugin"})  # type: ignore[attr-defined]
    loads: list[str] = []

    class Point(metadata.EntryPoint):
        def load(self) -> object:
            loads.append(self.name)
            return super().load()

    points = [
        Point("works", "a_plugin:Thing", "dihal_bench.things"),
        Point("broken", "not_installed_anywhere:Thing", "dihal_bench.things"),
        Point("other", "a_plugin:Thing", "dihal_bench.others"),
    ]
    monkeypatch.setitem(sys.modules, "a_plugin", plugin)
    monkeypatch.setattr(
        module.metadata, "entry_points", lambda group: [p for p in points if p.group == group]
    )
    registry = Registry("thing", ())
    registry.loads = loads  # type: ignore[attr-defined]
    return registry


def test_entry_points_are_listed_without_being_imported(plugins: Registry) -> None:
    assert plugins.names() == ["broken", "works"]
    assert plugins.origin("works") == "entry point a_plugin:Thing"
    assert plugins.origin("broken") == "entry point not_installed_anywhere:Thing"
    with pytest.raises(UserError, match="did you mean 'works'"):
        plugins.get("work")
    assert plugins.loads == []  # type: ignore[attr-defined]


def test_an_entry_point_is_loaded_once_when_asked_for(plugins: Registry) -> None:
    assert plugins.get("works").__name__ == "Thing"
    assert plugins.get("works") is sys.modules["a_plugin"].Thing
    assert plugins.loads == ["works"]  # type: ignore[attr-defined]


def test_a_broken_entry_point_fails_only_when_asked_for(plugins: Registry) -> None:
    plugins.get("works")
    with pytest.raises(
        UserError, match=r"thing 'broken' is the entry point not_installed_anywhere:Thing.*mend"
    ):
        plugins.get("broken")


def test_an_entry_point_of_a_taken_name_is_refused_naming_both(plugins: Registry) -> None:
    plugins.register("works")(Registry)
    match = r"thing 'works' is registered twice, at .*registry.py:\d+ and at entry point a_plugin:"
    with pytest.raises(UserError, match=match):
        plugins.names()


def test_a_registration_under_an_entry_point_s_name_is_refused(plugins: Registry) -> None:
    plugins.names()
    match = r"thing 'works' is registered twice, at entry point a_plugin:Thing and at .*:\d+;"
    with pytest.raises(UserError, match=match):
        plugins.register("works")(Registry)


def test_a_plug_in_may_register_itself_when_imported(plugins: Registry) -> None:
    thing = sys.modules["a_plugin"].Thing
    plugins.register("works")(thing)
    assert plugins.get("works") is thing
    assert plugins.names() == ["broken", "works"]


def test_two_distributions_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [metadata.EntryPoint("twin", f"{m}:Thing", "dihal_bench.things") for m in ("a", "b")]
    monkeypatch.setattr(module.metadata, "entry_points", lambda group: points)
    with pytest.raises(UserError, match=r"at entry point a:Thing and at entry point b:Thing"):
        Registry("thing", ()).get("twin")


@pytest.mark.parametrize("name", ["", "my face", "a/b", "-x", "teacher", "x" * 101, "ä"])
def test_names_that_records_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be registered"):
        Registry("thing", ()).register(name)
