"""The two models inside the package: what their cards say is so, and they are strangers."""

import json
from pathlib import Path

import numpy as np
import pytest

from dihal_bench.data.bundled import bundled_corpus
from dihal_bench.data.tokens import pack, tokenizer_fingerprint
from dihal_bench.models.loading import BUNDLED, JUDGE, bundled_facts, bundled_fingerprint, locate
from dihal_bench.models.model import Backbone
from dihal_bench.studies.bundled_models import recipe

MEGABYTES = 1e6


@pytest.mark.parametrize("name", BUNDLED)
def test_the_card_says_what_is_there(name):
    folder, said = Path(locate(name)), bundled_facts(name)
    role = BUNDLED[name]
    assert said["role"] == role
    assert said["recipe"] == json.loads(json.dumps(vars(recipe.RECIPES[role])))
    assert said["corpus_fingerprint"] == bundled_fingerprint()
    assert (folder / "model.safetensors").stat().st_size <= 12 * MEGABYTES
    backbone = Backbone.load(name)
    assert sum(p.numel() for p in backbone.model.parameters()) == said["parameters"]
    assert tokenizer_fingerprint(backbone.tokenizer) == said["tokenizer_fingerprint"]
    assert backbone.info.context >= 512
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{said['validation']['perplexity']:.2f}" in card
    assert said["corpus_fingerprint"] in card


def test_the_backbone_is_deep_and_good_enough():
    said = bundled_facts("bundled")
    assert said["recipe"]["architecture"]["num_hidden_layers"] >= 8
    assert said["validation"]["perplexity"] <= 30


def test_the_judge_is_a_stranger_and_at_least_as_good():
    ours, judge = bundled_facts("bundled"), bundled_facts(JUDGE)
    assert judge["recipe"]["model_type"] != ours["recipe"]["model_type"]
    assert judge["recipe"]["seed"] != ours["recipe"]["seed"]
    assert judge["tokenizer_fingerprint"] == ours["tokenizer_fingerprint"]
    assert judge["validation"]["nll"] <= ours["validation"]["nll"]


@pytest.mark.nightly
def test_the_perplexity_of_the_card_is_measured_again():
    corpus = bundled_corpus()
    if corpus.notes["versions"] != bundled_facts()["corpus"]["versions"]:
        pytest.skip("other versions of the dependencies are installed than constraints.txt pins")
    assert corpus.fingerprint == bundled_fingerprint()
    for name in BUNDLED:
        backbone = Backbone.load(name)
        text = pack(corpus, "validation", backbone.tokenizer, window=512)
        said = bundled_facts(name)["validation"]
        losses = [
            recipe.token_nll(backbone.model, text.batch([index]), autocast=False)
            for index in np.linspace(0, len(text) - 1, 48).round().astype(int)
        ]
        means = np.array([float(loss.mean()) for loss in losses])
        error = means.std() / len(means) ** 0.5
        assert abs(means.mean() - said["nll"]) < 4 * error < 0.4
