"""Interfaces as models of lm-eval: what it asks of them, and the traps on the way."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.lm_eval_model import InterfaceLM
from dihal_bench.models.model import Backbone
from dihal_bench.runs.lm_eval_model import DihalLM

from ..conftest import Tiny
from .harness_cases import (
    CHOICE,
    QUESTIONS,
    UNTIL,
    WINDOW,
    Given,
    by_lm_eval,
    evaluated,
    new_given,
)


@pytest.fixture(params=[True, False], ids=["bos", "no bos"])
def given(request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path) -> Given:
    return new_given(tiny, tmp_path, begins=request.param)


def test_multiple_choice_is_answered_by_the_interfaces_own_likelihoods(given: Given) -> None:
    task = given.task(CHOICE, QUESTIONS)
    interface = given.interface("hidden")
    scores = task.perform(given.bench(hidden=interface)).scores
    theirs = by_lm_eval(given.hf(), task)["acc"]  # with the token that begins documents
    teacher = next(s for s in scores if s.subject == "teacher")
    assert teacher.value == theirs
    assert teacher.kind == "exact"
    rows = {(s.subject, s.steps): s for s in scores if s.metric == "acc"}
    assert rows.keys() == {("teacher", 1), ("hidden", 1), ("hidden", 2)}
    hidden = rows["hidden", 2]
    assert (hidden.kind, hidden.n, hidden.nfe) == ("ensemble", 5, 2)
    assert hidden.lo is not None
    assert hidden.lo <= hidden.value


def test_text_is_generated_until_a_stop_as_lm_evals_own_model_does(given: Given) -> None:
    """Contexts of several lengths, padded in front by lm-eval, alone and together."""
    task = given.task(UNTIL, QUESTIONS)
    answers = []
    for model in (
        given.hf(),
        InterfaceLM(source=given.teacher, max_length=WINDOW - 1, batch_size=5),
        InterfaceLM(source=given.teacher, max_length=WINDOW - 1, batch_size=1),
    ):
        found = evaluated(model, task, log_samples=True)
        answers.append([row["resps"] for row in next(iter(found["samples"].values()))])
    assert answers[0] == answers[1] == answers[2]
    scores = task.perform(given.bench(hidden=given.interface("hidden"))).scores
    assert {s.subject for s in scores} == {"teacher", "hidden"}
    assert all(s.signal == "generated" and s.kind == "estimate" for s in scores)


class Ending(Backbone):
    """After two tokens of an answer it says nothing but the end of the text."""

    def logits(self, tokens: Any, positions: Any = None, *, cache: Any = None) -> Any:
        found = super().logits(tokens, positions, cache=cache)
        if cache is not None and cache.get_seq_length() >= self.ending:
            found[..., self.tokenizer.eos_token_id] = 1e4
        return found


def test_an_answer_ends_with_the_end_of_the_text(given: Given) -> None:
    """The end is a special token, which decoding leaves out: it must be looked for by number."""
    question = QUESTIONS[0]["question"]
    teacher = Ending(given.teacher.model, given.teacher.tokenizer, name="ending")
    teacher.ending = 2 + len(teacher.tokenizer.encode(question))
    until = UNTIL.replace('until: [" "]', 'until: ["never"]')
    answers = []
    for source, content in (
        (teacher, until),
        (given.teacher, until.replace("max_gen_toks: 6", "max_gen_toks: 2")),
        (given.teacher, until),
    ):
        found = evaluated(
            InterfaceLM(source=source, max_length=WINDOW - 1),
            given.task(content, QUESTIONS[:1]),
            log_samples=True,
        )
        (row,) = next(iter(found["samples"].values()))
        answers.append(row["resps"][0][0])
    assert answers[0] == answers[1] != answers[2]


def test_an_answer_that_leaves_no_room_for_a_question_is_refused(given: Given) -> None:
    until = UNTIL.replace("max_gen_toks: 6", "max_gen_toks: 60")
    with pytest.raises(UserError, match="max_gen_toks"):
        given.task(until, QUESTIONS[:1]).perform(given.bench())
    default = UNTIL.replace(", max_gen_toks: 6", "")
    assert given.task(default, QUESTIONS[:1], "default").perform(given.bench()).scores


def test_requests_that_are_cut_are_counted_and_said(given: Given) -> None:
    from dataclasses import replace

    long = [{"question": "mo na pa " * 20, "choices": [" fi", " go"], "answer": 0}]
    told: list[str] = []
    bench = replace(given.bench(), say=told.append)
    scores = given.task(CHOICE, long + QUESTIONS[:1]).perform(bench).scores
    assert any("cut off" in line for line in told)
    assert scores[0].details["truncated"] == 2


def test_questions_have_noise_of_their_own_which_their_choices_share(given: Given) -> None:
    model = InterfaceLM(source=given.interface("hidden"), steps=2, max_length=WINDOW - 1)
    rows = [(None, [0, 40, 41], [50, 51]), (None, [0, 40, 41], [52]), (None, [0, 42, 41], [50])]
    model._loglikelihood_tokens(rows)
    same, other, third = (
        model._documents[tuple((context + answer)[:-1])] for _, context, answer in rows
    )
    assert same == other != third


def test_an_answer_that_is_asked_for_again_is_drawn_anew(given: Given) -> None:
    """Else a vote among many answers would be one answer, without a word."""
    drawn = UNTIL.replace("max_gen_toks: 6", "max_gen_toks: 6, do_sample: true, temperature: 1.0")
    task = given.task(f"{drawn}repeats: 4\n", QUESTIONS[:2])
    found = []
    for size in (8, 3):
        model = InterfaceLM(
            source=given.interface("hidden"), steps=2, max_length=WINDOW - 1, batch_size=size
        )
        samples = evaluated(model, task, log_samples=True)["samples"]
        found.append([sorted(row["resps"][0]) for row in next(iter(samples.values()))])
    assert all(len(answers) == 4 and len(set(answers)) > 1 for answers in found[0])
    assert found[0] == found[1]


def test_to_sample_without_a_temperature_is_refused(given: Given) -> None:
    content = UNTIL.replace("max_gen_toks: 6", "max_gen_toks: 6, do_sample: true")
    with pytest.raises(UserError, match="do_sample without a temperature"):
        given.task(content, QUESTIONS[:1]).perform(given.bench())


def test_what_is_included_is_part_of_a_task(given: Given) -> None:
    """A prompt may stand in a file of another folder, which the task includes."""
    base = given.folder / "base.yaml"
    base.write_text(CHOICE.replace("task: chosen", ""), encoding="utf-8")
    own = "task: chosen\ninclude: ../base.yaml\n"
    first = given.task(own, QUESTIONS).to_dict()
    assert given.task(own, QUESTIONS).to_dict() == first
    (given.folder / "task" / "another.yaml").write_text("task: another\n", encoding="utf-8")
    assert given.task(own, QUESTIONS).to_dict() == first  # a neighbour is none of its business
    base.write_text(base.read_text().replace("doc_to_text: question", "doc_to_text: 'Q: '"))
    assert given.task(own, QUESTIONS).to_dict() != first


def test_sequences_have_no_likelihood_that_a_task_could_use(given: Given) -> None:
    model = InterfaceLM(source=given.interface("hidden", block=4), max_length=WINDOW - 1)
    with pytest.raises(UserError, match="sequence regime"):
        evaluated(model, given.task(CHOICE, QUESTIONS))


def test_generators_of_random_numbers_are_left_as_they_were(given: Given) -> None:
    task = given.task(CHOICE, QUESTIONS[:2])
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = np.random.rand(), torch.rand(1)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    task.perform(given.bench())
    assert (np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002


def test_provenance_is_ours_and_no_hub_is_asked(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    about = InterfaceLM(source=given.interface("hidden"), steps=2).get_model_info()
    assert about["backbone_fingerprint"] == given.teacher.info.fingerprint
    assert about["interface"] == "Hidden"
    assert about["steps"] == 2


def test_lm_eval_finds_the_model_by_its_name() -> None:
    from importlib.metadata import entry_points

    from lm_eval.api.registry import get_model

    assert get_model("dihal-bench") is DihalLM
    (entry,) = [e for e in entry_points(group="lm_eval.models") if e.name == "dihal-bench"]
    assert entry.load() is DihalLM
