"""A flipped bit or a truncation in a file that is kept: noticed, named, and mended or refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from dihal_bench.core import kept
from dihal_bench.core.errors import UserError
from dihal_bench.results.record import Record
from dihal_bench.runs.finished import FinishedRun

from ..conftest import Tiny, dihal
from ..damages import DAMAGES, flip

FLAGS = ("--layer", "2", "--controls", "regress")
KINDS = {  # of files that are made anew: in the run's folder, or in the cache
    "statistics": "run/shared/statistics-*.safetensors",
    "located layers": "run/shared/locate-*.json",
    "a phase": "run/shared/regress-diffusion-????????????.safetensors",
    "weights at a share": "run/shared/hidden-diffusion-*@25%.safetensors",
    "scores": "run/shared/scores-*.safetensors",
    "a gate": "run/shared/gate1-*.json",
    "reconstruction": "run/shared/bridge4-*.json",
    "recovery": "run/shared/oracle-*.json",
    "tokens": "cache/tokens/*/tokens",
    "bytes of tokens": "cache/tokens/*/bytes",
    "words of tokens": "cache/tokens/*/words",
    "starts of documents": "cache/tokens/*/starts",
    "facts about the text": "cache/sources/*.json",
}
SAME = ("scores", "sums", "weights", "gates", "locate", "bridge", "corpus", "backbone")


@dataclass(frozen=True)
class Place:
    """A run, and the cache that it used."""

    folder: Path
    tiny: Tiny

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def record(self) -> dict[str, Any]:
        data = Record.read(self.run / "record.json").data
        data["gates"].pop("seconds", None)  # the only time among what has to be the same
        for gate in data["gates"]["leak"].values():
            gate.pop("rescored", None)  # at places that follow from what was scored together
        return data

    def copy(self, to: Path) -> "Place":
        return Place(Path(shutil.copytree(self.folder, to)), self.tiny)

    def go_on(self) -> tuple[int, str]:
        """Issue the command; return its status, and what it said."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DIHAL_BENCH_CACHE", str(self.folder / "cache"))
            flags = (*self.tiny.flags(), *FLAGS, "--out", str(self.run))
            status, _, err = dihal("run", *flags)
        return status, err


