"""Likelihoods against a slow loop, and the identities that make them likelihoods."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dihal_bench.evaluation.likelihood import TEACHER, Row, Totals, score
from dihal_bench.evaluation.token_scores import token_scores

from ..tiny import backbone, build, redrawn
from .texts import Text

TARGETS, VOCABULARY = 7, 11
TEXT = Text([[(0, 3, 9), (1, 0, 15)], [(1, 15, 4), (2, 0, 20)], [(3, 0, 24)], [(4, 5, 24)]])


def random_chains(count: int, *, spread: float = 3.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(count, TARGETS, VOCABULARY, generator=generator)
    return list(torch.log_softmax(logits, -1))


def slow(chains: list[Tensor], teacher: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """Every metric of every target by its definition, one number at a time."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for i, y in enumerate(targets.tolist()):
        q = [[math.exp(v) for v in chain[i].double().tolist()] for chain in chains]
        p = [math.exp(v) for v in teacher[i].double().tolist()]
        mixture = [sum(column) / len(q) for column in zip(*q, strict=True)]
        size = 1
        while size <= len(q):
            groups = [q[g : g + size] for g in range(0, len(q) - size + 1, size)]
            nll = [-math.log(sum(chain[y] for chain in group) / size) for group in groups]
            note(f"nll@{size}", sum(nll) / len(nll))
            size *= 2
        pairs = list(itertools.permutations(q, 2)) or [(q[0], q[0])]
        collision = [sum(a * b for a, b in zip(*pair, strict=True)) for pair in pairs]
        note("brier1", 2 * mixture[y] - sum(collision) / len(pairs))
        note("kl", divergence(p, mixture))
        note("kl_reverse", divergence(mixture, p))
        note("kl_chain", sum(divergence(p, chain) for chain in q) / len(q))
        note("top1", float(np.argmax(mixture) == np.argmax(p)))
        note("top1_chain", sum(np.argmax(chain) == np.argmax(p) for chain in q) / len(q))
    return found


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_scores_are_those_of_a_slow_loop(count):
    chains, teacher = random_chains(count), random_chains(1, seed=1)[0]
    targets = torch.arange(TARGETS)
    expected = slow(chains, teacher, targets)
    found = token_scores(iter(chains), teacher, targets)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-4, abs=1e-6), name


def test_an_ensemble_is_never_worse_than_the_mean_of_its_chains():
    chains, targets = random_chains(8), torch.arange(TARGETS)
    found = token_scores(iter(chains), random_chains(1, seed=1)[0], targets)
    sizes = [found[f"nll@{size}"] for size in (1, 2, 4, 8)]
    for fewer, more in itertools.pairwise(sizes):
        assert (more <= fewer + 1e-12).all()
        assert more.sum() < fewer.sum()
    assert (found["kl"] <= found["kl_chain"] + 1e-6).all()


def test_an_ensemble_of_equal_chains_is_its_chain():
    chain, teacher = random_chains(2, seed=2)
    one = token_scores(iter([chain]), teacher, torch.arange(TARGETS))
    four = token_scores(iter([chain] * 4), teacher, torch.arange(TARGETS))
    for name, values in one.items():
        assert four[name].tolist() == pytest.approx(values.tolist(), abs=1e-6), name
    assert four["nll@4"].tolist() == pytest.approx(one["nll@1"].tolist(), abs=1e-12)


def test_brier_of_one_certain_prediction_is_two_p_minus_the_sum_of_squares():
    chain = random_chains(1)[0]
    targets = torch.arange(TARGETS)
    found = token_scores(iter([chain]), chain, targets)["brier1"]
    p = chain.double().exp()
    expected = 2 * p[torch.arange(TARGETS), targets] - p.square().sum(-1)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("count", [2, 4])
def test_brier_is_unbiased_for_every_number_of_chains(count):
    """Two outcomes, a chain says 0.9 or 0.2 with odds 1 to 2: its expectation is the marginal's."""
    says = [(0.9, 1 / 3), (0.2, 2 / 3)]
    mean = sum(p * odds for p, odds in says)
    expectation = 0.0
    for draw in itertools.product(says, repeat=count):
        chains = [torch.tensor([[p, 1 - p]]).log() for p, _ in draw]
        value = token_scores(iter(chains), chains[0], torch.tensor([0]))["brier1"].item()
        expectation += value * math.prod(odds for _, odds in draw)
    assert expectation == pytest.approx(2 * mean - mean**2 - (1 - mean) ** 2, abs=1e-6)


