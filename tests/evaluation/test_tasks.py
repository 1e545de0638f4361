"""Task files: what they may say, and what is said of those that cannot be used."""

from pathlib import Path

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.lm_eval_task import LmEvalTask
from dihal_bench.evaluation.samples.task import SampleTask
from dihal_bench.evaluation.tasks import built_in, load_task, task_names


def written(folder: Path, content: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_every_task_that_comes_with_the_package_can_be_read() -> None:
    names = task_names([built_in()])
    wanted = {"samples", "continuations", "bundled", "wikitext2", "wikitext103", "dolma"}
    assert wanted | {"tinystories"} <= set(names)
    for name in names:
        assert load_task(name, [built_in()]).name == name


def test_a_task_of_generation_says_what_is_drawn(tmp_path: Path) -> None:
    content = (
        "task: few\noutput_type: samples\nsamples: {count: 8, temperature: 1, bleu: 4, seed: 3,"
        " temperatures: [0.5, 1]}\nmetric_list: [gen_ppl, {metric: entropy}]\n"
        "metadata: {version: 2.0}\n"
    )
    task = load_task(written(tmp_path, content), [])
    assert isinstance(task, SampleTask)
    assert (task.name, task.count, task.tokens, task.version) == ("few", 8, 128, 2.0)
    assert (task.settings.bleu, task.settings.seed, task.seed) == (4, 3, 3)
    assert task.temperatures == (0.5, 1.0)
    assert task.metrics == ("gen_ppl", "entropy")
    assert not task.gated


def test_a_folder_of_the_users_own_comes_first(tmp_path: Path) -> None:
    written(tmp_path, "output_type: samples\nsamples: {count: 5}\n", "samples.yaml")
    task = load_task("samples", [tmp_path, built_in()])
    assert isinstance(task, SampleTask)
    assert task.count == 5


def test_what_decides_scores_decides_their_key_and_the_batch_does_not(tmp_path: Path) -> None:
    def key(text: str) -> dict[str, object]:
        return load_task(
            written(tmp_path, f"output_type: samples\nsamples: {text}\n"), []
        ).to_dict()

    assert key("{batch: 4}") == key("{batch: 8}")
    assert key("{seed: 1}") != key("{seed: 2}")
    assert key("{permutations: 9}") != key("{permutations: 99}")


def test_tasks_of_lm_eval_are_told_by_their_output_type(tmp_path: Path) -> None:
    content = "task: x\noutput_type: generate_until\ndoc_to_text: !function utils.f\n"
    task = load_task(written(tmp_path, content), [])
    assert isinstance(task, LmEvalTask)
    assert (task.name, task.kind, task.gated) == ("x", "generate_until", False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("output_type: samples\ncolour: red\n", ["colour", "unknown", "samples"]),
        ("output_type: samples\nsamples: {cuont: 3}\n", ["samples.cuont", "count"]),
        ("output_type: samples\nsamples: {count: 0}\n", ["count=0", "4 or more"]),
        ("output_type: samples\nsamples: {permutations: 0}\n", ["permutations=0", "9 or more"]),
        ("output_type: samples\nmetric_list: 3\n", ["metric_list", "mine"]),
        ("output_type: samples\nmetadata: {version: 1.0.0}\n", ["metadata.version", "mine"]),
        ("output_type: rollouts\nrollouts: {lengths: [0]}\n", ["1 or more"]),
        ("output_type: rollouts\nrollouts: {lengths: [a]}\n", ["rollouts.lengths=a", "mine"]),
        ("output_type: samples\nsamples: {count: many}\n", ["samples.count=many", "int"]),
        ("output_type: samples\nsamples: {audit: 1}\n", ["samples.audit=1", "bool"]),
        ("output_type: samples\nsamples: {top_p: 2}\n", ["top-p"]),
        ("output_type: samples\nsamples: [1]\n", ["mapping"]),
        ("output_type: samples\nmetric_list: [beauty]\n", ["beauty", "gen_ppl", "mauve"]),
        ("output_type: samples\nsamples: {compat: other}\n", ["other", "duo"]),
        ("output_type: dance\n", ["dance", "samples", "multiple_choice"]),
        ("task: x\n", ["output_type=None"]),
        ("- a\n- b\n", ["mapping"]),
        ("a: [1\n", ["no readable YAML"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(
    tmp_path: Path, content: str, words: list[str]
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_task(path, [])
    message = str(caught.value)
    assert all(word in message for word in words), message


def test_an_included_file_says_what_is_left_open(tmp_path: Path) -> None:
    written(tmp_path, "output_type: samples\nsamples: {count: 9}\n", "base.yaml")
    task = load_task(written(tmp_path, "include: base.yaml\ntask: more\n"), [])
    assert isinstance(task, SampleTask)
    assert (task.name, task.count) == ("more", 9)


def test_lm_evals_default_and_its_own_tasks(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, "task: x\ndataset_path: json\n"), [])
    assert isinstance(task, LmEvalTask)
    assert task.kind == "generate_until"
    own = load_task("arc_easy", [built_in()])
    assert isinstance(own, LmEvalTask)
    assert own.kind == "multiple_choice"


@pytest.mark.parametrize("name", ["nothing", "no/such/file.yaml"])
def test_an_unknown_task_is_refused_and_known_ones_are_named(name: str) -> None:
    with pytest.raises(UserError, match="no such"):
        load_task(name, [built_in()])