@pytest.fixture(scope="module")
def whole(_tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run, which nobody changes."""
    place = Place(tmp_path_factory.mktemp("whole"), _tiny)
    status, err = place.go_on()
    assert status == 0, err
    return place


@pytest.fixture
def place(whole: Place, tmp_path: Path) -> Place:
    """A copy that a test may change."""
    return whole.copy(tmp_path / "copy")


@dataclass(frozen=True)
class Mended:
    """A run that went on after one file of each kind was damaged."""

    place: Place
    damaged: dict[str, Path]
    err: str


@pytest.fixture(scope="module", params=DAMAGES)
def mended(
    request: pytest.FixtureRequest, whole: Place, tmp_path_factory: pytest.TempPathFactory
) -> Mended:
    place = whole.copy(tmp_path_factory.mktemp("mended") / "copy")
    (place.run / "record.json").unlink()
    damaged = {kind: min(place.folder.glob(where)) for kind, where in KINDS.items()}
    for path in damaged.values():
        DAMAGES[request.param](path)
    status, err = place.go_on()
    assert status == 0, err
    return Mended(place, damaged, err)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_and_mended(mended: Mended, kind: str) -> None:
    path = mended.damaged[kind]
    lines = [line for line in mended.err.splitlines() if f"{path} " in line]
    assert len(lines) == 1
    assert lines[0].endswith("made anew")


def test_what_comes_of_it_is_the_same(mended: Mended, whole: Place) -> None:
    assert {name: mended.place.record[name] for name in SAME} == {
        name: whole.record[name] for name in SAME
    }
    assert mended.place.go_on()[1].count("made anew") == 0


def test_a_damaged_checkpoint_is_named_and_training_begins_anew(place: Place, whole: Place) -> None:
    (place.run / "record.json").unlink()
    for path in (place.run / "shared").glob("*-diffusion-*"):
        path.unlink()
    (checkpoint,) = place.run.glob("training-*.safetensors")
    flip(checkpoint)
    status, err = place.go_on()
    assert status == 0, err
    assert f"{checkpoint} does not match" in err
    assert place.record["weights"] == whole.record["weights"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["weights/hidden.safetensors", "record.json"])
def test_what_cannot_be_made_anew_is_refused(
    damage: Callable[[Path], None], name: str, place: Place
) -> None:
    damage(place.run / name)
    with pytest.raises(UserError) as caught:
        FinishedRun(place.run).interface("hidden")
    sentence = str(caught.value)
    assert str(place.run / name) in sentence
    assert sentence.count(". ") == 0
    assert ";" in sentence  # the remedy


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "inputs.json"])
def test_what_says_whose_a_folder_is_must_be_intact(
    damage: Callable[[Path], None], name: str, place: Place
) -> None:
    (place.run / "record.json").unlink()
    damage(place.run / name)
    status, err = place.go_on()
    assert status == 2
    assert f"{place.run / name} does not match" in err


def test_weights_of_another_run_are_refused(place: Place) -> None:
    weights = place.run / "weights"
    shutil.copy(weights / "regress.safetensors", weights / "hidden.safetensors")
    with pytest.raises(UserError, match=r"hidden.safetensors is not the file .* record speaks of"):
        FinishedRun(place.run).interface("hidden")


def test_a_run_without_its_weights_is_refused(place: Place) -> None:
    (place.run / "weights" / "hidden.safetensors").unlink()
    with pytest.raises(UserError, match=r"hidden.safetensors cannot be read .*; put it back"):
        FinishedRun(place.run).interface("hidden")


def test_no_single_bit_and_no_truncation_is_missed(tmp_path: Path) -> None:
    """Of a file of either kind, header and digest included."""
    files = tmp_path / "it.safetensors", tmp_path / "it.json"
    kept.write_tensors(files[0], {"x": torch.arange(3.0)}, {"phase": {"spent": 1}})
    kept.write_json(files[1], {"x": [1.5, None], "name": "hidden"})
    for path in files:
        content = path.read_bytes()
        assert kept.usable(path)
        for bit in range(0, len(content) * 8, 7):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert not kept.usable(path), bit
        for length in range(0, len(content), 5):
            path.write_bytes(content[:length])
            assert not kept.usable(path), length
        with pytest.raises(kept.Damaged, match=path.name):
            kept.read_json(path) if path == files[1] else kept.read_tensors(path)


def test_files_of_version_3_are_read_if_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"verdict": "pass"}))
    assert kept.read_json(path) == {"verdict": "pass"}
    path.write_text(path.read_text()[:-2])
    with pytest.raises(kept.Damaged, match=r"facts\.json is cut off or damaged"):
        kept.read_json(path)


def test_equal_contents_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        kept.write_tensors(tmp_path / name, {"x": torch.ones(2)}, {"phase": {}, "rows": [1]})
    assert kept.sha256(tmp_path / "one") == kept.sha256(tmp_path / "two")


def test_tables_are_written_once_and_needed(
    whole: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where they are large: everything else is as it was."""
    monkeypatch.setattr(kept, "_LARGE", 10_000)
    place = Place(tmp_path / "it", whole.tiny)
    status, err = place.go_on()
    assert status == 0, err
    same = [name for name in SAME if name != "weights"]
    assert {n: place.record[n] for n in same} == {n: whole.record[n] for n in same}
    tables = [*place.run.rglob("common-*.safetensors")]
    assert len({path.name for path in tables}) == len({path.stat().st_ino for path in tables}) == 1
    assert {path.parent.name for path in tables} == {"shared", "weights"}
    finished, usual = FinishedRun(place.run), FinishedRun(whole.run)
    for name in finished.names:
        state = usual.interface(name).state_dict()
        for key, value in finished.interface(name).state_dict().items():
            assert torch.equal(value, state[key])
    flip(place.run / "weights" / tables[0].name)
    with pytest.raises(UserError, match=tables[0].name):
        FinishedRun(place.run).interface("hidden")
