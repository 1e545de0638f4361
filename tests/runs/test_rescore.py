"""More scores for a finished run, through the command line."""

import json
import shutil
from pathlib import Path

import pytest

from dihal_bench.core import kept
from dihal_bench.results.record import Record
from dihal_bench.runs.finished import FinishedRun

from ..conftest import Tiny, dihal

TASK = (
    "task: few\noutput_type: samples\nsamples: {count: 24, tokens: 12, bleu: 8, mauve_seeds: 1, "
    "permutations: 9, resamples: 100, judge: JUDGE}\n"
)
ROLLING = """
task: told
dataset_path: json
dataset_kwargs: {data_files: {validation: told.jsonl}}
validation_split: validation
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""


@pytest.fixture(scope="module")
def _run(_tiny: Tiny, _tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rescore") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(_tiny_cache))
        flags = _tiny.flags(text__window=32)
        status, _, err = dihal(
            "run", *flags, "--layer", "2", "--controls", "regress", "--out", str(folder)
        )
        assert status == 0, err
    return folder


@pytest.fixture
def run(_run: Path, tmp_path: Path, tiny: Tiny) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(_run, tmp_path / "run"))


@pytest.fixture
def judge(tmp_path: Path, tiny: Tiny) -> Path:
    from ..conftest import small_llama

    folder = Path(shutil.copytree(tiny.backbone, tmp_path / "judge"))
    small_llama(blocks=3).save_pretrained(folder)
    return folder


@pytest.fixture
def task(tmp_path: Path, judge: Path) -> Path:
    path = tmp_path / "few.yaml"
    path.write_text(TASK.replace("JUDGE", str(judge)), encoding="utf-8")
    return path


MINE = """
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.core.registry import INTERFACES


@INTERFACES.register("mine")
class Mine(HiddenSpace):
    "A user's own."
