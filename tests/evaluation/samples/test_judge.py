"""Generative perplexity, in our definition and in those of others, worked out by hand."""

import math

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.samples import compat
from dihal_bench.evaluation.samples.compat import COMPAT, compat_perplexity
from dihal_bench.evaluation.samples.judge import Judge
from dihal_bench.models.model import Backbone

from ...conftest import Tiny, small_llama, small_tokenizer
from .toy import judge, nll, samples


def test_the_first_token_is_unscored_and_no_tail_is_dropped() -> None:
    found = judge(8).read(samples("a a a", "a", "", "a a a a"))
    assert found.tokens.tolist() == [2, 0, 0, 3]
    assert found.nll.tolist() == pytest.approx(
        [nll(1) + nll(2), 0.0, 0.0, nll(1) + nll(2) + nll(3)]
    )
    assert found.empty == 2


def test_beside_it_every_token_is_scored_given_the_token_that_begins_documents() -> None:
    found = judge(8).read(samples("a a", "", "a"))
    assert found.tokens_begun.tolist() == [2, 0, 1]
    assert found.nll_begun.tolist() == pytest.approx([nll(1) + nll(2), 0.0, nll(1)])


def test_what_exceeds_the_context_is_read_with_half_of_it_before() -> None:
    found = judge(4).read(samples("a a a a a a a"))
    first = nll(1) + nll(2) + nll(3)
    assert found.tokens.tolist() == [6]
    assert found.nll[0] == pytest.approx(first + nll(2) + nll(3) + nll(2))


def test_a_prompt_is_read_and_not_scored() -> None:
    found = judge(8).read(samples("a b", "b", prompts=("a a ", "")))
    assert found.tokens.tolist() == [2, 0]
    assert found.nll[0] == pytest.approx(nll(2) + nll(3, "b"))


def test_features_are_the_last_state_of_a_sample_whatever_stands_beside_it() -> None:
    found = judge(4).read(samples("a a a a a b", "a", ""))
    assert found.features.tolist() == [[3.0, 1.0], [2.0, 1.0], [0.0, 0.0]]


def test_features_are_the_last_hidden_states_that_others_take(tiny: Tiny) -> None:
    """MAUVE's own are transformers' ``hidden_states[-1]``: after the final norm."""
    model = Backbone.load(str(tiny.backbone))
    rows = [[5, 9, 30, 4], [7, 8]]
    found = Judge(model).losses(rows, 64, 32).features
    for row, own in zip(rows, found, strict=True):
        states = model.model(torch.tensor([row]), output_hidden_states=True).hidden_states[-1]
        assert own == pytest.approx(states[0, -1].detach().numpy(), abs=1e-5)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_CONTEXT", 4)
    monkeypatch.setattr(compat, "_STRIDE", 2)


@pytest.mark.usefixtures("small")
def test_duo_scores_disjoint_windows_and_the_first_end_of_text() -> None:
    texts = ["a a a a a a", "a </s> a </s>"]
    first = [nll(1), nll(2), nll(3), nll(1)]
    second = [nll(1, "</s>"), nll(2)]  # the second end does not count
    expected = math.exp(np.mean(first + second))
    assert compat_perplexity("duo", judge(4), texts, length=6) == pytest.approx(expected)


@pytest.mark.usefixtures("small")
def test_duo_counts_the_padding_behind_a_shorter_sample_once_and_cuts_a_longer_one() -> None:
    texts = ["a a a a a", "a a"]
    first = [nll(1), nll(2)]  # three tokens are left
    second = [nll(1), nll(2, "</s>")]
    expected = math.exp(np.mean(first + second))
    found = compat_perplexity("duo", judge(4), texts, length=3)
    assert found == pytest.approx(expected)


@pytest.mark.usefixtures("small")
def test_bd3lms_slides_and_leaves_out_every_end_of_text() -> None:
    texts = ["a a a a a a", "a </s> a </s>"]
    first = [nll(1), nll(2), nll(3), nll(2), nll(3)]
    expected = math.exp(np.mean([*first, nll(2)]))
    assert compat_perplexity("bd3lms", judge(4), texts, length=6) == pytest.approx(expected)


@pytest.mark.usefixtures("small")
def test_evaluate_cuts_scores_the_first_token_and_means_perplexities() -> None:
    texts = ["a a a a a a", "b"]
    first = math.exp(np.mean([nll(1), nll(2), nll(3)]))
    second = math.exp(nll(1, "b"))
    assert compat_perplexity("hf-evaluate", judge(4), texts, length=6) == pytest.approx(
        (first + second) / 2
    )


@pytest.mark.parametrize("mode", COMPAT)
def test_nothing_to_score_is_an_error(mode: str) -> None:
    with pytest.raises(UserError, match="no sample"):
        compat_perplexity(mode, judge(8), ["", ""], length=6)
    with pytest.raises(UserError, match="hf-evaluate"):
        compat_perplexity("other", judge(8), ["a a"], length=6)


def test_definitions_agree_on_nothing() -> None:
    texts = ["a b a a b a", "a </s> b"]
    found = {mode: compat_perplexity(mode, judge(4), texts, length=6) for mode in COMPAT}
    assert len({round(value, 6) for value in found.values()}) == len(COMPAT)


def test_a_judge_with_the_backbones_weights_is_refused_in_any_dtype(tiny: Tiny) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        own = Backbone.load(str(tiny.backbone), dtype=dtype)
        with pytest.raises(UserError, match="judge itself"):
            Judge.load(str(tiny.backbone), own)
    other = Backbone.from_model(small_llama(blocks=3), small_tokenizer(["a b"]), name="other")
    assert not Judge.load(str(tiny.backbone), other).is_model(other)


def test_losses_are_those_of_the_model_itself(tiny: Tiny) -> None:
    model = Backbone.load(str(tiny.backbone))
    rows = [[5, 9, 30, 4], [7], list(range(10, 60))]
    found = Judge(model).losses(rows, 64, 32)
    for row, own in zip(rows, found.nll, strict=True):
        logs = torch.log_softmax(model.logits(torch.tensor([row])), dim=-1)[0]
        expected = [-float(logs[i, token]) for i, token in enumerate(row[1:])]
        assert math.isnan(own[0])
        assert own[1:].tolist() == pytest.approx(expected, rel=1e-4)
