"""Generation follows the law that is scored: forced to a text, it gives the scored logits."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.evaluation.generation import forced_logits, generate
from dihal_bench.evaluation.incremental import rows_as_windows
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch

from ..tiny import CONFIG, SPAN, VOCABULARY, backbone, redrawn

NAMES = sorted(INTERFACES.names())
START, NEW, BLOCK = 3, 8, 4
DOCUMENTS = torch.tensor([70, 71])
TEXT = torch.randint(2, 60, (2, START + NEW), generator=torch.Generator().manual_seed(3))
REGIMES = [
    (name, block)
    for name in NAMES
    for block in (0, BLOCK)
    if ("sequence" if block else "causal") in INTERFACES.get(name).regimes
]


def made(name: str, block: int = 0, **settings: object) -> Interface:
    return redrawn(name, block=block, **settings)


@torch.no_grad()
def parallel(interface: Interface, text: Tensor, *, steps: int, chain: int = 0) -> Tensor:
    """Logits of passes over all of the text, one per block; first places as scoring has them."""
    windows = rows_as_windows(text[:, :-1], DOCUMENTS[: len(text)])
    batch = Batch.of(windows, interface.backbone)
    size = max(1, interface.config.block)
    layout = interface.layout(batch, -(START - 1) % size)

    def logits(current: Tensor | None) -> Tensor:
        *_, x0 = interface.samples(
            batch, steps=steps, count=chain + 1, layout=layout, current=current
        )
        return interface.recover(x0, batch)

    parts = [
        logits(torch.full(text.shape[:1], first))[:, first : first + size]
        for first in range(START - 1, text.shape[1] - 1, size)
    ]
    found, scored = torch.cat(parts, dim=1), logits(None)[:, START - 1 :]
    places = layout.first[:, START - 1 :]
    torch.testing.assert_close(found[places], scored[places], rtol=0, atol=1e-8)
    return found


@pytest.mark.parametrize(("name", "block"), REGIMES)
def test_forced_generation_uses_the_logits_that_are_scored(name: str, block: int) -> None:
    interface = made(name, block)
    for chain in (0, 2):
        found = forced_logits(
            interface, TEXT, start=START, steps=3, chain=chain, documents=DOCUMENTS
        )
        expected = parallel(interface, TEXT, steps=3, chain=chain)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "block"), REGIMES)
def test_nothing_depends_on_what_stands_where_no_token_is_yet(name: str, block: int) -> None:
    interface = made(name, block)
    one, other = (
        forced_logits(interface, TEXT, start=START, steps=3, placeholder=p) for p in (0, 9)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", [0, BLOCK])
@pytest.mark.parametrize("name", ["hidden", "embedding", "c2d"])
def test_generated_text_read_in_parallel_gives_the_logits_it_was_drawn_from(
    name: str, block: int
) -> None:
    """At temperature 0 the law is a text: the likeliest tokens of its own parallel pass."""
    interface = made(name, block)
    settings = {"new": NEW, "steps": 2, "temperature": 0, "documents": DOCUMENTS}
    text = generate(interface, TEXT[:, :START], **settings)
    again = parallel(interface, text, steps=2)
    assert torch.equal(again.argmax(-1), text[:, START:])
    assert torch.equal(text[:, :START], TEXT[:, :START])


@pytest.mark.parametrize("block", [0, BLOCK])
@pytest.mark.parametrize("name", ["hidden", "c2d"])
def test_a_row_depends_on_nothing_but_itself(name: str, block: int) -> None:
    interface = made(name, block)
    prompts = TEXT[:, :START]
    both = generate(interface, prompts, new=NEW, steps=2, documents=DOCUMENTS)
    assert both.shape == (2, START + NEW)
    assert both.dtype == torch.int64
    for row in range(2):
        only = slice(row, row + 1)
        alone = generate(interface, prompts[only], new=NEW, steps=2, documents=DOCUMENTS[only])
        assert torch.equal(alone, both[only])
    short = generate(interface, prompts, new=NEW - 3, steps=2, documents=DOCUMENTS)
    assert torch.equal(short, both[:, : START + NEW - 3])


def test_seeds_chains_and_documents_give_other_texts() -> None:
    interface = made("hidden")
    prompts, settings = TEXT[:, :START], {"new": NEW, "steps": 2}
    first = generate(interface, prompts, **settings)
    assert torch.equal(first, generate(interface, prompts, **settings))
    assert not torch.equal(first, generate(interface, prompts, **settings, seed=1))
    assert not torch.equal(first, generate(interface, prompts, **settings, chain=1))
    assert not torch.equal(first, generate(interface, prompts, **settings, documents=DOCUMENTS))


class Fixed(INTERFACES.get("mean")):
    """One distribution everywhere."""

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        logits = torch.full((*batch.tokens.shape, VOCABULARY), -torch.inf, dtype=torch.float64)
        logits[..., 5], logits[..., 6] = 2.0, 0.0
        return logits


def fixed() -> Interface:
    return Fixed(backbone(torch.float64), SPAN, replace(CONFIG, residual="none"))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_temperature_acts_on_the_tokens_distribution(temperature: float) -> None:
    rows = 3000
    prompts = torch.full((rows, 1), 7)
    text = generate(fixed(), prompts, new=2, steps=1, temperature=temperature)
    share = float((text[:, 1:] == 5).double().mean())
    expected = float(torch.sigmoid(torch.tensor(2.0 / temperature, dtype=torch.float64)))
    assert set(text[:, 1:].unique().tolist()) == {5, 6}
    assert share == pytest.approx(expected, abs=4 * 0.5 / (2 * rows) ** 0.5)
    greedy = generate(fixed(), prompts[:2], new=3, steps=1, temperature=0)
    assert (greedy[:, 1:] == 5).all()


@pytest.mark.parametrize(
    ("prompts", "settings"),
    [
        (TEXT[0], {}),
        (TEXT[:, :0], {}),
        (TEXT, {"new": 0}),
        (TEXT, {"temperature": -1.0}),
    ],
)
def test_arguments_out_of_range_are_refused(prompts: Tensor, settings: dict[str, float]) -> None:
    with pytest.raises(UserError):
        generate(made("mean"), prompts, **{"new": 1, "steps": 1, **settings})
