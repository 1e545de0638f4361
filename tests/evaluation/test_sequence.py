"""The sequence regime: first tokens are a likelihood, the gate looks through blocks."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dihal_bench.config.schema import ScoreConfig
from dihal_bench.data.tokens import evaluation_windows
from dihal_bench.diffusion.denoisers import TransformerDenoiser
from dihal_bench.diffusion.layout import Layout
from dihal_bench.evaluation.aggregate import Measured
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.evaluate import evaluate
from dihal_bench.evaluation.gate import leak_gates
from dihal_bench.evaluation.likelihood import TEACHER, Row, score
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.hidden import Hidden

from ..tiny import CONFIG, backbone, redrawn
from .texts import Text

TEXT = Text([[(0, 3, 9), (1, 0, 15)], [(2, 0, 24)], [(3, 5, 24)], [(4, 0, 10), (5, 0, 14)]])
NAMES = ("hidden", "regress", "embedding", "lm")
MEASURED = Measured(task="text", regime="sequence", dtype="float64", resamples=100, seed=0)


def scored(name: str, block: int) -> dict[Row, np.ndarray]:
    interface = redrawn(name, block=block)
    rows = [Row(subject=TEACHER), Row(subject=name, steps=3, chains=2)]
    teacher = backbone(torch.float64)
    totals = score(rows, {name: interface}, TEXT, teacher, windows=range(4), batch=2, block=block)
    return {row: np.stack([t.tokens, t.sums["nll@1"]]) for row, t in totals.items()}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_one_are_the_causal_regime(name: str) -> None:
    causal, sequence = scored(name, 0), scored(name, 1)
    for row, sums in causal.items():
        np.testing.assert_allclose(sequence[row], sums, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", [2, 5])
def test_only_first_tokens_are_scored(block: int) -> None:
    found = scored("hidden", block)
    counts = {row.subject: sums[0].sum() for row, sums in found.items()}
    everything = scored("hidden", 0)[Row(subject=TEACHER)][0].sum()
    assert counts["hidden"] == counts[TEACHER]
    assert everything / block - 4 <= counts[TEACHER] <= everything / block + 8


@pytest.mark.parametrize("block", [1, 4, 24])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_pass_the_gate(name: str, block: int) -> None:
    result = leak_gates({name: redrawn(name, block=block)}, TEXT)[name]
    assert result.verdict == "pass", result
    assert result.effect > 1e-10


class Prophet(Hidden):
    """A perfect bridge where it is given all tokens up to a place, and a useless one elsewhere."""

    def chains(
        self, batch: Batch, *, steps: int, count: int, layout: Layout | None = None
    ) -> Iterator[Tensor]:
        del steps
        x0 = self.target(batch)
        known = (layout or self.layout(batch)).first[..., None]
        for _ in range(count):
            yield torch.where(known, x0, torch.flip(x0, dims=[1]))


@pytest.mark.parametrize("block", [2, 5])
def test_states_of_known_tokens_are_drawn_given_those(block: int) -> None:
    """A perfect bridge is then as good as the teacher, whatever it drew before they were known."""
    template = redrawn("hidden", block=block)
    perfect = Prophet(template.backbone, template.span, template.config).eval()
    perfect.load_state_dict(template.state_dict())
    rows = [Row(subject=TEACHER), Row(subject="it", steps=3, chains=2)]
    teacher = backbone(torch.float64)
    found = score(
        rows, {"it": perfect.double()}, TEXT, teacher, windows=range(4), batch=2, block=block
    )
    np.testing.assert_allclose(found[rows[1]].sums["kl"], 0, atol=1e-9)
    np.testing.assert_allclose(found[rows[1]].sums["nll@1"], found[rows[0]].sums["nll@1"])


class LooksInside(TransformerDenoiser):
    """Reads clean context inside its block: tokens that are only being generated."""

    def encode(self, condition: Tensor, layout: Layout):
        last = layout.starts + 2
        inside = torch.minimum(last, torch.full_like(last, layout.positions.shape[1] - 1))
        wrong = replace(layout, starts=inside)
        context = super().encode(condition, layout)
        return replace(context, masks=(wrong.context_mask(), layout.block_mask()))


def test_a_denoiser_that_reads_its_own_block_is_caught() -> None:
    interface = redrawn("embedding", block=4)
    trunk = LooksInside(interface.sizes[0], *interface.sizes, CONFIG.denoiser).double()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    interface.trunk = trunk
    assert leak_gates({"it": interface}, TEXT)["it"].verdict == "leak"


def test_scores_of_first_tokens_have_names_of_their_own() -> None:
    interfaces = {name: redrawn(name, block=4) for name in ("embedding", "lm")}
    config = ScoreConfig(tokens=96, steps=(1, 3), chains=2, batch=2, resamples=100, bound_draws=2)
    scorer = ScoreCache(
        data=TEXT,
        backbone=backbone(torch.float64),
        windows=evaluation_windows(TEXT, config.tokens),
        batch=config.batch,
        block=4,
    )
    scores, _ = evaluate(interfaces, scorer, config, MEASURED)
    metrics = {s.metric for s in scores}
    assert {"first_token_nll", "first_token_brier1", "block_bound"} <= metrics
    assert all(m.startswith(("first_token_", "block_")) for m in metrics)
    (bound,) = (s for s in scores if s.metric == "block_bound")
    nll = next(s for s in scores if s.metric == "first_token_nll")
    assert (bound.subject, bound.kind) == ("embedding", "bound")
    assert bound.n > 2 * nll.n  # it is of all tokens of the blocks