def test_kl_is_zero_for_the_teacher_itself_and_for_nothing_else():
    teacher = random_chains(1, spread=0.5)[0]
    same = token_scores(iter([teacher]), teacher, torch.arange(TARGETS))
    for name in ("kl", "kl_chain", "kl_reverse"):
        assert same[name].tolist() == [0.0] * TARGETS
    assert same["top1"].tolist() == [1.0] * TARGETS
    other = teacher.clone()
    other[:, 0] -= 0.5
    other = torch.log_softmax(other, -1)
    moved = token_scores(iter([other]), teacher, torch.arange(TARGETS))
    assert min(moved["kl"].min(), moved["kl_reverse"].min()) > 1e-4


def test_far_tails_are_not_cut_off():
    """A probability of e^-200, which no float32 holds, costs its 200 nats."""
    teacher, certain = torch.log(torch.tensor([[0.5, 0.5]])), torch.tensor([[-200.0, 0.0]])
    found = token_scores(iter([certain]), teacher, torch.tensor([0]))
    assert found["nll@1"].item() == pytest.approx(200)
    assert found["kl"].item() == pytest.approx(100 - math.log(2), rel=1e-6)
    assert found["kl"].item() == found["kl_chain"].item()


def scored(rows: list[Row], *, batch: int = 2, windows: tuple[int, ...] = (0, 1, 2, 3)):
    interfaces = {row.subject: redrawn(row.subject) for row in rows if row.subject != TEACHER}
    return score(rows, interfaces, TEXT, backbone(torch.float64), windows=windows, batch=batch)


def close(one: Totals, other: Totals) -> None:
    assert one.sums.keys() == other.sums.keys()
    for name, values in one.sums.items():
        assert values == pytest.approx(other.sums[name], rel=1e-5, abs=1e-5), name
    assert (one.tokens == other.tokens).all()


ROWS = [Row(subject=TEACHER), Row(subject="hidden", steps=3, chains=2), Row(subject="ridge")]


def test_scores_do_not_depend_on_the_batch_size():
    for one, other in zip(
        scored(ROWS, batch=1).values(), scored(ROWS, batch=3).values(), strict=True
    ):
        close(one, other)


def test_documents_add_up_to_the_windows_that_they_came_from():
    whole = scored(ROWS)
    parts = [scored(ROWS, windows=(index,)) for index in range(4)]
    for row, totals in whole.items():
        for name, values in totals.sums.items():
            total = sum(part[row].sums[name].sum() for part in parts)
            assert values.sum() == pytest.approx(total, rel=1e-5), (row, name)
        assert totals.tokens.sum() == TEXT.all.scored.sum()
        assert totals.tokens.tolist() == [8, 14 + 3, 19, 23, 23]


def test_every_row_has_the_counts_of_the_same_tokens():
    totals = list(scored(ROWS).values())
    for one in totals:
        assert one.words.tolist() == totals[0].words.tolist()
        assert one.bytes.tolist() == (3 * one.tokens).tolist()  # as the text has it
        assert len(one.tokens) == 5


def test_the_teacher_is_scored_as_its_own_library_scores_it():
    whole = scored(ROWS[:1], windows=(2,))[ROWS[0]]
    tokens = torch.from_numpy(TEXT.batch([2]).tokens)
    model = backbone(torch.float64).model
    loss = model(input_ids=tokens, labels=tokens).loss.item()
    assert whole.sums["nll@1"].sum() / whole.tokens.sum() == pytest.approx(loss, rel=1e-5)
    assert whole.sums["kl"].sum() == 0
    assert whole.sums["top1"].sum() == whole.tokens.sum()


def test_a_document_is_scored_as_if_it_stood_alone():
    """The second document of window 0, alone: nothing is seen across its start."""
    totals = scored(ROWS[:1], windows=(0,))[ROWS[0]]
    alone = torch.from_numpy(TEXT.batch([0]).tokens[:, 9:])
    logits = backbone(torch.float64).logits(alone)
    expected = F.cross_entropy(logits[0, :-1], alone[0, 1:], reduction="sum").item()
    assert totals.sums["nll@1"][1] == pytest.approx(expected, rel=1e-5)


def test_a_control_has_one_chain_and_no_ensemble():
    interface = build("regress")
    totals = score(
        [Row(subject="regress")], {"regress": interface}, TEXT, backbone(), windows=[0], batch=1
    )
    names = totals[Row(subject="regress")].sums
    assert "nll@1" in names
    assert "nll@2" not in names
    assert names["kl"] == pytest.approx(names["kl_chain"])
