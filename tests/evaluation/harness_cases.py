"""Tasks of lm-eval, and a teacher and interfaces to score on them: what its tests share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing

from dihal_bench.config.schema import ScoreConfig
from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.sources import load_corpus
from dihal_bench.data.tokens import PackedTokens, pack
from dihal_bench.evaluation.context import EvalContext
from dihal_bench.evaluation.lm_eval_task import LmEvalTask, task_manager
from dihal_bench.evaluation.tasks import load_task
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.model import Backbone

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

    def bench(self, **interfaces: Interface) -> EvalContext:
        return EvalContext(
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

    def task(self, content: str, rows: list[dict[str, Any]], name: str = "task") -> LmEvalTask:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "data.jsonl").write_text(lines, encoding="utf-8")
        (folder / "task.yaml").write_text(content, encoding="utf-8")
        task = load_task(str(folder / "task.yaml"), [])
        assert isinstance(task, LmEvalTask)
        return task

    def hf(self, **settings: Any) -> HFLM:
        return HFLM(
            pretrained=self.teacher.model,
            tokenizer=self.teacher.tokenizer,
            max_length=WINDOW - 1,
            batch_size=2,
            **settings,
        )


def new_given(tiny: Tiny, tmp_path: Path, *, begins: bool = True) -> Given:
    """The tokenizer begins every text with a token of its own (as Llama's does), or does not."""
    teacher = Backbone.load(str(tiny.backbone))
    begin = ("<s>", teacher.tokenizer.bos_token_id)
    if begins:
        teacher.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[begin]
        )
    text = pack(load_corpus(str(tiny.corpus)), "train", teacher.tokenizer, window=WINDOW)
    return Given(teacher, text, tmp_path)


def evaluated(model: Any, task: LmEvalTask, *, bootstrap_iters: int = 0, **rest: Any) -> Any:
    """What lm-eval finds, without an index of all its own tasks, which takes seconds."""
    return simple_evaluate(
        model=model,
        tasks=[task.loaded],
        bootstrap_iters=bootstrap_iters,
        task_manager=task_manager(),
        **rest,
    )


def by_lm_eval(model: Any, task: LmEvalTask) -> dict[str, Any]:
    found = evaluated(model, task)
    results: dict[str, Any] = next(iter(found["results"].values()))
    return {key.partition(",")[0]: value for key, value in results.items()}


def rolling(given: Given, texts: list[str] = TEXTS) -> LmEvalTask:
    return given.task(ROLLING, [{"text": text} for text in texts])


QUESTIONS = [
    {"question": "ba de", "choices": [" fi", " go ga", " ke"], "answer": i % 3} for i in range(4)
] + [{"question": "mo na pa " * 2, "choices": [" fi", " go", " ka"], "answer": 0}]
