"""A language model, a tokenizer and a text small enough for whole runs to take seconds."""

import contextlib
import io
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several of several threads each slow each other down
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder is refused without asking the network

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dihal_bench.cli.main import main
from dihal_bench.core.registry import REGISTRIES
from dihal_bench.runs import timing

timing._REPEATS = 1  # a plan is not more than roughly true here, and quick

SYLLABLES = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "ir")]
SETTINGS = {
    "text.window": 32,
    "budget.diffusion_tokens": 1024,
    "budget.recovery_tokens": 512,
    "locate.windows": 40,
    "locate.sample": 200,
    "locate.resamples": 2,
    "locate.stability_sample": 60,
    "locate.stability_resamples": 2,
    "locate.pairs": 200,
    "locate.neighbours": 5,
    "denoiser.width": 16,
    "denoiser.heads": 2,
    "denoiser.context_layers": 1,
    "denoiser.layers": 1,
    "train.batch": 4,
    "train.autocast": "false",
    "score.tokens": 512,
    "score.oracle_tokens": 128,
    "score.steps": "1,4",
    "score.chains": 2,
    "score.resamples": 100,
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for the night, unless ``-m nightly`` asks for it."""
    if "nightly" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def dihal(*words: str) -> tuple[int, str, str]:
    """Run the command line; return status, standard output, and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(words))
    return status, out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Tiny:
    """Where the small model and text lie, and the flags of a run on them."""

    backbone: Path
    corpus: Path

    def flags(self, **settings: object) -> list[str]:
        """Flags of a run; ``settings`` replace the usual ones, with ``__`` for the dot."""
        given = {name.replace("__", "."): value for name, value in settings.items()}
        sets = [f"--set={key}={value}" for key, value in {**SETTINGS, **given}.items()]
        return ["--backbone", str(self.backbone), "--corpus", str(self.corpus), *sets]


def words(generator: random.Random) -> str:
    """A sentence whose syllables depend on the one before, so that there is something to learn."""
    place, syllables = generator.randrange(len(SYLLABLES)), []
    for _ in range(generator.randint(8, 60)):
        place = (place * 5 + generator.choice((1, 1, 1, 2, 7))) % len(SYLLABLES)
        syllables.append(SYLLABLES[place] + generator.choice(("", "", " ", " ", ", ")))
    return "".join(syllables).strip()


def small_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", eos_token="</s>")


def small_llama(blocks: int = 4) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="session")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    generator = random.Random(0)
    texts = [words(generator) for _ in range(400)]
    lines = [f'{{"text": "{text}"}}' for text in texts]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    small_llama().save_pretrained(folder / "backbone")
    small_tokenizer(texts).save_pretrained(folder / "backbone")
    return Tiny(folder / "backbone", folder / "corpus.jsonl")


@pytest.fixture(scope="session")
def _tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(_tiny: Tiny, _tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The small model and text, with a cache of their own."""
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(_tiny_cache))
    return _tiny


@pytest.fixture
def registries():
    """What a test registers is gone after it."""
    kept = [(registry, registry.names() and dict(registry._entries)) for registry in REGISTRIES]
    yield
    for registry, entries in kept:
        registry._entries.clear()
        registry._entries.update(entries)
