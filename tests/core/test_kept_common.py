"""Tensors that kept files have in common lie on disk once, and damage to them is noticed."""

from pathlib import Path

import pytest
import torch

from dihal_bench.core import kept

from ..damages import DAMAGES

LARGE = torch.arange(64.0).reshape(16, 4)
SMALL = torch.arange(3)


@pytest.fixture(autouse=True)
def _low_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_LARGE", 100)


def write(path: Path, table: torch.Tensor = LARGE, **facts: int) -> Path:
    own = {"table": table, "small": SMALL, "trained": torch.full((200,), len(path.stem))}
    kept.write_tensors(path, own, facts, common=("table", "small"))
    return path


def test_several_files_share_one_and_read_as_if_they_did_not(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.safetensors", facts=3) for name in ("a", "bb")]
    other = write(tmp_path / "other.safetensors", LARGE + 1)
    assert len(list(tmp_path.glob("common-*"))) == 2
    for path, table in (*((path, LARGE) for path in paths), (other, LARGE + 1)):
        found = kept.read_tensors(path)
        assert found.tensors.keys() == {"table", "small", "trained"}
        assert torch.equal(found.tensors["table"], table)
        assert torch.equal(found.tensors["small"], SMALL)
        assert kept.usable(path)
    assert found.facts == {}
    assert kept.read_tensors(paths[0]).facts == {"facts": 3}


def test_the_digest_of_a_file_is_that_of_its_tables_too(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "it.safetensors")
    other = write(tmp_path / "b" / "it.safetensors", LARGE + 1)
    assert kept.sha256(one) != kept.sha256(other)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_what_is_shared_is_noticed_named_and_mended(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "it.safetensors")
    (common,) = tmp_path.glob("common-*")
    DAMAGES[damage](common)
    assert not kept.usable(path)
    assert common.name in capsys.readouterr().err
    with pytest.raises(kept.Damaged, match=common.name):
        kept.read_tensors(path)
    write(path)
    assert torch.equal(kept.read_tensors(path).tensors["table"], LARGE)


def test_another_intact_file_in_its_place_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "it.safetensors")
    (mine,) = tmp_path.glob("common-*")
    other = write(tmp_path / "b.safetensors", LARGE + 1)
    (theirs,) = {*tmp_path.glob("common-*")} - {mine}
    mine.write_bytes(theirs.read_bytes())
    assert kept.usable(other)
    with pytest.raises(kept.Damaged, match=mine.name):
        kept.check(path)


def test_a_folder_near_by_is_linked_to(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "it.safetensors")
    path = tmp_path / "weights" / "it.safetensors"
    kept.write_tensors(path, {"table": LARGE}, common=["table"], near=tmp_path / "shared")
    one, two = tmp_path.rglob("common-*")
    assert one.samefile(two)
    (tmp_path / "shared" / one.name).unlink()
    assert torch.equal(kept.read_tensors(path).tensors["table"], LARGE)


def test_small_tensors_stay_where_they_were(tmp_path: Path) -> None:
    kept.write_tensors(tmp_path / "a", {"small": SMALL}, common=["small"])
    kept.write_tensors(tmp_path / "b", {"small": SMALL})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
