"""What goes into the leaderboard's folder, and what does not."""

import copy
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.add import add
from dihal_bench.leaderboard.store import LARGEST, Store, read_stranger
from dihal_bench.leaderboard.verify import verify, within_budget
from dihal_bench.results.record import Record, validate

from .conftest import Make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


def quiet(text: str) -> None:
    del text


def test_a_run_is_added_once(finished: dict[str, Path], store: Store) -> None:
    said: list[str] = []
    (path,) = add(store, [finished["hidden"]], say=said.append)
    assert path == store.folder / f"{Record.read(path).data['id']}.json"
    assert path.read_bytes() == (finished["hidden"] / "record.json").read_bytes()
    assert add(store, [finished["hidden"], path], say=said.append) == []
    assert [line.split(":")[0] for line in said] == ["added", "already there", "already there"]
    records, problems = store.read()
    assert [r.data["run"] for r in records] == [Record.read(path).data["run"]]
    assert problems == []


def test_all_or_none_are_added(finished: dict[str, Path], store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing holds no complete run"):
        add(store, [finished["hidden"], tmp_path / "nothing"], say=quiet)
    assert not store.folder.exists()


def test_a_folder_of_records_is_told_from_a_run(make: Make, store: Store, tmp_path: Path) -> None:
    record = make()
    record.write(tmp_path / f"{record.data['id']}.json")
    with pytest.raises(UserError, match=rf"give the files: {tmp_path}/\*\.json"):
        add(store, [tmp_path], say=quiet)


def test_another_record_of_a_run_is_refused(make: Make, store: Store, tmp_path: Path) -> None:
    first, other = make(), make(created="2020-01-01T00:00:00+00:00")
    for name, record in (("first", first), ("other", other)):
        record.write(tmp_path / f"{name}.json")
    add(store, [tmp_path / "first.json"], say=quiet)
    with pytest.raises(UserError, match=f"{first.data['id']}.json, and they differ in .* created"):
        add(store, [tmp_path / "other.json"], say=quiet)
    assert [path.stem for path in store.paths()] == [first.data["id"]]


def test_a_run_that_was_scored_further_takes_its_place(
    make: Make, store: Store, tmp_path: Path
) -> None:
    first = make()
    extra = copy.deepcopy(first.data["scores"][0]) | {"task": "more", "signal": "generated"}
    later = make(
        scores=[*first.data["scores"], extra], tasks={"more": {"key": "k", "rows": []}}, audits={}
    )
    first.write(tmp_path / "first.json")
    later.write(tmp_path / "later.json")
    add(store, [tmp_path / "first.json"], say=quiet)
    add(store, [tmp_path / "later.json"], say=quiet)
    assert [path.stem for path in store.paths()] == [later.data["id"]]
    with pytest.raises(UserError, match=r"differ in the field tasks\.more"):
        add(store, [tmp_path / "first.json"], say=quiet)


def test_several_processes_may_add_at_once(make: Make, store: Store, tmp_path: Path) -> None:
    paths = []
    for seed in range(1, 9):
        paths.append(tmp_path / f"{seed}.json")
        make(run=f"hidden-{seed:012x}").write(paths[-1])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: add(store, [path, *paths[:2]], say=quiet), paths))
    records, problems = store.read()
    assert [r.data["run"] for r in records] == [f"hidden-{seed:012x}" for seed in range(1, 9)]
    assert problems == []


def test_two_records_of_one_run_added_at_once_leave_one(
    make: Make, store: Store, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{year}.json" for year in range(2001, 2009)]
    for path in paths:
        make(created=f"{path.stem}-01-01T00:00:00+00:00").write(path)

    def attempt(path: Path) -> bool:
        try:
            return bool(add(store, [path], say=quiet))
        except UserError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, paths)) == 1
    assert len(store.paths()) == 1


def test_what_did_not_keep_to_its_budget_is_taken_with_a_word(
    make: Make, store: Store, tmp_path: Path
) -> None:
    record = make()
    spent = copy.deepcopy(record.data["spent"])
    spent["hidden"]["diffusion"]["tokens"] *= 2
    lying = make(spent=spent)
    lying.write(tmp_path / "lying.json")
    with pytest.raises(UserError, match=r"spent\.hidden\.diffusion\.tokens is 2,048, the budg"):
        add(store, [tmp_path / "lying.json"], say=quiet)
    honest = make(spent=spent, budget={**record.data["budget"], "within": False})
    honest.write(tmp_path / "honest.json")
    said: list[str] = []
    add(store, [tmp_path / "honest.json"], say=said.append)
    assert "section of unmatched runs" in said[-1]
    assert not within_budget(honest.data)
    assert within_budget(record.data)


def test_what_a_run_says_follows_from_its_sums(make: Make) -> None:
    for interface in ("hidden", "embedding"):
        verify(make(interface))


