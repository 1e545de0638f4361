"""Bad input ends with one sentence that says what to mend, and exit status 2."""

import re

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES, include
from dihal_bench.interfaces.validate import blamed, validate

from ..tiny import CONFIG, PROBE, SPAN, backbone, batch_of, statistics
from .faults import HEALTHY, RECOVER, SIZES, TARGET, broken

pytestmark = pytest.mark.usefixtures("registries")


def refused(argv, capsys):
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("dihal-bench: error: ")


TAKEN = HEALTHY.replace('register("my-interface")', 'register("hidden")')


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import nothing_of_the_kind", "does not import (ModuleNotFoundError: No module named"),
        ("def broken(:", "does not import (SyntaxError:"),
        ("x = 1", "registers nothing"),
        (TAKEN, "interface 'hidden' is registered twice, at "),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_registers_no_interface(verb, text, expected, tmp_path, capsys):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    line = refused([verb, "--include", file], capsys)
    assert "mine.py" in line
    assert expected in line


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["nothing"], "there is no interface called 'nothing'; "),
        (["hiden"], "did you mean 'hidden'?"),
        ([], "check: nothing says which interface; give its NAME"),
        (["hidden", "--denoiser=unet"], "there is no denoiser called 'unet'"),
    ],
)
def test_a_check_of_nothing(argv, expected, capsys):
    assert expected in refused(["check", *argv], capsys)


def test_a_denoiser_that_an_interface_cannot_use(tmp_path, tiny, capsys):
    file = tmp_path / "mine.py"
    file.write_text(broken(regime="sequence"), encoding="utf-8")
    line = refused(["check", "--include", file, "--denoiser", "mlp"], capsys)
    assert line.startswith("--denoiser mlp cannot be used by my-interface: the regimes of one are ")
    flags = ["--regime=sequence", "--denoiser=mlp", "--out", tmp_path / "run"]
    assert main(["run", *map(str, flags), *tiny.flags(block=4)]) == 2
    assert "error: --denoiser mlp " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--regime=sequence", "--set=block=99", "--set=text.window=32"], "block=99 must be "),
        (["--set=budget.tokens=5"], "there is no configuration key budget.tokens; those here are "),
    ],
)
def test_settings_of_a_run(argv, expected, capsys):
    assert refused(["run", *argv], capsys).startswith(expected)


# --- what methods give ----------------------------------------------------------------------------

BROKEN = {
    "target": (
        TARGET,
        f"{TARGET}[:, 1:]",
        "MyInterface.target must give a float tensor [2, 14, 6]",
    ),
    "integers": (TARGET, f"{TARGET}.long()", "MyInterface.target must give a float tensor"),
    "recover": (RECOVER, "return x0", "MyInterface.recover must give a float tensor [2, 14, 64]"),
    "nan": (
        RECOVER,
        f"{RECOVER} / 0 * 0",
        "MyInterface.recover must give a float tensor [2, 14, 64] of",
    ),
    "nothing": (RECOVER, "pass", "MyInterface.recover must give a float tensor [2, 14, 64], and"),
    "sizes": (SIZES, f"    layers = (9,)\n\n{SIZES}", "MyInterface.layers must give layers from 0"),
    "raised": (TARGET, "return self.code", "MyInterface.target raised AttributeError: "),
    "inside": (TARGET, f"return torch.ones(2) @ {TARGET[7:]}", "MyInterface.target raised Runtime"),
}


def healthy(text, tmp_path):
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    include(tmp_path / "mine.py")
    interface = INTERFACES.get("my-interface")(backbone(), SPAN, CONFIG)
    interface.fit(statistics())
    return interface


def changed(name):
    old, new, expected = BROKEN[name]
    text = HEALTHY.replace(old, new)
    if name == "sizes":
        start = text.index("    @property\n    def layers")
        text = text[:start] + text[text.index("    def fit(") :]
    assert text != HEALTHY
    return text, expected


@pytest.mark.parametrize("name", BROKEN)
def test_a_method_that_breaks_the_contract_is_named(name, tmp_path):
    text, expected = changed(name)
    interface = healthy(text, tmp_path)
    with pytest.raises(UserError, match=r"mine\.py:\d+: ") as caught:
        validate(interface, batch_of(PROBE))
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


def test_what_is_built_in_and_the_scaffold_are_valid(tmp_path):
    validate(healthy(HEALTHY, tmp_path), batch_of(PROBE))


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_names_the_method_too(name, tmp_path, capsys):
    text, expected = changed(name)
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    assert main(["check", "--include", str(tmp_path / "mine.py")]) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [s for s in captured.out.splitlines() if s.startswith("causal, shapes and numbers: ")]
    assert re.search(r"mine\.py:\d+: MyInterface\.", line)
    assert expected.split(" [")[0].split(", and")[0] in line
    assert "not run" not in captured.out


@pytest.mark.parametrize("name", ["target", "recover", "nan", "raised"])
def test_a_run_names_the_method_before_it_trains(name, tmp_path, tiny, capsys):
    text, expected = changed(name)
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    out = tmp_path / "run"
    flags = ["--interface=my-interface", "--include", str(tmp_path / "mine.py"), "--out", str(out)]
    assert main(["run", *flags, *tiny.flags()]) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert re.match(r"dihal-bench: error: .*mine\.py:\d+: ", line)
    assert expected.split(" [")[0].split("of finite")[0] in line
    assert "Traceback" not in captured.err
    assert not (out / "record.json").exists()


def test_only_what_an_author_can_mend_is_blamed_on_them():
    with pytest.raises(UserError, match=r"^rename it$"), blamed(dict):
        raise UserError("rename it")
    with pytest.raises(KeyboardInterrupt), blamed(dict):
        raise KeyboardInterrupt


def test_a_setting_that_check_does_not_read(capsys):
    line = refused(["check", "hidden", "--set", "train.lr=1"], capsys)
    assert line == "--set train.lr=1: check reads settings of diffusion, hidden alone."
    assert "embedding.rounding=round" in refused(
        ["check", "embedding", "--set", "embedding.rounding=round"], capsys
    )