"""


def test_the_code_of_a_run_is_that_of_the_run_and_not_from_its_folder(
    tiny: Tiny, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
    (there / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(there)
    own = ("--include", "mine.py", "--interface", "mine", "--controls", "", "--layer", "2")
    short = tiny.flags(budget__diffusion_tokens=256, score__tokens=128)
    status, _, err = dihal("run", *short, *own, "--out", "run")
    assert status == 0, err
    run = there / "run"
    generate = ("generate", str(run), "--tokens", "2")
    assert dihal(*generate)[0] == 0

    monkeypatch.chdir(elsewhere)
    status, out, err = dihal(*generate)
    assert (status, out) == (2, "")
    assert f"{run} needs the code in mine.py, which is not here; start the command where" in err
    assert "--include" not in err

    (elsewhere / "mine.py").write_text(f"{MINE}# edited\n", encoding="utf-8")
    status, _, err = dihal(*generate)
    assert status == 2
    assert f"{run}: the code in {elsewhere / 'mine.py'} is not that of the run; put that" in err

    (elsewhere / "mine.py").write_text(MINE, encoding="utf-8")
    assert dihal(*generate)[0] == 0
    status, _, err = dihal("score", str(run), "--tasks", str(task))
    assert status == 0, err
    assert "few" in Record.read(run / "record.json").data["tasks"]

    (run / "mine.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    monkeypatch.chdir(run)
    status, out, err = dihal("generate", ".", "--tokens", "2")
    assert (status, out) == (2, "")
    assert ". brings the code in mine.py, which is not run from there; read it, and start" in err
    kept = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert kept["include"] == ["mine.py"]


def test_code_in_its_own_folder_was_named_by_whoever_starts_the_run(
    tiny: Tiny, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.py").write_text(MINE, encoding="utf-8")
    own = ("--include", "run/mine.py", "--interface", "mine", "--controls", "", "--layer", "2")
    short = tiny.flags(budget__diffusion_tokens=256, score__tokens=128)
    status, _, err = dihal("run", *short, *own, "--out", "run", "--tasks", str(task))
    assert status == 0, err


def test_samples_are_scored_audited_and_kept(run: Path, task: Path) -> None:
    before = Record.read(run / "record.json").data["scores"]
    status, out, err = dihal("score", str(run), "--tasks", str(task), "--frontier", "0.5,1")
    assert status == 0, err
    record = Record.read(run / "record.json")
    assert record.data["scores"][: len(before)] == before
    own = [score for score in record.scores if score.task == "few"]
    assert {(s.subject, s.steps) for s in own} == {
        ("teacher", 1),
        ("hidden", 1),
        ("hidden", 4),
        ("regress", 1),
    }
    assert all(s.kind == "estimate" and s.signal == "generated" for s in own)
    perplexity = next(s for s in own if s.subject == "hidden" and s.metric == "gen_ppl")
    assert perplexity.details["temperature"] == 1.0
    assert perplexity.details["judge"].endswith("judge")
    assert "fooled_by" in perplexity.details
    reached = [s for s in own if s.metric == "gen_ppl_at_entropy"]
    assert reached
    assert all("fooled_by" in s.details for s in reached)
    audit = record.data["audits"]["few"]
    assert len(audit["impostors"]) == 23
    assert {point["temperature"] for point in audit["frontier"]} == {0.5, 1.0}
    for excerpt in audit["excerpts"]:
        assert set(excerpt["rows"]) == {"teacher", "hidden S=1", "hidden S=4", "regress S=1"}
        assert all(excerpt["rows"].values())
        assert excerpt["prompt"]
        assert excerpt["real"]
    assert len({excerpt["prompt"] for excerpt in audit["excerpts"]}) == 4
    lines = (run / "samples" / "few-hidden-S4.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 24
    assert json.loads(lines[0])["steps"] == 4
    assert (run / "samples" / "few-frontier.png").stat().st_size > 10_000
    for text in ("real text", "periodic-64 *", "fooled by", "gen-PPL at entropy", "MAUVE: fewer"):
        assert text in out


def test_what_is_scored_already_is_not_scored_again(run: Path, task: Path) -> None:
    flags = ("score", str(run), "--tasks", str(task), "--interfaces", "regress")
    assert dihal(*flags)[0] == 0
    first = (run / "record.json").read_bytes()
    status, out, err = dihal(*flags)
    assert status == 0
    assert "already scored" in err
    assert "backbone" not in err  # nothing was even loaded
    assert "real text" in out
    assert (run / "record.json").read_bytes() == first
    assert "already scored" not in dihal(*flags[:-1], "hidden", "--steps", "2")[2]
    own = [s for s in Record.read(run / "record.json").scores if s.task == "few"]
    rows = {("teacher", 1), ("regress", 1), ("hidden", 2)}
    assert {(s.subject, s.steps) for s in own} == rows  # what others had stays
    assert len(own) == len({(s.subject, s.steps, s.metric) for s in own})
    assert "already scored" in dihal(*flags)[2]


def test_fewer_samples_are_another_task_of_the_same_name(run: Path, task: Path) -> None:
    flags = ("score", str(run), "--tasks", str(task), "--interfaces", "regress")
    assert dihal(*flags)[0] == 0
    before = Record.read(run / "record.json")
    status, _, err = dihal(*flags, "--limit", "4")
    assert (status, "those scores go" in err) == (0, True), err
    after = Record.read(run / "record.json")
    assert before.data["tasks"]["few"]["key"] != after.data["tasks"]["few"]["key"]
    lines = (run / "samples" / "few-regress-S1.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert dihal(*flags, "--limit", "1000000")[0] == 0  # at most, and not instead
    again = Record.read(run / "record.json")
    assert again.data["tasks"]["few"]["key"] == before.data["tasks"]["few"]["key"]


def test_scores_of_a_changed_task_go_with_a_word(run: Path, task: Path) -> None:
    flags = ("score", str(run), "--tasks", str(task), "--interfaces", "regress")
    assert dihal(*flags)[0] == 0
    assert "those scores go" in dihal(*flags, "--frontier", "0.8,1")[2]
    record = Record.read(run / "record.json")
    own = [s for s in record.scores if s.task == "few"]
    assert len(own) == len({(s.subject, s.steps, s.metric) for s in own})
    assert {p["row"] for p in record.data["audits"]["few"]["frontier"]} == {
        "teacher",
        "regress S=1",
    }
    assert dihal(*flags[:-1], "hidden", "--steps", "2", "--frontier", "0.8,1")[0] == 0
    points = Record.read(run / "record.json").data["audits"]["few"]["frontier"]
    assert {p["row"] for p in points} == {"teacher", "regress S=1", "hidden S=2"}
    excerpts = Record.read(run / "record.json").data["audits"]["few"]["excerpts"]
    assert set(excerpts[0]["rows"]) == {"teacher", "regress S=1", "hidden S=2"}


def test_a_metric_that_was_asked_for_and_cannot_be_given_is_an_error(run: Path, task: Path) -> None:
    content = task.read_text(encoding="utf-8")
    few = content.replace("count: 24", "count: 8")
    task.write_text(few + "metric_list: [mauve]\n", encoding="utf-8")
    before = (run / "record.json").read_bytes()
    status, _, err = dihal("score", str(run), "--tasks", str(task), "--interfaces", "regress")
    assert status == 2
    assert "mauve cannot be given: MAUVE needs 20 samples" in err
    assert (run / "record.json").read_bytes() == before
    task.write_text(few + "metric_list: [gen_ppl]\n", encoding="utf-8")
    status, _, err = dihal("score", str(run), "--tasks", str(task), "--interfaces", "regress")
    assert status == 0
    assert "no mauve" in err
    own = {s.metric for s in Record.read(run / "record.json").scores if s.task == "few"}
    assert own == {"gen_ppl", "entropy"}  # the one never without the other


def test_a_run_can_be_scored_on_tasks_as_soon_as_it_is_trained(
    tiny: Tiny, task: Path, tmp_path: Path
) -> None:
    flags = [*tiny.flags(), "--layer", "2", "--controls", "regress"]
    folder = tmp_path / "run"
    status, out, err = dihal("run", *flags, "--out", str(folder), "--tasks", str(task))
    assert status == 0, err
    assert "diffusion gain" in out
    assert "periodic-64 *" in out
    status, out, _ = dihal("run", *flags, "--out", str(folder), "--tasks", "nothing")
    assert status == 2


def test_scores_repeat_themselves_to_the_bit(run: Path, task: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(run, tmp_path / "again"))
    records = []
    for folder, batch in ((run, 64), (again, 7)):
        task.write_text(
            task.read_text(encoding="utf-8").replace("count: 24", f"batch: {batch}, count: 24"),
            encoding="utf-8",
        )
        flags = ("--tasks", str(task), "--interfaces", "hidden")
        assert dihal("score", str(folder), *flags)[0] == 0
        records.append(Record.read(folder / "record.json").data)
        task.write_text(
            task.read_text(encoding="utf-8").replace(f"batch: {batch}, ", ""), encoding="utf-8"
        )
    assert records[0] == records[1]


def test_generated_text_can_be_had(run: Path, tmp_path: Path) -> None:
    status, out, _ = dihal(
        "generate", str(run), "--prompt", "ba de", "--count", "2", "--tokens", "6"
    )
    assert status == 0
    texts = out.rstrip("\n").split("\n---\n")
    assert len(texts) == 2
    assert all(text.startswith("ba de") for text in texts)
    assert texts[0] != texts[1]
    path = tmp_path / "out.jsonl"
    flags = ("--count", "3", "--tokens", "5", "--temperature", "0", "--out", str(path))
    assert dihal("generate", str(run), "--interface", "teacher", *flags)[0] == 0
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({line["text"] for line in lines}) == 1
    assert lines[0]["temperature"] == 0


def test_a_trained_run_is_what_was_scored(run: Path) -> None:
    """Loaded again, the interface has the weights and statistics that the run scored."""
    trained = FinishedRun(run)
    first, record = trained.interface("hidden"), trained.record
    assert trained.config.layer == str(record.data["layer"]) == "2"
    assert float(first.scale.mean()) != 1.0
    assert trained.interfaces.keys() == {"hidden", "regress"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "RUN", "--tasks", "nothing"], "no such task"),
        (["score", "RUN", "--tasks", ","], "names no task"),
        (["score", "RUN", "--tasks", "samples", "--interfaces", "latent"], "no part in this run"),
        (["score", "RUN", "--tasks", "samples", "--judge", "BACKBONE"], "judge itself"),
        (["score", "RUN", "--tasks", "samples", "--compat", "x"], "--compat x"),
        (["score", "RUN", "--tasks", "samples", "--limit", "3"], "count=3 must be 4 or more"),
        (["score", "RUN", "--tasks", "brierlm", "--limit", "8"], "--limit is for none"),
        (["score", "RUN", "--tasks", "brierlm", "--frontier"], "--frontier is for none"),
        (["score", "RUN", "--tasks", "brierlm", "--chains", "4"], "--chains is for none"),
        (["score", "RUN", "--tasks", "bundled", "--chains", "1"], "--chains 1"),
        (["generate", "RUN", "--steps", "0"], "steps=0"),
        (["score", "RUN", "--tasks", "samples", "--steps", "0"], "--steps 0"),
        (["score", "RUN", "--tasks", "samples", "--tasks-dir", "no"], "no such folder"),
        (["score", "no/run", "--tasks", "samples"], "no complete run"),
        (["generate", "no/run"], "no complete run"),
        (["generate", "RUN", "--count", "0"], "--count 0"),
        (["generate", "RUN", "--interface", "latent"], "no part in this run"),
        (["generate", "RUN", "--temperature", "-1"], "temperature"),
        (["generate", "RUN", "--tokens", "64"], "context"),
        (["generate", "RUN", "--prompts", "no.txt"], "--prompts no.txt"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    run: Path, tiny: Tiny, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dihal_bench.evaluation.tasks._lm_eval_files", dict)  # takes seconds
    before = sorted(path.name for path in run.iterdir())
    given = [{"RUN": str(run), "BACKBONE": str(tiny.backbone)}.get(word, word) for word in words]
    status, out, err = dihal(*given)
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("dihal-bench: error: ")
    assert message in last
    assert out == ""
    assert sorted(path.name for path in run.iterdir()) == before


def test_other_text_of_the_same_name_is_refused(run: Path) -> None:
    known = kept.read_json(run / "inputs.json")
    kept.write_json(run / "inputs.json", known | {"validation text": "0" * 16})
    status, _, err = dihal("score", str(run), "--tasks", "brierlm", "--interfaces", "regress")
    assert status == 2
    assert "begun with another validation text" in err


def test_pairs_are_of_the_benchmarked_interface_in_whatever_order_rows_come(
    run: Path, tmp_path: Path
) -> None:
    lines = "\n".join(json.dumps({"text": text}) for text in ("ba de fi go", "ga ke li mo " * 9))
    (tmp_path / "told.jsonl").write_text(lines, encoding="utf-8")
    path = tmp_path / "told.yaml"
    path.write_text(ROLLING, encoding="utf-8")
    flags = ("score", str(run), "--tasks", str(path))
    for more in (["--interfaces", "regress"], ["--steps", "2"], []):
        status, _, err = dihal(*flags, *more)
        assert status == 0, err
        own = [s for s in Record.read(run / "record.json").scores if s.task == "told"]
        pairs = [s.details for s in own if s.metric == "nll_minus_interface"]
        assert {(p["reference"], p["reference_steps"]) for p in pairs} == {("hidden", 4)}
        keys = [(s.subject, s.steps, s.chains, s.signal, s.metric) for s in own]
        assert len(set(keys)) == len(keys)
    assert {s.steps for s in own if s.subject == "hidden" and s.metric == "nll"} == {1, 2, 4}
    assert "already scored" in dihal(*flags)[2]


def test_a_rolling_task_scores_everybody_in_its_own_windows(run: Path, tmp_path: Path) -> None:
    """Data files lie beside the task file, wherever the command is started."""
    texts = ["ba de fi go", "", "  ", "ga ke li mo na pa " * 12, "[1, 2]"]
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    (tmp_path / "told.jsonl").write_text(lines, encoding="utf-8")
    path = tmp_path / "told.yaml"
    path.write_text(ROLLING, encoding="utf-8")
    status, out, err = dihal("score", str(run), "--tasks", str(path))
    assert status == 0, err
    assert "2 blank documents" in err
    own = [s for s in Record.read(run / "record.json").scores if s.task == "told"]
    nll = {(s.subject, s.steps, s.chains): s for s in own if s.metric == "nll"}
    assert {("teacher", 1, 1), ("hidden", 4, 2), ("regress", 1, 1)} <= nll.keys()
    teacher = nll["teacher", 1, 1].details
    assert teacher["documents"] == 3
    assert teacher["bytes"] == sum(len(text) for text in texts if text.strip())
    assert {"kl", "top1", "brier1", "word_ppl", "bits_per_byte"} <= {s.metric for s in own}
    assert "hidden" in out
