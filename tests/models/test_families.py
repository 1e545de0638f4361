"""No type of transformers' causal models is silently wrong, or ends in a traceback."""

import pytest
import transformers

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone

from .families import BEGIN, PAGE, TYPES, VARIANTS, make_model, outcome, outcomes, page


@pytest.mark.nightly
def test_every_family_is_exact_or_refused():
    found = dict(outcomes([*TYPES, *VARIANTS]))
    assert {name: one for name, one in found.items() if one.kind == "FAULT"} == {}
    written = PAGE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}:" in written.partition(BEGIN)[2]:
        assert page(found) == written


@pytest.mark.parametrize("name", ["ctrl", "bloom", "mixtral", "llama, dynamic rope"])
def test_exact_families(name):
    assert outcome(name).kind == "exact"


@pytest.mark.parametrize("name", ["openai-gpt", "moshi", "mamba"])
def test_a_family_without_a_cached_pass_is_scored_and_cannot_generate(name):
    assert outcome(name).kind == "scored"
    backbone = Backbone.from_model(make_model(name), None, name="mine")
    for generate in (backbone.new_cache, backbone.require_generation):
        with pytest.raises(UserError, match=f"'mine' of type '{name}' cannot generate"):
            generate()


@pytest.mark.parametrize("name", ["gemma3n_text", "hy_v4", "deepseek_v4", "bert"])
def test_refused_families_are_named(name):
    found = outcome(name)
    assert found.kind == "refused"
    assert f"'{name}'" in found.why


@pytest.mark.parametrize("name", ["doge, sparse", "glm_moe_dsa, sparse"])
def test_attention_that_reads_the_future_in_long_windows_alone(name):
    found = outcome(name)
    assert found.kind == "refused"
    assert "depend on those after them" in found.why


def test_longrope_ends_at_the_original_context():
    settings = VARIANTS["phi3, longrope"][1]
    backbone = Backbone.from_model(make_model("phi3", **settings), None, name="mine")
    assert backbone.info.context == 16
    backbone.check_window(16)
    with pytest.raises(UserError, match=r"text.window=17 exceeds the context of mine \(16\)"):
        backbone.check_window(17)


def test_a_context_that_nothing_states_is_unknown():
    backbone = Backbone.from_model(make_model("bloom"), None, name="mine")
    assert backbone.info.context is None
    assert backbone.info.most(10**6) == 10**6
    backbone.check_window(64)
