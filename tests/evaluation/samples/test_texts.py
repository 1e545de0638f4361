"""Samples are drawn by the law that is scored, whatever they are drawn together with."""

import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.sources import load_corpus
from dihal_bench.data.tokens import PackedTokens, pack
from dihal_bench.evaluation.generation import Choice, forced_logits
from dihal_bench.evaluation.samples.sampling import Drawing, Samples, beginnings
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Span
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.model import Backbone

from ...conftest import Tiny
from ...tiny import CONFIG

PROMPTS = [[0, 40, 41], [0], [0, 50, 51, 52, 53], [0, 60]]


@pytest.fixture
def teacher(tiny: Tiny) -> Backbone:
    return Backbone.load(str(tiny.backbone), dtype=torch.float64)


@pytest.fixture
def text(tiny: Tiny, teacher: Backbone) -> PackedTokens:
    return pack(load_corpus(str(tiny.corpus)), "validation", teacher.tokenizer, window=32)


def interface_on(teacher: Backbone, text: PackedTokens, name: str, block: int = 0) -> Interface:
    from dataclasses import replace

    kind = INTERFACES.get(name)
    span = Span(a=1, b=teacher.blocks if kind.bears_tokens else 3, blocks=teacher.blocks)
    interface: Interface = kind(teacher, span, replace(CONFIG, block=block))
    batch = Batch.of(text.batch(range(4)), teacher, layers=interface.layers)
    interface.fit(SpanStatistics.collect([batch], interface.layers[0], interface.layers[-1]))
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in interface.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    return interface.double()


@pytest.mark.parametrize("source", ["teacher", "hidden", "c2d", "embedding", "hidden/4"])
def test_neither_batch_nor_other_prompts_change_a_sample(
    teacher: Backbone, text: PackedTokens, source: str
) -> None:
    name, _, block = source.partition("/")
    writer = teacher if name == "teacher" else interface_on(teacher, text, name, int(block or 0))
    found = [Drawing(tokens=9, steps=2, batch=size).draw(writer, PROMPTS) for size in (1, 2, 4)]
    assert found[0].ids == found[1].ids == found[2].ids
    assert found[0].texts == found[2].texts
    for number, prompt in enumerate(PROMPTS):
        alone = Drawing(tokens=9, steps=2).draw(writer, [prompt], first=number)
        assert alone.ids == found[0].ids[number : number + 1]
        short = Drawing(tokens=4, steps=2).draw(writer, [prompt], first=number)
        assert short.ids[0] == found[0].ids[number][:4]


def test_a_mean_of_chains_is_drawn_from_the_mean_of_their_distributions(
    teacher: Backbone, text: PackedTokens
) -> None:
    interface = interface_on(teacher, text, "hidden")
    row = torch.tensor([[0, 40, 41, 42, 43, 44, 45]])
    one = [
        torch.softmax(forced_logits(interface, row, start=2, steps=3, chain=chain), dim=-1)
        for chain in range(3)
    ]
    both = torch.softmax(forced_logits(interface, row, start=2, steps=3, chains=3), dim=-1)
    torch.testing.assert_close(both, torch.stack(one).mean(0), rtol=0, atol=1e-12)
    assert float((one[0] - one[1]).abs().max()) > 1e-4


def test_the_teachers_cache_gives_the_probabilities_of_one_pass(teacher: Backbone) -> None:
    """Temperature 0: what is drawn is the likeliest token of the parallel pass."""
    drawn = Drawing(tokens=12, choice=Choice(temperature=0)).draw(teacher, PROMPTS)
    for prompt, ids in zip(PROMPTS, drawn.ids, strict=True):
        logits = teacher.logits(torch.tensor([prompt + ids]))[0]
        expected = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
        assert ids == expected[: len(ids)]


def test_a_sample_ends_before_its_end_of_text(teacher: Backbone) -> None:
    end = teacher.tokenizer.eos_token_id
    found = Samples.of([[40, 41, end, 42], [end], [43]], teacher.tokenizer)
    assert found.ids == [[40, 41], [], [43]]
    assert found.texts[1] == ""


