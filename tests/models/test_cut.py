"""A cut model is the model: at every layer, packed, cached, and for gradients."""

import copy
import functools
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone

BLOCKS, LENGTH, WINDOW = 4, 20, 6
ALTERNATING = ["sliding_attention", "full_attention"] * 2
BASE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GATED = BASE | {"intermediate_size": 64, "num_key_value_heads": 2}
SLIDING = {"sliding_window": WINDOW, "layer_types": ALTERNATING}
OPT = {"model_type": "opt", "ffn_dim": 64, "init_std": 0.3, "pad_token_id": 0}
FAMILIES = {
    "llama": GATED,
    "qwen2": GATED | SLIDING | {"use_sliding_window": True},
    "qwen3": GATED | SLIDING | {"use_sliding_window": True, "head_dim": 8},
    "mistral": GATED | {"sliding_window": WINDOW},
    "gemma": GATED | {"head_dim": 8},
    "gemma2": GATED | SLIDING | {"head_dim": 8},
    "gemma3_text": GATED
    | {"head_dim": 8, "sliding_window": WINDOW}
    | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "gpt2": BASE | {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "gpt_neox": BASE | {"intermediate_size": 64},
    "opt": BASE | OPT | {"word_embed_proj_dim": 32, "dropout": 0.5, "layerdrop": 0.5},
    "opt with projections": BASE | OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    # Not promised, but each has a trait of its own: blocks that return tuples, and packing that
    # the model's own masks get wrong.
    "falcon": BASE | {"alibi": True, "new_decoder_architecture": False},
    "gpt_oss": GATED
    | SLIDING
    | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": None},
}
DOCUMENTS = [(0, 0, 7), (0, 7, 20), (1, 0, 9), (1, 9, 12), (1, 12, 20)]  # row, first, end
POSITIONS = torch.tensor([[*range(7), *range(13)], [*range(9), *range(3), *range(8)]])
LAYERS = range(BLOCKS + 1)


@functools.cache
def make(family: str) -> Backbone:
    settings = {"model_type": family} | FAMILIES[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases start at 1 and 0, which would hide their loss
            parameter.data += 0.2 * torch.randn_like(parameter)
    return Backbone.from_model(model.train(), None, name=family)


@pytest.fixture(params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return make(request.param)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(2, 97, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def plain(backbone: Backbone, tokens: Tensor) -> Tensor:
    return backbone.model(tokens, use_cache=False).logits


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


def test_rejoined_at_every_layer_it_is_the_model(backbone, tokens):
    whole = plain(backbone, tokens)
    for layer in LAYERS:
        rejoined = backbone.upper(backbone.lower(tokens, layer), layer)
        assert difference(rejoined, whole) < 1e-6, layer
    assert difference(backbone.logits(tokens), whole) < 1e-6


def test_states_of_one_pass_are_those_of_lower(backbone, tokens):
    states = backbone.states(tokens, logits=True)
    assert list(states.hidden) == list(LAYERS)
    for layer, state in states.hidden.items():
        assert difference(state, backbone.lower(tokens, layer)) < 1e-6
    assert difference(states.logits, plain(backbone, tokens)) < 1e-6
    some = backbone.states(tokens, layers=[3, 1])
    assert some.logits is None
    assert set(some.hidden) == {1, 3}
    assert torch.equal(some.hidden[3], states.hidden[3])


def test_layers_are_the_residual_stream_before_the_final_norm(backbone, tokens):
    theirs = backbone.model(tokens, use_cache=False, output_hidden_states=True)
    for layer in range(BLOCKS):
        assert difference(backbone.lower(tokens, layer), theirs.hidden_states[layer]) < 1e-6
    assert torch.equal(backbone.embed(tokens), backbone.lower(tokens, 0))
    top = backbone.lower(tokens, BLOCKS)
    assert difference(backbone.head(top), theirs.logits) < 1e-6
    if backbone.name != "opt with projections":  # post-norm: it has no final norm
        assert difference(top, theirs.hidden_states[BLOCKS]) > 1e-2


def test_spans_compose(backbone, tokens):
    states = backbone.states(tokens).hidden
    for low in LAYERS:
        for high in range(low, BLOCKS + 1):
            assert difference(backbone.span(states[low], low, high), states[high]) < 1e-6


def test_packed_documents_are_as_if_alone(backbone, tokens):
    for layer in LAYERS:
        hidden = backbone.lower(tokens, layer, POSITIONS)
        logits = backbone.upper(hidden, layer, POSITIONS)
        for row, first, end in DOCUMENTS:
            part = (slice(row, row + 1), slice(first, end))
            assert difference(hidden[part], backbone.lower(tokens[part], layer)) < 1e-5
            assert difference(logits[part], plain(backbone, tokens[part])) < 1e-5


def test_packed_documents_do_not_touch(backbone, tokens):
    def everything(tokens: Tensor) -> Tensor:
        states = backbone.states(tokens, POSITIONS, logits=True)
        return torch.cat([*states.hidden.values(), states.logits], -1)

    changed = tokens.clone()
    changed[:, :7] = 5
    before, after = everything(tokens), everything(changed)
    assert difference(after[0, 7:], before[0, 7:]) < 1e-6
    assert difference(after[1, 9:], before[1, 9:]) < 1e-6
    assert difference(after[:, :7], before[:, :7]) > 1e-2


def test_upper_needs_the_positions_too(backbone, tokens):
    hidden = backbone.lower(tokens, 2, POSITIONS)
    right, wrong = backbone.upper(hidden, 2, POSITIONS), backbone.upper(hidden, 2)
    assert difference(wrong, right) > 1e-3


def test_positions_of_one_document_per_row_change_nothing(backbone, tokens):
    positions = torch.arange(LENGTH).expand_as(tokens)
    assert torch.equal(backbone.logits(tokens, positions), backbone.logits(tokens))


@pytest.mark.parametrize("prompt", [1, 7])
def test_cached_continuation_is_the_pass_over_all(backbone, tokens, prompt):
    pieces = tokens.tensor_split([*range(prompt, LENGTH)], dim=1)
    for layer in LAYERS:
        below, above = backbone.new_cache(), backbone.new_cache()
        hidden = [backbone.lower(piece, layer, cache=below) for piece in pieces]
        logits = [backbone.upper(state, layer, cache=above) for state in hidden]
        assert difference(torch.cat(hidden, 1), backbone.lower(tokens, layer)) < 1e-5
        assert difference(torch.cat(logits, 1), plain(backbone, tokens)) < 1e-5


def test_cached_span_is_the_span(backbone, tokens):
    cache, states = backbone.new_cache(), backbone.states(tokens, layers=[1, 3]).hidden
    pieces = [backbone.span(piece, 1, 3, cache=cache) for piece in states[1].split(1, dim=1)]
    assert difference(torch.cat(pieces, 1), states[3]) < 1e-5


@pytest.mark.parametrize(("positions", "starts"), [(None, [0, 0]), (POSITIONS, [7, 12])])
def test_gradient_reaches_the_state_and_no_parameter(backbone, tokens, positions, starts):
    hidden = backbone.lower(tokens, 2, positions)
    assert not hidden.requires_grad
    hidden.requires_grad_()
    backbone.upper(backbone.span(hidden, 2, 3, positions), 3, positions)[:, -1].sum().backward()
    for row, start in enumerate(starts):  # of the document that the last token belongs to
        reached = hidden.grad[row].abs().sum(-1)
        assert reached[-1] > 0
        assert reached[:start].sum() == 0
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_only_the_wanted_blocks_run(backbone, tokens):
    ran = []
    blocks = backbone._cut.blocks
    hooks = [
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(blocks)
    ]

    def which(method, *args, **kwargs) -> list[int]:
        ran.clear()
        method(*args, **kwargs)
        return list(ran)

    states = backbone.states(tokens).hidden
    try:
        for layer in LAYERS:
            assert which(backbone.lower, tokens, layer) == [*range(layer)]
            assert which(backbone.upper, states[layer], layer) == [*range(layer, BLOCKS)]
        assert which(backbone.span, states[1], 1, 3) == [1, 2]
        assert which(backbone.states, tokens, layers=[0, 2]) == [0, 1]
        assert which(backbone.states, tokens, layers=[2], logits=True) == [0, 1, 2, 3]
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_trace_is_left_on_the_model(family, tokens):
    backbone = make.__wrapped__(family)

    def inventory() -> list[tuple[str, int, int]]:
        modules = backbone.model.named_modules()
        return [(name, id(module), len(module._forward_hooks)) for name, module in modules]

    before = inventory()
    backbone.model.config.output_hidden_states = True
    hidden = backbone.lower(tokens, 2)
    backbone.upper(hidden, 2)
    backbone.states(tokens, POSITIONS)
    assert inventory() == before


def test_the_teacher_stays_in_eval_mode(backbone, tokens):
    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = backbone

    student = Student().train()
    assert not list(student.parameters())
    assert not any(module.training for module in backbone.model.modules())
    assert torch.equal(backbone.logits(tokens), backbone.logits(tokens))


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_the_naive_slice_fails(family, tokens):
    """The control: what the exchange of blocks avoids is visible to these tests."""
    backbone = make(family)
    sliced = copy.deepcopy(backbone.model)
    blocks = sliced.get_submodule(".".join(backbone._cut.path))
    del blocks[:1]
    sliced.config.num_hidden_layers = BLOCKS - 1
    logits = sliced(inputs_embeds=backbone.lower(tokens, 1), use_cache=False).logits
    assert difference(logits, plain(backbone, tokens)) > 1e-2


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_half_precision_is_as_exact(family, tokens):
    half = Backbone.from_model(copy.deepcopy(make(family).model).bfloat16(), None, name=family)
    hidden = half.lower(tokens, 2)
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(half.upper(hidden.float(), 2), plain(half, tokens))


@pytest.mark.parametrize(
    "call",
    [
        lambda b, x, h: b.lower(x, 5),
        lambda b, x, h: b.lower(x, -1),
        lambda b, x, h: b.upper(h, 5),
        lambda b, x, h: b.states(x, layers=[1, 7]),
        lambda b, x, h: b.states(x, layers=[]),
        lambda b, x, h: b.span(h, 3, 2),
        lambda b, x, h: b.lower(x, 1, POSITIONS, cache=b.new_cache()),
        lambda b, x, h: b.lower(x, 1, POSITIONS + 1),
        lambda b, x, h: b.lower(x, 1, torch.zeros_like(x).index_fill(1, torch.tensor([3]), 4)),
    ],
)
def test_wrong_arguments_are_refused(call, tokens):
    backbone = make("llama")
    with pytest.raises(UserError):
        call(backbone, tokens, backbone.embed(tokens))


def test_info_tells_models_apart():
    one, same = make("llama"), make("llama").model
    info = one.info
    assert (info.blocks, info.hidden_size, info.vocab_size, info.context) == (4, 32, 97, 64)
    assert (info.name, info.architecture, info.dtype) == ("llama", "llama", "float32")
    assert info.parameters == sum(parameter.numel() for parameter in same.parameters())
    again = Backbone.from_model(copy.deepcopy(same), None, name="copy")
    assert again.info.fingerprint == info.fingerprint
    changed = copy.deepcopy(same)
    changed.lm_head.weight.data[5, 3] += 1e-3
    assert Backbone.from_model(changed, None, name="x").info.fingerprint != info.fingerprint
    half = Backbone.from_model(copy.deepcopy(same).bfloat16(), None, name="half")
    assert half.info.dtype == "bfloat16"
    assert half.info.fingerprint != info.fingerprint


def test_the_package_is_imported_without_torch():
    program = "import sys, dihal_bench.models as b; assert 'torch' not in sys.modules; b.Backbone"
    subprocess.run([sys.executable, "-c", program], check=True)
