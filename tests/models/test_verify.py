"""Whatever a model does wrong, later stages never meet it."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone


@functools.cache
def original() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "vocab_size": 40}
    config = LlamaConfig(num_attention_heads=2, max_position_embeddings=64, **sizes)
    config.initializer_range = 0.3
    return LlamaForCausalLM(config)


@pytest.fixture
def model() -> LlamaForCausalLM:
    return copy.deepcopy(original())


def load(model: LlamaForCausalLM) -> Backbone:
    return Backbone.from_model(model, None, name="mine")


def change_input(model, change) -> None:
    """Let the decoder's keyword arguments pass through ``change``."""
    hook = lambda module, args, kwargs: (args, change(kwargs) or kwargs)  # noqa: E731
    model.model.register_forward_pre_hook(hook, with_kwargs=True)


STAGES = {
    "an uncut pass": lambda given: given["input_ids"] is not None,
    "a pass that is cut": lambda given: given["inputs_embeds"] is not None,
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("error", [KeyError("full"), AttributeError("x.\ny"), AssertionError()])
def test_what_a_forward_raises_is_one_sentence(model, stage, error):
    def fail(given):
        if STAGES[stage](given):
            raise error

    change_input(model, fail)
    with pytest.raises(UserError, match=f"architecture 'llama': {stage} fails") as caught:
        load(model)
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_forward_without_position_ids_keeps_documents_in_rows(model):
    def fail(given):
        if given["position_ids"] is not None:
            raise TypeError("position_ids")

    change_input(model, fail)
    assert not load(model).packs_natively
    assert load(original()).packs_natively


@pytest.mark.parametrize("wrong", ["raises", "differs", "differs after more than one piece"])
def test_a_cached_pass_that_cannot_be_used(model, wrong):
    def change(given):
        past = given["past_key_values"]
        if past is None:
            return None
        if wrong == "raises":
            raise ValueError("no cache")
        if wrong == "differs" or past.get_seq_length() > 4:
            return given | {"position_ids": torch.zeros(1, 1, dtype=torch.int64)}
        return None

    change_input(model, change)
    backbone = load(model)
    assert "cached pass" in backbone.only_scored
    with pytest.raises(UserError, match="cannot generate"):
        backbone.new_cache()


def test_a_cached_pass_that_fails_in_long_windows_alone(model):
    def change(given):
        past = given["past_key_values"]
        if past is not None and past.get_seq_length() > 10:
            raise ValueError("too long")

    change_input(model, change)
    backbone = load(model)
    assert not backbone.only_scored
    backbone.check_window(32)
    assert "too long" in backbone.only_scored


def test_position_ids_that_fail_in_long_windows_alone(model):
    def change(given):
        positions = given["position_ids"]
        if positions is not None and positions.shape[1] > 10:
            return given | {"position_ids": positions.cummax(-1).values}
        return None

    change_input(model, change)
    backbone = load(model)
    assert backbone.packs_natively
    backbone.check_window(32)
    assert not backbone.packs_natively


def test_states_that_depend_on_the_windows_length(model):
    def change(given):
        if given["input_ids"] is not None and given["input_ids"].shape[1] > 20:
            return given | {"position_ids": torch.arange(given["input_ids"].shape[1])[None] * 2}
        return None

    change_input(model, change)
    with pytest.raises(UserError, match=r"'llama'.*depend on those after them"):
        load(model).check_window(32)


def test_states_that_are_overwritten_further_up(model):
    model.model.layers[2].register_forward_pre_hook(lambda module, args: (args[0].add_(1),))
    with pytest.raises(UserError, match=r"layer 2 are overwritten|it is another model"):
        load(model)


def test_an_upper_part_without_a_gradient(model):
    model.model.norm.register_forward_hook(lambda module, args, output: output.detach())
    with pytest.raises(UserError, match=r"a gradient to a layer's states fails|no gradient"):
        load(model)


def test_fewer_embeddings_than_logits(model):
    model.lm_head = torch.nn.Linear(16, 44)
    with pytest.raises(UserError, match="40 embeddings for logits of 44"):
        load(model)


def test_half_precision_passes(model):
    backbone = load(model.bfloat16())
    backbone.check_window(48)
    assert backbone.packs_natively
    assert not backbone.only_scored


def test_ids_without_an_embedding_are_named():
    backbone = load(original())
    backbone.tokenizer = SimpleNamespace(decode=lambda ids: f"<{ids[0]}>")
    backbone.check_ids([[1, 39], []], "a prompt")
    with pytest.raises(UserError, match=r"a prompt: the token '<40>' has the id 40.*'mine' has 40"):
        backbone.check_ids([[1], [2, 40]], "a prompt")