def test_text_is_what_tokens_add_to_their_prompt(teacher: Backbone) -> None:
    """A character of two tokens, divided between prompt and sample, is neither lost nor doubled."""
    text = "bad \u00e9 ok"
    whole = teacher.tokenizer.encode(text, add_special_tokens=False)
    assert len(whole) > len(text.split())
    divided = 0
    for cut in range(1, len(whole)):
        found = Samples.of([whole[cut:]], teacher.tokenizer, prompts=[whole[:cut]])
        assert found.prompts[0] + found.texts[0] == text
        divided += "\ufffd" in teacher.tokenizer.decode(whole[:cut])
    assert divided == 1


def test_samples_that_may_not_end_have_one_length_and_no_end(teacher: Backbone) -> None:
    end = teacher.tokenizer.eos_token_id
    found = Drawing(tokens=20, ends=False, choice=Choice(temperature=3.0)).draw(teacher, [[0]] * 64)
    assert {len(ids) for ids in found.ids} == {20}
    assert not any(end in ids for ids in found.ids)
    free = Drawing(tokens=20, choice=Choice(temperature=3.0)).draw(teacher, [[0]] * 64)
    assert any(len(ids) < 20 for ids in free.ids)


def test_another_seed_is_another_noise_of_signals_as_well(
    teacher: Backbone, text: PackedTokens
) -> None:
    """At temperature 0 a bridge's samples differ by the noise of its signals alone."""
    interface = interface_on(teacher, text, "hidden")
    found = [
        Drawing(tokens=12, steps=2, choice=Choice(temperature=0, seed=seed)).draw(
            interface, [[0]] * 6
        )
        for seed in (0, 0, 1)
    ]
    assert found[0].ids == found[1].ids
    assert not set(map(tuple, found[0].ids)) & set(map(tuple, found[2].ids))


def test_top_p_keeps_the_likeliest_tokens_that_reach_it() -> None:
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]], dtype=torch.float64).log()
    rows = torch.arange(2000)
    many = logits.expand(2000, -1)
    for top_p, kept in (
        (0.4, {0}),
        (0.6, {0, 1}),
        (0.91, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ):
        drawn = Choice(top_p=top_p).draw(many, rows, 0)
        assert set(drawn.tolist()) == kept, top_p
    drawn = Choice(top_p=0.6).draw(many, rows, 1)
    assert float((drawn == 0).double().mean()) == pytest.approx(5 / 7, abs=0.03)


def test_beginnings_are_the_first_tokens_of_documents(
    text: PackedTokens, teacher: Backbone
) -> None:
    found = beginnings(text, teacher.tokenizer, tokens=6, count=5)
    assert len(found) == 5
    assert {len(row) for row in found.ids} == {6}
    firsts = [text.document(i)[1:7].tolist() for i in range(text.documents)]
    assert all(row in firsts for row in found.ids)
    later = beginnings(text, teacher.tokenizer, tokens=6, count=5, prefix=3)
    continued = [text.document(i) for i in range(text.documents) if len(text.document(i)) > 4]
    assert all(
        any(row[:4].tolist() == given and row[4:10].tolist() == ids for row in continued)
        for given, ids in zip(later.given, later.ids, strict=True)
    )
    assert beginnings(text, teacher.tokenizer, tokens=6, count=5, prefix=10_000).ids == []


def test_what_does_not_fit_the_context_is_refused(teacher: Backbone) -> None:
    with pytest.raises(UserError, match=r"context of .* \(64\)"):
        Drawing(tokens=62).draw(teacher, [[0, 40, 41]])
    Drawing(tokens=61).draw(teacher, [[0, 40, 41]])


@pytest.mark.parametrize("prompts", [[], [[]], [[0], []]])
def test_no_samples_and_no_prompt_are_refused(teacher: Backbone, prompts: list[list[int]]) -> None:
    with pytest.raises(UserError):
        Drawing(tokens=2).draw(teacher, prompts)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(UserError, match="not finite numbers"):
        Choice().draw(torch.full((2, 5), value), torch.arange(2), 3)


@pytest.mark.parametrize("settings", [{"top_p": 0.0}, {"top_p": 1.1}, {"temperature": -1.0}])
def test_choices_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError):
        Choice(**settings)
