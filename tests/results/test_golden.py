"""What version 3 wrote is unedited, and is loaded, verified, shown, scored, and trained no more."""

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import pytest

from dihal_bench.core.checksum import sealed
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import write_json
from dihal_bench.leaderboard.verify import verify
from dihal_bench.results.migrations import SCHEMA
from dihal_bench.results.record import Record
from dihal_bench.results.study_schema import (
    GridFields,
    ReplicationFields,
    SweepFields,
    read_result,
)
from dihal_bench.runs.finished import FinishedRun
from dihal_bench.training import phases

from ..conftest import dihal

GOLDEN = Path(__file__).parents[1] / "golden"
V3 = GOLDEN / "v3"
RECORDS = [*sorted((V3 / "records").glob("*.json")), V3 / "run" / "record.json"]
RESULTS = {
    "grid.json": GridFields,
    "replication-span-2.json": ReplicationFields,
    "sweep-layers.json": SweepFields,
    "sweep-transform.json": SweepFields,
}
TASK = "task: few\noutput_type: rollouts\nrollouts: {lengths: [4, 8], count: 8}\n"


def test_nobody_has_edited_them() -> None:
    """Later versions may add to them."""
    listed = (line.split(maxsplit=1) for line in (GOLDEN / "v3.sha256").read_text().splitlines())
    for digest, name in listed:
        assert hashlib.sha256((V3 / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_are_migrated_verified_and_written_as_they_were(path: Path) -> None:
    record, written = Record.read(path), json.loads(path.read_text(encoding="utf-8"))
    assert record.text() == path.read_text(encoding="utf-8")
    assert (record.as_written["schema"], record.data["schema"]) == (3, SCHEMA)
    assert record.data["weights"] == {}
    assert {name: record.data[name] for name in written if name != "schema"} == {
        name: value for name, value in written.items() if name != "schema"
    }
    verify(record)


def test_the_leaderboard_takes_records_as_they_were_written(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    status, _, err = dihal("leaderboard", "--dir", str(tmp_path), "add", *map(str, RECORDS))
    assert status == 0, err
    assert {path.read_bytes() for path in folder.glob("*.json")} == {
        path.read_bytes() for path in RECORDS
    }
    status, _, err = dihal("leaderboard", "--dir", str(tmp_path))
    assert status == 0, err
    assert RECORDS[0].stem in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "kind"), RESULTS.items())
def test_results_of_studies_are_read(name: str, kind: type[SweepFields]) -> None:
    found, written = (
        read_result(V3 / "results" / name, kind),
        json.loads((V3 / "results" / name).read_text(encoding="utf-8")),
    )
    assert found == {**written, "schema": SCHEMA}


@pytest.mark.parametrize(("name", "kind"), RESULTS.items())
def test_results_of_a_newer_version_are_refused(
    name: str, kind: type[SweepFields], tmp_path: Path
) -> None:
    written = json.loads((V3 / "results" / name).read_text(encoding="utf-8"))
    content = {key: value for key, value in written.items() if key not in ("id", "seal")}
    write_json(tmp_path / name, sealed({**content, "schema": SCHEMA + 1}))
    with pytest.raises(UserError, match=rf"{name}: its schema is {SCHEMA + 1}, .* install the"):
        read_result(tmp_path / name, kind)


def test_an_edit_of_an_old_record_is_noticed_and_named(tmp_path: Path) -> None:
    written = json.loads(RECORDS[0].read_text(encoding="utf-8"))
    written["scores"][3]["value"] += 1e-9
    write_json(tmp_path / "record.json", written)
    with pytest.raises(UserError, match=r"the field scores\[3\] was changed after"):
        Record.read(tmp_path / "record.json")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in a folder where its backbone and text are found; nothing may train."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    shutil.copytree(V3, tmp_path / "v3")
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "v3")
    monkeypatch.setattr(phases, "train", never)
    return Path("run")


def test_the_run_is_complete_for_the_command_that_made_it(run: Path) -> None:
    _, *words = shlex.split(Record.read(run / "record.json").data["command"])
    status, _, err = dihal(*words, "--out", str(run))
    assert status == 0, err
    assert "already complete" in err


def test_the_run_is_scored_further_without_training(run: Path) -> None:
    before = Record.read(run / "record.json")
    Path("few.yaml").write_text(TASK)
    status, _, err = dihal("score", str(run), "--tasks", "few.yaml")
    assert status == 0, err
    after = Record.read(run / "record.json")
    assert after.written is None
    assert after.data["schema"] == SCHEMA
    assert after.own_scores == before.own_scores
    assert {score.task for score in after.scores} == {"corpus.jsonl:validation", "few"}
    assert after.data["run"] == before.data["run"]
    verify(after)


def test_more_chains_train_nothing(run: Path) -> None:
    """They are scored, and the rows that have as many as before are the same numbers."""
    before = Record.read(run / "record.json")
    _, *words = shlex.split(before.data["command"])
    words = [*words, "--set", "score.chains=4"]
    status, _, err = dihal(*words, "--out", str(run))
    assert status == 0, err
    after = Record.read(run / "record.json")
    assert after.data["config"]["score"]["chains"] == 4
    assert (after.data["run"], after.data["spent"]) == (before.data["run"], before.data["spent"])
    assert after.data["weights"]
    assert after.data["environment"] == before.data["environment"] != after.data["evaluated"]
    verify(after)

    def single(record: Record) -> dict[tuple[str, str, int], float]:
        own = [s for s in record.own_scores if s.kind == "exact" and s.signal == "sampled"]
        return {(s.subject, s.metric, s.steps): s.value for s in own if "interface" not in s.metric}

    assert single(after) == pytest.approx(single(before), rel=1e-5, abs=1e-6)
    status, _, err = dihal(*words, "--out", str(run))
    assert status == 0, err
    assert "already complete" in err


def test_a_run_is_worked_on_where_its_backbone_and_text_lie_by_now(run: Path) -> None:
    Path("elsewhere").mkdir()
    for name in ("backbone", "corpus.jsonl"):
        Path(name).rename(Path("elsewhere") / name)
    status, _, err = dihal("generate", str(run), "--tokens", "2")
    assert status == 2
    places = ["--backbone", "elsewhere/backbone", "--corpus", "elsewhere/corpus.jsonl"]
    status, out, err = dihal("generate", str(run), "--tokens", "2", *places)
    assert (status, bool(out)) == (0, True), err
    Path("few.yaml").write_text(TASK)
    status, _, err = dihal("score", str(run), "--tasks", "few.yaml", *places)
    assert status == 0, err
    text = Path("elsewhere/corpus.jsonl")
    text.write_text(text.read_text(encoding="utf-8").replace("a", "e"), encoding="utf-8")
    (run / "inputs.json").unlink()  # as of a run that was downloaded
    Path("few.yaml").write_text(TASK.replace("few", "more"))
    status, _, err = dihal("score", str(run), "--tasks", "few.yaml", *places)
    assert status == 2
    assert "is not the one that the run was trained on" in err


@pytest.mark.parametrize("name", ["hidden", "regress"])
def test_weights_of_version_3_are_loaded_and_a_truncation_is_noticed(run: Path, name: str) -> None:
    finished = FinishedRun(run)
    finished.interface(name)
    path = run / "weights" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=rf"{name}.safetensors is cut off or damaged"):
        finished.interface(name)
