"""Rolling perplexity is lm-eval's, and the traps on the way to it are shut."""

import math
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.lm_eval_model import InterfaceLM
from dihal_bench.evaluation.rolling_windows import Document, RollingText

from ..conftest import Tiny
from .harness_cases import (
    ROLLING,
    TEXTS,
    WINDOW,
    Given,
    by_lm_eval,
    evaluated,
    new_given,
    rolling,
)


@pytest.fixture
def given(tiny: Tiny, tmp_path: Path) -> Given:
    return new_given(tiny, tmp_path)


def test_the_teachers_numbers_are_those_of_lm_evals_own_model(given: Given) -> None:
    """Documents of one token and of several windows among them."""
    task = rolling(given)
    theirs = by_lm_eval(given.hf(add_bos_token=False), task)
    ours = {s.metric: s for s in task.perform(given.bench()).scores if s.subject == "teacher"}
    assert ours["bits_per_byte"].value == pytest.approx(theirs["bits_per_byte"], rel=1e-6)
    assert ours["word_ppl"].value == pytest.approx(theirs["word_perplexity"], rel=1e-5)
    details = ours["nll"].details
    assert math.exp(details["sum_nll"] / details["words"]) == pytest.approx(
        theirs["word_perplexity"], rel=1e-5
    )
    assert details["sum_nll"] / details["bytes"] == pytest.approx(
        math.log(theirs["byte_perplexity"]), rel=1e-6
    )


def test_an_interface_behind_lm_eval_has_the_numbers_that_we_score(given: Given) -> None:
    interface = given.interface("token-mean")
    task = rolling(given)
    theirs = by_lm_eval(InterfaceLM(source=interface, max_length=WINDOW - 1, batch_size=3), task)
    scores = task.perform(given.bench(**{"token-mean": interface})).scores
    own = next(s for s in scores if s.subject == "token-mean" and s.metric == "bits_per_byte")
    assert own.value == pytest.approx(theirs["bits_per_byte"], rel=1e-6)


def test_the_token_that_begins_a_document_is_not_scored_twice(given: Given) -> None:
    """Tokenizers that add BOS by themselves would have P(BOS | BOS) scored."""
    assert given.teacher.tokenizer.encode("ba")[0] == given.teacher.tokenizer.bos_token_id
    task = rolling(given)
    theirs = by_lm_eval(InterfaceLM(source=given.teacher, max_length=WINDOW - 1), task)
    ours = next(
        s.value
        for s in task.perform(given.bench()).scores
        if (s.subject, s.metric) == ("teacher", "bits_per_byte")
    )
    naive = by_lm_eval(given.hf(), task)["bits_per_byte"]
    assert ours == pytest.approx(theirs["bits_per_byte"], rel=1e-6)
    assert abs(naive - ours) > 1e-3


def test_a_cache_whose_keys_do_not_know_the_model_is_refused(given: Given) -> None:
    model = InterfaceLM(source=given.teacher, max_length=WINDOW - 1)
    with pytest.raises(UserError, match="answers of another"):
        evaluated(model, rolling(given), use_cache=str(given.folder / "cache"))


def test_rolling_scores_have_intervals_where_lm_eval_has_none(given: Given) -> None:
    task = rolling(given)
    found = evaluated(given.hf(), task, bootstrap_iters=100)
    assert next(iter(found["results"].values()))["bits_per_byte_stderr,none"] == "N/A"
    own = [s for s in task.perform(given.bench()).scores if s.metric == "bits_per_byte"]
    assert own
    assert all(s.lo is not None and s.hi is not None and s.lo < s.value < s.hi for s in own)


def test_documents_that_look_like_lists_stay_text(given: Given) -> None:
    task = rolling(given, ["[1, 2]", "{'a': 1}", "3"])
    assert [d.text for d in task.documents()] == ["[1, 2]", "{'a': 1}", "3"]
    template = ROLLING.replace("doc_to_target: text", 'doc_to_target: "{{text}}"')
    other = given.task(template, [{"text": "[1, 2]"}], "template")
    with pytest.raises(UserError, match="name of the column"):
        other.documents()


def test_data_files_lie_beside_their_task_wherever_we_are(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = rolling(given)
    monkeypatch.chdir("/")
    assert len(task.documents()) == len(TEXTS)
    assert Path.cwd() == Path("/")
    assert task.path is not None
    with pytest.raises(Exception):  # noqa: B017, PT011 - of lm-eval itself, from here
        TaskManager(include_defaults=False).load([str(task.path)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("validation: data.jsonl", "validation: gone.jsonl"), "gone.jsonl"),
        (("doc_to_text:", "colour: red\ndoc_to_text:"), "colour"),
    ],
)
def test_a_task_that_lm_eval_cannot_load_is_named(
    given: Given, change: tuple[str, str], words: str
) -> None:
    task = given.task(ROLLING.replace(*change), [{"text": "ba"}])
    with pytest.raises(UserError, match=words) as caught:
        task.to_dict()
    assert str(task.path) in str(caught.value)


def test_blank_documents_are_left_out_and_all_blank_is_an_error(given: Given) -> None:
    blank = rolling(given, ["", "   "])
    with pytest.raises(UserError, match="blank"):
        blank.perform(given.bench())


def test_a_task_of_a_single_document_has_no_interval_and_is_refused(given: Given) -> None:
    with pytest.raises(UserError, match="single document"):
        rolling(given, ["ba de fi"]).perform(given.bench())


def test_what_decides_a_score_is_in_the_key(given: Given) -> None:
    first = rolling(given).to_dict()
    assert rolling(given).to_dict() == first
    assert rolling(given, TEXTS[:-1]).to_dict() != first
    changed = given.task(ROLLING + "description: x\n", [{"text": text} for text in TEXTS])
    assert changed.to_dict() != first


def test_counts_of_words_are_part_of_the_texts_fingerprint(given: Given) -> None:
    tokenizer = given.teacher.tokenizer
    one, two = (
        RollingText([Document("ba de", words, 5)], tokenizer, window=8).fingerprint
        for words in (2, 3)
    )
    assert one != two
