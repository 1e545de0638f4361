"""lm-eval's own numbers, and the traps on the way to them."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing

from dihal_bench.backbone.model import Backbone
from dihal_bench.errors import UserError
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.registry import INTERFACES
from dihal_bench.scoring.bench import Bench
from dihal_bench.scoring.evaluate import ScoreConfig
from dihal_bench.scoring.harness import HarnessTask
from dihal_bench.scoring.lm_eval import DihalLM
from dihal_bench.scoring.rolling import Document, RollingText
from dihal_bench.scoring.tasks import load_task
from dihal_bench.text.sources import load_corpus
from dihal_bench.text.tokens import PackedTokens, pack

from ..conftest import Tiny
from ..tiny import CONFIG

WINDOW = 24
TEXTS = ["ba de fi go", "ga", "ga ke li mo na pa " * 9, "[1, 2]", "va va, ta ta", "mir " * 23]
METRICS = """
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {validation: data.jsonl}}
validation_split: validation
"""
ROLLING = f"""
task: told
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
{COMMON}{METRICS}"""
CHOICE = f"""
task: chosen
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
{COMMON}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
UNTIL = f"""
task: said
output_type: generate_until
doc_to_text: question
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: [" "], max_gen_toks: 6}}
{COMMON}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


@dataclass
class Given:
    """A teacher, text, and an interface on it."""

    teacher: Backbone
    text: PackedTokens
    folder: Path

    def interface(self, name: str = "hidden", block: int = 0) -> Interface:
        from dataclasses import replace

        kind = INTERFACES.get(name)
        blocks = self.teacher.blocks
        span = Span(a=1, b=blocks if kind.bears_tokens else 3, blocks=blocks)
        interface: Interface = kind(self.teacher, span, replace(CONFIG, block=block))
        batch = Batch.of(self.text.batch(range(4)), self.teacher, layers=interface.layers)
        interface.fit(SpanStatistics.collect([batch], interface.layers[0], interface.layers[-1]))
        return interface.eval()

    def bench(self, **interfaces: Interface) -> Bench:
        return Bench(
            teacher=self.teacher,
            interfaces=interfaces or {"token-mean": self.interface("token-mean")},
            trained_on=[self.text],
            validation=self.text,
            window=WINDOW,
            regime="causal",
            block=0,
            dtype="float32",
            config=ScoreConfig(steps=(1, 2), chains=2, resamples=100, batch=2),
            seed=0,
            folder=self.folder / "shared",
            say=lambda text: None,
        )

    def task(self, content: str, rows: list[dict[str, Any]], name: str = "task") -> HarnessTask:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "data.jsonl").write_text(lines, encoding="utf-8")
        (folder / "task.yaml").write_text(content, encoding="utf-8")
        task = load_task(str(folder / "task.yaml"), [])
        assert isinstance(task, HarnessTask)
        return task

    def hf(self, **settings: Any) -> HFLM:
        return HFLM(
            pretrained=self.teacher.model,
            tokenizer=self.teacher.tokenizer,
            max_length=WINDOW - 1,
            batch_size=2,
            **settings,
        )


@pytest.fixture
def given(tiny: Tiny, tmp_path: Path) -> Given:
    """The tokenizer begins every text with a token of its own, as those of Llama do."""
    teacher = Backbone.load(str(tiny.backbone))
    begin = ("<s>", teacher.tokenizer.bos_token_id)
    teacher.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[begin]
    )
    text = pack(load_corpus(str(tiny.corpus)), "train", teacher.tokenizer, window=WINDOW)
    return Given(teacher, text, tmp_path)


def by_lm_eval(model: Any, task: HarnessTask) -> dict[str, Any]:
    found = simple_evaluate(model=model, tasks=[task.loaded], bootstrap_iters=0)
    results: dict[str, Any] = next(iter(found["results"].values()))
    return {key.partition(",")[0]: value for key, value in results.items()}


def rolling(given: Given, texts: list[str] = TEXTS) -> HarnessTask:
    return given.task(ROLLING, [{"text": text} for text in texts])


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
    theirs = by_lm_eval(DihalLM(source=interface, max_length=WINDOW - 1, batch_size=3), task)
    scores = task.perform(given.bench(**{"token-mean": interface})).scores
    own = next(s for s in scores if s.subject == "token-mean" and s.metric == "bits_per_byte")
    assert own.value == pytest.approx(theirs["bits_per_byte"], rel=1e-6)


def test_the_token_that_begins_a_document_is_not_scored_twice(given: Given) -> None:
    """Tokenizers that add BOS by themselves would have P(BOS | BOS) scored."""
    assert given.teacher.tokenizer.encode("ba")[0] == given.teacher.tokenizer.bos_token_id
    task = rolling(given)
    theirs = by_lm_eval(DihalLM(source=given.teacher, max_length=WINDOW - 1), task)
    ours = next(
        s.value
        for s in task.perform(given.bench()).scores
        if (s.subject, s.metric) == ("teacher", "bits_per_byte")
    )
    naive = by_lm_eval(given.hf(), task)["bits_per_byte"]
    assert ours == pytest.approx(theirs["bits_per_byte"], rel=1e-6)
    assert abs(naive - ours) > 1e-3


def test_a_cache_whose_keys_do_not_know_the_model_is_refused(given: Given) -> None:
    model = DihalLM(source=given.teacher, max_length=WINDOW - 1)
    with pytest.raises(UserError, match="answers of another"):
        simple_evaluate(
            model=model,
            tasks=[rolling(given).loaded],
            use_cache=str(given.folder / "cache"),
            bootstrap_iters=0,
        )


def test_rolling_scores_have_intervals_where_lm_eval_has_none(given: Given) -> None:
    task = rolling(given)
    found = simple_evaluate(model=given.hf(), tasks=[task.loaded], bootstrap_iters=100)
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


QUESTIONS = [
    {"question": "ba de", "choices": [" fi", " go ga", " ke"], "answer": i % 3} for i in range(4)
] + [{"question": "mo na pa " * 2, "choices": [" fi", " go", " ka"], "answer": 0}]


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
        DihalLM(source=given.teacher, max_length=WINDOW - 1, batch_size=5),
        DihalLM(source=given.teacher, max_length=WINDOW - 1, batch_size=1),
    ):
        found = simple_evaluate(
            model=model, tasks=[task.loaded], bootstrap_iters=0, log_samples=True
        )
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
        found = simple_evaluate(
            model=DihalLM(source=source, max_length=WINDOW - 1),
            tasks=[given.task(content, QUESTIONS[:1]).loaded],
            bootstrap_iters=0,
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
    model = DihalLM(source=given.interface("hidden"), steps=2, max_length=WINDOW - 1)
    rows = [(None, [0, 40, 41], [50, 51]), (None, [0, 40, 41], [52]), (None, [0, 42, 41], [50])]
    model._loglikelihood_tokens(rows)
    same, other, third = (
        model._documents[tuple((context + answer)[:-1])] for _, context, answer in rows
    )
    assert same == other != third


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


def test_sequences_have_no_likelihood_that_a_task_could_use(given: Given) -> None:
    model = DihalLM(source=given.interface("hidden", block=4), max_length=WINDOW - 1)
    with pytest.raises(UserError, match="sequence regime"):
        simple_evaluate(model=model, tasks=[given.task(CHOICE, QUESTIONS).loaded])


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
    about = DihalLM(source=given.interface("hidden"), steps=2).get_model_info()
    assert about["backbone_fingerprint"] == given.teacher.info.fingerprint
    assert about["interface"] == "Hidden"
    assert about["steps"] == 2


def test_lm_eval_finds_the_model_by_its_name() -> None:
    from importlib.metadata import entry_points

    from lm_eval.api.registry import get_model

    assert get_model("dihal-bench") is DihalLM
    (entry,) = [e for e in entry_points(group="lm_eval.models") if e.name == "dihal-bench"]
    assert entry.load() is DihalLM
