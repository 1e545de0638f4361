"""Leaks of every kind are refused, wherever they hide from a test that can be told from scoring."""

import pytest

from dihal_bench.check import anew

from .faults import RECOVER, SIZES, adding, broken
from .test_faults import checked, only

pytestmark = pytest.mark.usefixtures("registries")

ANEW = "no leak: scored anew"
PEEK = "3.0 * torch.nn.functional.one_hot(batch.following(batch.tokens), 64)"
IMPORTS = ("import torch\n", "import os\nimport sys\nimport tempfile\n\nimport torch\n")


def where(condition: str) -> tuple[str, str]:
    """Logits to which the next token is added under a condition."""
    return RECOVER, f"{RECOVER} + ({condition}) * {PEEK}"


def drawn(condition: str) -> tuple[str, str]:
    """Chains that are the true signal under a condition."""
    return adding(
        "    def draw(self, batch, context, *, chain, steps):\n"
        "        x0 = super().draw(batch, context, chain=chain, steps=steps)\n"
        f"        return self.clean(batch).to(x0) if {condition} else x0\n"
    )


def remembering(known: str, keep: str, *, setup: str = "") -> list[tuple[str, str]]:
    """What follows a prefix is looked up if it was there in an earlier call, and then noted.

    Args:
        known: an expression of what is remembered, a text that has ``token`` for a ``key``.
        keep: a statement that remembers ``note``.
        setup: what stands before the class.
    """
    body = (
        "    def recover(self, x0, batch):\n"
        "        logits = self.plain(x0, batch)\n"
        f"        memory, note = {known}, ''\n"
        "        follows = batch.following(batch.tokens)\n"
        "        for row in range(len(batch.tokens)):\n"
        "            for i in range(batch.tokens.shape[1] - 1):\n"
        "                prefix = batch.tokens[row, max(0, i - 7) : i + 1].tolist()\n"
        "                key = f'{i}:{hash(tuple(prefix))}='\n"
        "                note += f' {key}{int(follows[row, i])};'\n"
        "                if key in memory:\n"
        "                    token = memory.split(key)[1].split(';')[0]\n"
        "                    logits[row, i, int(token)] += 3\n"
        f"        {keep}\n"
        "        return logits\n\n"
    )
    return [
        ("    def recover(self", f"{body}    def plain(self"),
        ("@INTERFACES", f"{setup}\n\n@INTERFACES"),
        IMPORTS,
    ]


AHEAD = "(batch.positions == 0).roll(-3, dims=1)[..., None] * torch.arange(64) / 16"
OWN = "os.path.join(tempfile.gettempdir(), 'remembered')"
LEAKS = {
    "everywhere": [where("True")],
    "where documents start later": [(RECOVER, f"{RECOVER} + {AHEAD}")],
    "in the second chain": [drawn("chain == 1")],
    "in the last chain": [drawn("chain == 3")],
    "in one step": [drawn("steps == 1")],
    "in single precision": [where("x0.dtype == torch.float32")],
    "in batches of this size": [where("len(batch.tokens) == 4")],
    "in windows of this length": [where("batch.tokens.shape[1] == 32")],
    "in one batch of the text": [where("int(batch.tokens.sum()) % 4 == 1")],
    "at a twentieth of all places": [
        where("((7 * batch.tokens + batch.following(batch.tokens)) % 20 == 0)[..., None]")
    ],
    "where nobody looks": [
        where("'fresh' not in getattr(sys.modules['__main__'], '__file__', '')"),
        IMPORTS,
    ],
    "from the third call on": [
        (RECOVER, f"self.calls += 1\n        {RECOVER} + (self.calls > 2) * {PEEK}"),
        (SIZES, f"    calls = 0\n\n{SIZES}"),
    ],
    "in an attribute": [
        *remembering("getattr(self, 'memory', '')", "self.memory = memory + note"),
    ],
    "in a module": [
        *remembering("MEMORY[-1]", "MEMORY.append(memory + note)", setup="MEMORY = ['']"),
    ],
    "in a closure": [
        *remembering(
            "REMEMBER()",
            "REMEMBER(note)",
            setup="REMEMBER = (lambda seen: lambda new='': seen.append(new) or ''.join(seen))([])",
        ),
    ],
    "in the environment": [
        *remembering("os.environ.get('SEEN', '')", "os.environ['SEEN'] = (memory + note)[-99999:]")
    ],
    "in a temporary file": [
        *remembering(
            f"open({OWN}).read() if os.path.exists({OWN}) else ''", f"open({OWN}, 'a').write(note)"
        )
    ],
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    only([ANEW], monkeypatch)
    monkeypatch.setattr(anew, "_DTYPES", {"float32": anew._DTYPES["float32"]})
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("SEEN", raising=False)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_refused(leak, tmp_path, capsys):
    (sentence,) = checked(broken(*LEAKS[leak]), tmp_path, capsys).values()
    assert "did not pass the leak gate" in sentence


@pytest.mark.parametrize("leak", ["everywhere", "in the last chain", "in an attribute"])
def test_a_leak_in_blocks_is_refused(leak, tmp_path, capsys):
    (sentence,) = checked(broken(*LEAKS[leak], regime="sequence"), tmp_path, capsys).values()
    assert "did not pass the leak gate" in sentence


def test_a_file_that_was_written_lately_is_not_read(tmp_path, capsys):
    place = repr(str(tmp_path / "elsewhere"))
    changes = remembering(
        f"open({place}).read() if os.path.exists({place}) else ''",
        f"open({place}, 'a').write(note)",
    )
    (sentence,) = checked(broken(*changes), tmp_path, capsys).values()
    assert "elsewhere was written after" in sentence


@pytest.mark.parametrize("name", ["windows", "documents", "offsets", "bytes"])
def test_what_names_the_text_is_not_given(name, tmp_path, capsys):
    changed = (RECOVER, f"batch.{name}\n        {RECOVER}")
    found = checked(broken(changed), tmp_path, capsys)
    assert any(f"batch.{name} is not given to interfaces" in text for text in found.values())


def test_the_honest_twin_passes(tmp_path, capsys):
    assert checked(broken(), tmp_path, capsys) == {}