@pytest.mark.parametrize("part", ["value", "lo", "hi", "n"])
@pytest.mark.parametrize(
    ("subject", "metric"),
    [
        ("hidden", "nll"),
        ("hidden", "diffusion_gain"),
        ("regress", "kl"),
        ("teacher", "ppl"),
        ("hidden", "brier1"),
        ("token-mean", "nll_minus_interface"),
    ],
)
def test_a_score_that_does_not_is_named(make: Make, part: str, subject: str, metric: str) -> None:
    scores = copy.deepcopy(make().data["scores"])
    index = next(
        i for i, s in enumerate(scores) if (s["subject"], s["metric"]) == (subject, metric)
    )
    scores[index][part] = scores[index][part] + (1 if part == "n" else 1e-3)
    with pytest.raises(UserError, match=rf"scores\[{index}\]\.{part} .*is"):
        verify(make(scores=scores))


def test_a_likelihood_without_sums_is_named(make: Make) -> None:
    record = make()
    sums = copy.deepcopy(record.data["sums"])
    sums["rows"] = [row for row in sums["rows"] if row["subject"] != "regress"]
    with pytest.raises(UserError, match=r"\(regress \w+, S=1, K=1\) follows from no sums"):
        verify(make(sums=sums))
    with pytest.raises(UserError, match="rows has no row of regress, which took part"):
        validate(make(sums=sums).data, "here.json")


@pytest.mark.parametrize(
    ("part", "to"),
    [("kind", "exact"), ("nfe", 1), ("unit", "bananas"), ("dtype", "int8"), ("version", 99)],
)
def test_what_a_score_says_of_itself_is_held_against_the_rest(
    make: Make, part: str, to: Any
) -> None:
    scores = copy.deepcopy(make().data["scores"])
    own = ("hidden", "nll", 4, 2)
    index = next(
        i
        for i, s in enumerate(scores)
        if (s["subject"], s["metric"], s["steps"], s["chains"]) == own
    )
    scores[index][part] = to
    with pytest.raises(UserError, match=rf"scores\[\d+\]\.(part|{part}|nfe) "):
        verify(make(scores=scores))


def test_a_score_that_follows_from_nothing_is_named(make: Make) -> None:
    scores = copy.deepcopy(make().data["scores"])
    scores.append({**scores[-1], "steps": 7})
    with pytest.raises(UserError, match=r"S=7, K=.* follows from no sums"):
        verify(make(scores=scores))


def test_a_control_and_a_missing_phase_count_too(make: Make) -> None:
    spent = copy.deepcopy(make().data["spent"])
    spent["regress"]["diffusion"]["tokens"] = 1
    with pytest.raises(UserError, match=r"spent\.regress\.diffusion\.tokens is 1"):
        verify(make(spent=spent))
    with pytest.raises(UserError, match=r"spent\.hidden has no diffusion phase"):
        verify(make(spent={}))


def test_two_records_of_a_run_are_not_added_together(
    make: Make, store: Store, tmp_path: Path
) -> None:
    make().write(tmp_path / "one.json")
    make(created="2020-01-01T00:00:00+00:00").write(tmp_path / "two.json")
    with pytest.raises(UserError, match="are of one run"):
        add(store, [tmp_path / "one.json", tmp_path / "two.json"], say=quiet)


def test_scores_of_a_task_that_stayed_the_same_stay(
    make: Make, store: Store, tmp_path: Path
) -> None:
    first = make()
    extra = copy.deepcopy(first.data["scores"][0]) | {"task": "more", "signal": "generated"}
    tasks = {"more": {"key": "k", "rows": []}}
    for name, value in (("one", 1.0), ("two", 2.0)):
        scores = [*first.data["scores"], {**extra, "value": value, "lo": 0.5, "hi": 2.5}]
        make(scores=scores, tasks=tasks, audits={}).write(tmp_path / f"{name}.json")
    add(store, [tmp_path / "one.json"], say=quiet)
    with pytest.raises(UserError, match=r"differ in the field scores \(task more\)"):
        add(store, [tmp_path / "two.json"], say=quiet)


