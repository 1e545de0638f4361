"""What one teacher pass for several layers saves, where the teacher is what costs."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dihal_bench.config.identity import interface_identity
from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.documents import Corpus
from dihal_bench.data.tokens import PackedTokens, pack
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import LossWeights, Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.model import Backbone
from dihal_bench.training.config import BudgetConfig, TrainConfig
from dihal_bench.training.phases import PhaseRunner, train_together

from ..tiny import CONFIG, VOCABULARY

pytestmark = pytest.mark.nightly

BLOCKS, LAYERS, WINDOW, BATCH, STEPS = 12, (7, 8, 9, 10, 11, 12), 128, 4, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PackedTokens:
    """Random words in whole windows."""
    vocabulary = {"</s>": 0, "<s>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="</s>"
    )
    generator = np.random.default_rng(0)
    documents = [
        " ".join(f"w{i}" for i in generator.integers(2, VOCABULARY, 200)) for _ in range(40)
    ]
    corpus = Corpus(
        name="random", fingerprint="r", splits={"train": lambda: iter(documents)}, notes={}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return pack(corpus, "train", tokenizer, window=WINDOW)


def teacher() -> Backbone:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=WINDOW,
    )
    return Backbone.from_model(LlamaForCausalLM(config), None, name="deep")


def test_six_layers_on_one_pass_are_half_again_as_fast(data, tmp_path: Path, monkeypatch) -> None:
    """Losses of the state alone, as a sweep of bridge losses needs; a ratio within one process."""
    deep, settings = teacher(), replace(CONFIG, losses=LossWeights(ce=0.0, kd=0.0))
    batch = Batch.of(data.draw(0, 0, 8), deep, layers=(0, *LAYERS))
    known = {b: SpanStatistics.collect([batch], 0, b) for b in LAYERS}

    def part(b: int, folder: Path):
        interface = INTERFACES.get("hidden")(deep, Span(a=0, b=b, blocks=BLOCKS), settings)
        interface.fit(known[b])
        own = PhaseRunner(
            data=data,
            held_out=data,
            backbone=deep,
            budget=BudgetConfig(diffusion_tokens=STEPS * BATCH * WINDOW),
            config=TrainConfig(batch=BATCH, autocast=False),
            seed=0,
            folder=folder / str(b),
            shared=folder / "shared",
            fit=lambda interface: interface.fit(known[b]),
            identity=interface_identity,
            settings={},
            say=lambda text: None,
        )
        return own, {"hidden": interface}

    def seconds(*works) -> float:
        start = time.process_time()
        for work in works:
            work()
        return time.process_time() - start

    ratios = []
    for turn in range(3):
        folder = tmp_path / str(turn)
        alone = [[part(b, folder / "alone")] for b in LAYERS]
        together = [part(b, folder / "together") for b in LAYERS]
        one_by_one = seconds(*(partial(train_together, one) for one in alone))
        ratios.append(one_by_one / seconds(partial(train_together, together)))
        for (_, one), (_, other) in zip([own[0] for own in alone], together, strict=True):
            pairs = zip(one["hidden"].parameters(), other["hidden"].parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    print("one by one over together:", " ".join(f"{ratio:.2f}" for ratio in ratios))
    assert max(ratios) > 1.5
