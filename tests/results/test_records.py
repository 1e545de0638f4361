"""Records: what is written is what is read, and nothing that is wrong is either."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_path, write_json
from dihal_bench.results.migrations import OLDEST, SCHEMA
from dihal_bench.results.record import Record, validate
from dihal_bench.results.schema import KINDS

from .content import CONTENT, DATA, SCORE, TEACHER, changed, of_subject, without


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "record.json"
    Record.of(CONTENT).write(path)
    back = Record.read(path)
    assert back.data == DATA
    assert {name: back.data[name] for name in CONTENT} == CONTENT
    assert back.scores == back.own_scores == [SCORE, TEACHER]
    before = path.read_bytes()
    back.write(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", DATA)
def test_every_missing_field_is_named(name):
    with pytest.raises(UserError, match=rf"here\.json: .*{name}"):
        validate(without(name), "here.json")


@pytest.mark.parametrize("name", SCORE.to_dict())
def test_every_missing_field_of_a_score_is_named(name):
    with pytest.raises(UserError, match=rf"here\.json: scores\[0\]: the field {name} is missing"):
        validate(without("scores", 0, name), "here.json")


@pytest.mark.parametrize("name", [name for name in DATA if name != "schema"])
@pytest.mark.parametrize("wrong", [True, 1.5, None])
def test_every_wrong_type_is_named(name, wrong):
    with pytest.raises(
        UserError, match=rf"here\.json: the field {name} (has the wrong type|is '.*)"
    ):
        validate(changed(name, to=wrong), "here.json")


def test_a_score_may_have_no_interval():
    validate(Record.of(changed("scores", 0, "lo", to=None)).data, "here.json")


@pytest.mark.parametrize("name", SCORE.to_dict())
@pytest.mark.parametrize("wrong", [True, ["x"], None])
def test_every_wrong_type_in_a_score_is_named(name, wrong):
    if wrong is None and name in ("lo", "hi"):
        return
    with pytest.raises(UserError, match=rf"scores\[0\]: the field {name} (has the wrong|is)"):
        validate(changed("scores", 0, name, to=wrong), "here.json")


@pytest.mark.parametrize(
    "path",
    [
        ("scores", 0, "value"),
        ("scores", 0, "lo"),
        ("scores", 0, "details", "sum_nll"),
        ("sums", "rows", 0, "sums", "nll@8", 1),
        ("bridge", "fvu_mmse"),
        ("bridge", "curves", "hidden", "diffusion", 0, "total"),
    ],
)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_wherever_they_stand(path, wrong, tmp_path):
    place = tmp_path / "record.json"
    with pytest.raises(UserError, match=rf"{path[-1]}.* is {wrong}, not a finite number"):
        Record(changed(*path, to=wrong)).write(place)
    with pytest.raises(UserError, match="not a finite number"):
        Record.of(changed(*path, to=wrong)).write(place)
    assert not place.exists()
    place.write_text(json.dumps(changed(*path, to=wrong)))
    with pytest.raises(UserError, match="not a finite number"):
        Record.read(place)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a record is a JSON object"),
        (changed("schema", to=SCHEMA + 1), f"schema is {SCHEMA + 1}, .* install the newer"),
        (changed("schema", to=OLDEST - 1), f"schema is {OLDEST - 1}, .* version that wrote it"),
        (changed("extra", to=1), "the field extra is unknown to this version"),
        (changed("weights", to={"other": "0" * 64}), "weights has other, which is neither"),
        (changed("weights", "hidden", to="0" * 63), "weights: the field hidden is '0+'"),
        (
            changed("scores", 0, to=3),
            r"scores\[0\] has the wrong type: it is a number and must be an object",
        ),
        (changed("gates", to=[]), "the field gates .* it is a list and must be an object"),
        (changed("config", "seed", to="a"), "field seed .* it is text and must be a whole number"),
        (changed("interface", "replaced", to=-3), "replaced is '-3'; it must be 1 or more"),
        (changed("regime", to="both"), "regime is 'both'; it must be 'causal' or 'sequence'"),
        (changed("created", to="tomorrow"), "created: 'tomorrow' is no time in ISO 8601"),
        (changed("created", to="2026-01-01T00:00:00"), "is no time in ISO 8601 with its zone"),
        (changed("scores", 0, "kind", to="guess"), f"kind is 'guess', not one of {KINDS[0]}"),
        (changed("scores", 0, "extra", to=1), "the field extra is unknown"),
        (changed("gates", to={}), "gates: the field leak is missing"),
        (changed("gates", "leak", to=[]), "gates: the field leak has the wrong type"),
        (changed("gates", "leak", to={}), "hidden has a score but no passed leak gate"),
        (changed("gates", "leak", "hidden", to="pass"), "field hidden has the wrong type"),
        (changed("gates", "leak", "hidden", "future", to=1.0), "its numbers did not pass"),
        (
            changed("interface", "replaced", to=8),
            "interface.replaced is 8, from block 0 to",
        ),
        (changed("interface", "replaced", to=-3), "the field replaced is '-3'"),
        (changed("interface", "name", to="teacher"), "that is the backbone itself"),
        (changed("interface", "name", to="my face"), "the field name is 'my face'"),
        (changed("config", "interface", to="other"), "config is of another interface"),
        (
            changed("config", "budget", "matched", to="total"),
            "budget.matched is not that of",
        ),
        (changed("config", "score", "resamples", to=10**12), "the field resamples is"),
        (changed("config", "seed", to=-1), "the field seed is '-1'"),
        (changed("spent", "hidden", to={"diffusion2": {}}), "diffusion2"),
        (changed("bridge", "oracle", "sigmas", to=[]), "different lengths"),
        (changed("command", to="x" * 30_000), "the field command is"),
        (changed("sums", "documents", to=10**6), "the field documents is 1000000, of 2 parts"),
        (changed("sums", "tokens", to=[0.0, 0.0]), "nothing was scored"),
        (changed("sums", "bytes", to=[-1.0, 0.0]), "a count is negative"),
        (changed("sums", "rows", to=[CONTENT["sums"]["rows"][0]] * 2), "one row twice"),
        (changed("sums", "rows", 0, "sums", "nll@x", to=[1.0, 1.0]), "is the name of no sum"),
        (changed("sums", "rows", 0, "subject", to="evil"), "sums has a row of evil that no score"),
        (changed("gates", "leak", "hidden", "verdict", to="inconclusive"), "no passed leak gate"),
        (of_subject("ridge"), "ridge has a score but no passed leak gate"),
        (changed("extra", to=1), "here.json: the field extra is unknown"),
        (changed("tasks", to=[]), "the field tasks has the wrong type"),
        (changed("sums", "tokens", to=[1.0]), r"sums.words: expected a list of 1 numbers"),
        (changed("sums", "words", to=[1.0, True]), r"sums.words: not all of it are numbers"),
        (changed("sums", "rows", to={}), r"sums: the field rows is no list"),
        (changed("sums", "rows", 0, "more", to=1), r"sums.rows\[0\]: the field more is unknown"),
        (
            changed("sums", "rows", 0, "sums", "nll@8", to=[1.0]),
            r"sums.rows\[0\].sums.nll@8: expected a list of 2 numbers",
        ),
    ],
)
def test_what_is_wrong_is_said(data, message):
    with pytest.raises(UserError, match=message):
        validate(data, "here.json")


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "record.json"
    Record(DATA).write(path)
    path.write_text(path.read_text().replace('"layer": 1', '"layer": 2, "layer": 1'))
    with pytest.raises(UserError, match="the key layer is there twice"):
        Record.read(path)


def test_the_teacher_needs_no_gate():
    assert "teacher" not in DATA["gates"]["leak"]
    validate(DATA, "here.json")


@pytest.mark.parametrize(
    ("path", "to", "name"),
    [
        (("scores", 0, "value"), 3.9, r"scores\[0\]"),
        (("scores", 0, "details", "sum_nll"), 3900.0, r"scores\[0\]"),
        (("config", "seed"), 1, r"config\.seed"),
        (("sums", "rows", 0, "sums", "nll@8", 0), 2399.0, r"sums\.rows"),
        (("created",), "2025-01-01T00:00:00+00:00", "created"),
        (("environment", "more"), 1, r"environment\.more"),
        (("layer_policy",), "early", "layer_policy"),
        (("tasks",), {"late": {"key": "k", "rows": []}}, r"tasks\.late"),
        (("run",), "embedding-0123", "run"),
        (("id",), "hidden-0123-01234567", "id"),
        (("seal", "layer"), "01234567", "layer"),
        (("seal", "more"), "01234567", "more"),
    ],
)
def test_what_is_changed_afterwards_is_noticed_and_named(path, to, name):
    with pytest.raises(UserError, match=rf"here\.json: the field {name} was changed after"):
        validate(changed(*path, to=to), "here.json")


def test_a_record_without_a_score_that_it_had_is_noticed():
    data = changed("scores", to=[])
    with pytest.raises(UserError, match="sums has a row of hidden that no score is of"):
        validate(data, "here.json")
    scores = [*CONTENT["scores"], replace(SCORE, metric="ppl").to_dict()]
    data = Record.of({**CONTENT, "scores": scores}).data
    with pytest.raises(UserError, match=r"the field scores\[2\] was changed"):
        validate({**data, "scores": scores[:2]}, "here.json")


def test_the_id_stands_for_the_content_and_not_for_how_it_is_written():
    again = Record.of(dict(reversed(CONTENT.items()))).data
    assert again == DATA
    assert DATA["id"].startswith("hidden-0123-")
    other = Record.of({**CONTENT, "layer": 2}).data
    assert other["id"] != DATA["id"]
    assert Record.of(json.loads(json.dumps(DATA))).data == DATA  # sealed again: the same
    numbered = Record.of({**CONTENT, "locate": {10: 1.0, 9: 2.0}})
    validate(json.loads(json.dumps(numbered.data)), "here.json")


def test_a_record_has_a_line_for_every_score(tmp_path):
    scores = [replace(SCORE, metric=name).to_dict() for name in ("nll", "ppl")]
    content = {**CONTENT, "scores": [*scores, TEACHER.to_dict()]}
    Record.of(content).write(tmp_path / "record.json")
    lines = (tmp_path / "record.json").read_text().splitlines()
    assert sum('"metric"' in line for line in lines) == 3


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_record_is_named(tmp_path, content):
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"record\.json is not a readable record") as raised:
        Record.read(path)
    assert str(raised.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{\n "schema": 3,\n "id": "hid', "is cut off in line 3"),
        ('{\n "schema": 3,\n', "is cut off in line 2"),
        ('{\n "schema" 3}\n', "line 2, column 11 is no JSON"),
        ('{"schema": ' + "9" * 5000 + "}", "more digits than can be read"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_broken_json_is_said_with_its_line(tmp_path, content, said):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        Record.read(path)


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (
            ("scores", 0, "value"),
            99.0,
            r"value is 99, .*; the field scores\[0\] was changed after .*",
        ),
        (
            ("gates", "leak", "hidden", "verdict"),
            "fail",
            r".* the field gates\.leak was changed .*",
        ),
        (("budget", "within"), 3, r".*; the field budget\.within was changed after .*"),
        (("scores", 0, "value"), float("nan"), "value is nan, not a finite number"),
        (("command",), "another", "the field command was changed after the record was written: .*"),
        (("seal",), {}, "the field .* was changed after the record was written: .*"),
        (("seal",), [], "the field seal has the wrong type.*"),
    ],
)
def test_whatever_is_wrong_has_one_remedy(path, to, said):
    with pytest.raises(UserError) as raised:
        validate(changed(*path, to=to), "here.json")
    pattern = rf"here\.json: .*{said}; restore the record from its run, or run and score anew\."
    assert re.fullmatch(pattern, str(raised.value))


def test_what_was_wrong_from_the_start_was_not_changed():
    wrong = Record.of(changed("scores", 0, "value", to=99.0)).data
    with pytest.raises(UserError, match=r"of its own interval; restore the record from its run"):
        validate(wrong, "here.json")


def test_what_is_wrong_with_a_record_names_its_file_once(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed("gates", to=[])))
    with pytest.raises(UserError) as raised:
        Record.read(path)
    assert str(raised.value).count(str(path)) == 1
    assert "Input should" not in str(raised.value)


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    writing = atomic_path(path)
    temporary = writing.__enter__()
    assert temporary.parent == path.parent  # the same file system, or renaming would copy
    temporary.write_text("half of the n")
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_write_that_is_cut_off_leaves_no_new_file(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "new.json", {"nan": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot write .*file/record\.json: (File exists|Not a dir)"
    ):
        write_json(tmp_path / "file" / "record.json", {})


def test_json_is_the_same_whatever_the_order(tmp_path):
    write_json(tmp_path / "a", {"x": 1, "y": "é"})
    write_json(tmp_path / "b", {"y": "é", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "é" in (tmp_path / "a").read_text(encoding="utf-8")


def test_written_files_are_readable_as_others_are(tmp_path):
    (tmp_path / "usual").write_text("")
    write_json(tmp_path / "ours", {})
    modes = {Path(tmp_path / name).stat().st_mode for name in ("usual", "ours")}
    assert len(modes) == 1


ANEW = {
    **{"verdict": "pass", "signal": "sampled", "steps": 16, "chains": [3, 8], "places": 24},
    **{"disagreement": 0.0, "yardstick": None, "tolerance": 1e-4},
}


def scored_anew(**changes: object) -> dict[str, Any]:
    gate = {**DATA["gates"]["leak"]["hidden"], "version": 2, "rescored": [{**ANEW, **changes}]}
    return changed("gates", "leak", "hidden", to=gate)


def test_a_record_says_what_was_scored_anew() -> None:
    record = Record.of(scored_anew()).data
    assert validate(record, "here.json")["gates"]["leak"]["hidden"]["version"] == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"disagreement": 2e-4}, "its disagreement is larger than its tolerance"),
        ({"disagreement": 0.01, "tolerance": 0.02}, "tolerance"),
        ({"verdict": "leak"}, "verdict"),
        ({"places": 0}, "places"),
        ({"steps": 1}, "hidden has a score in 16 steps, and its leak gate none"),
    ],
)
def test_a_record_that_did_not_pass_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        validate(scored_anew(**change), "here.json")