def test_of_other_scores_of_a_task_none_is_the_later(
    make: Make, store: Store, tmp_path: Path
) -> None:
    scored = [["hidden", 1, 1]]
    states = {
        "first": ({"key": "k", "rows": scored}, {}),
        "otherwise": ({"key": "k2", "rows": scored}, {}),
        "fewer": ({"key": "k", "rows": []}, {}),
        "audited": ({"key": "k", "rows": scored}, {"frontier": []}),
        "more": ({"key": "k", "rows": [*scored, ["hidden", 4, 2]]}, {}),
    }
    for name, (task, audit) in states.items():
        make(tasks={"more": task}, audits={"more": audit}).write(tmp_path / f"{name}.json")
    add(store, [tmp_path / "first.json"], say=quiet)
    for name, field in (("otherwise", ""), ("fewer", r"\.rows"), ("audited", "")):
        with pytest.raises(UserError, match=rf"(tasks|audits)\.more{field}; delete one of them"):
            add(store, [tmp_path / f"{name}.json"], say=quiet)
    (later,) = add(store, [tmp_path / "more.json"], say=quiet)
    assert store.paths() == [later]
    with pytest.raises(UserError, match=r"field tasks\.more\.rows"):
        add(store, [tmp_path / "first.json"], say=quiet)


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"\xff"])
def test_a_damaged_record_is_restored(
    make: Make, store: Store, tmp_path: Path, damage: bytes
) -> None:
    record, said = make(), list[str]()
    record.write(tmp_path / "it.json")
    (place,) = add(store, [tmp_path / "it.json"], say=quiet)
    before = place.read_bytes()
    place.write_bytes(damage)
    assert add(store, [tmp_path / "it.json"], say=said.append) == [place]
    assert said == [f"restored: {place}, which was damaged"]
    assert place.read_bytes() == before


def test_nothing_is_written_over_what_is_no_file(make: Make, store: Store, tmp_path: Path) -> None:
    record = make()
    record.write(tmp_path / "it.json")
    place = store.place(record)
    for into in (tmp_path / "it.json", tmp_path / "nothing"):
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(into)
        with pytest.raises(UserError, match=rf"{place} is no regular file"):
            add(store, [tmp_path / "it.json"], say=quiet)
        place.unlink()


def test_what_nobody_thought_of_is_said_of_its_record(
    make: Make, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make().write(tmp_path / "it.json")

    def fails(record: Record) -> None:
        raise KeyError("top1")

    monkeypatch.setattr("dihal_bench.leaderboard.add.verify", fails)
    with pytest.raises(UserError, match=r"it.json cannot be verified \(KeyError: 'top1'\)"):
        add(store, [tmp_path / "it.json"], say=quiet)


def test_a_folder_that_cannot_be_is_said(finished: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be made"):
        add(Store(tmp_path / "file" / "records"), [finished["hidden"]], say=quiet)


def changed(record: Record, **fields: Any) -> str:
    return json.dumps(record.data | fields)


def test_strangers_are_read_with_suspicion(make: Make, store: Store, tmp_path: Path) -> None:
    record = make()
    good = store.place(record)
    record.write(good)
    text = good.read_text(encoding="utf-8")
    bad: dict[str, tuple[bytes, str]] = {
        "truncated.json": (text[:-50].encode(), "truncated.json is not a readable record"),
        "latin.json": (text.encode("utf-16"), "latin.json is not a readable record"),
        "deep.json": (b"[" * 200_000, "deep.json is not a readable record"),
        "schema.json": (changed(record, schema=99).encode(), "schema.json: its schema is 99"),
        "nan.json": (
            text.replace('"value": ', '"value": NaN, "old": ', 1).encode(),
            r"nan.json: .*nan, not a finite number",
        ),
        "huge.json": (b" " * (LARGEST + 1), "huge.json has 16,777,217 bytes"),
        "surrogate.json": (
            text.replace('"command": "', '"command": "\\ud800').encode(),
            "surrogate.json: the field command is no text",
        ),
        "count.json": (
            re.sub(r'"layer": \d+', f'"layer": {10**300}', text).encode(),
            "count.json: the field layer is larger",
        ),
        "digits.json": (b'{"schema": ' + b"9" * 5000 + b"}", "digits.json is not a readable"),
        "edited.json": (
            changed(record, command="another").encode(),
            "edited.json: the field command was changed",
        ),
        "other.json": (text.encode(), f"other.json: the field id is {record.data['id']}; name"),
        "notes.txt": (b"hello", "notes.txt is not a readable record"),
    }
    for name, (content, _) in bad.items():
        (store.folder / name).write_bytes(content)
    (store.folder / "link.json").symlink_to(good)
    (store.folder / "folder.json").mkdir()
    bad |= {name: (b"", f"{name} is no regular file") for name in ("link.json", "folder.json")}
    records, problems = store.read()
    assert [r.data["id"] for r in records] == [record.data["id"]]
    assert len(problems) == len(bad)
    for _, said in bad.values():
        assert sum(re.search(said, problem) is not None for problem in problems) == 1, said


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", ".hidden", "", "a..b", "x" * 200])
def test_names_that_lead_elsewhere_are_refused(make: Make, store: Store, name: str) -> None:
    record = make(run=name)
    path = store.folder / "record.json"
    record.write(path)
    with pytest.raises(UserError, match=r"record.json: the field (id|run) is"):
        read_stranger(path)
    with pytest.raises(UserError, match=r"record.json: the field (id|run) is"):
        add(store, [path], say=quiet)
    assert [p.name for p in store.folder.iterdir() if not p.name.startswith(".")] == [path.name]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add a first run by dihal-bench leaderboard add"):
        Store(tmp_path / "none").read()
