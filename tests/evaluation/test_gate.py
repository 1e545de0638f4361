"""The leak gate: passes what is causal, catches what looks ahead or aside, and is not blind."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dihal_bench.baselines.embedding import EmbeddingOptions
from dihal_bench.core.errors import UserError
from dihal_bench.diffusion.denoisers import TransformerDenoiser
from dihal_bench.diffusion.layout import Layout
from dihal_bench.evaluation import evaluate, gate
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.evaluate import check_gates
from dihal_bench.evaluation.gate import GateResult, leak_gates
from dihal_bench.interfaces.base import Interface
from dihal_bench.results.fields import LOOSEST

from ..tiny import CONFIG, backbone, build, redrawn
from .texts import Text

TEXT = Text([[(0, 3, 30)], [(1, 9, 14), (2, 0, 16)]])
NAMES = ("hidden", "regress", "regress-loop", "token-mean", "ridge", "mean", "identity")


def leak_gate(interface: Interface, text: Text, **options: int) -> GateResult:
    return leak_gates({"it": interface}, text, **options)["it"]


def with_denoiser(denoiser: type[nn.Module], name: str = "hidden") -> Interface:
    """An interface whose trunk, parameters drawn anew, is of another class."""
    interface = redrawn(name)
    trunk = denoiser(interface.sizes[0], *interface.sizes, CONFIG.denoiser).double()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    interface.trunk = trunk
    return interface


def in_single(interface: Interface) -> Interface:
    single = copy.deepcopy(interface, {id(interface.backbone): backbone(torch.float32)})
    return single.float()


@pytest.mark.parametrize("residual", ["none", "token-mean"])
@pytest.mark.parametrize("name", NAMES)
def test_causal_interfaces_pass(name, residual):
    result = leak_gate(redrawn(name, residual=residual), TEXT)
    assert result.verdict == "pass", result
    assert (result.tokens, result.dtype) == (30, "float64")
    assert max(result.future, result.others) < 1e-10
    assert (result.effect > 1e-10) == (name != "mean")


class LooksAhead(TransformerDenoiser):
    """Adds a breath of the next position's context to its own."""

    def forward(self, z: Tensor, t: Tensor, context) -> Tensor:
        ahead = torch.roll(context.stream, -1, dims=1)
        return super().forward(z, t, context) + 1e-6 * ahead.mean(-1, keepdim=True)


def test_a_denoiser_that_looks_ahead_is_caught():
    result = leak_gate(with_denoiser(LooksAhead), TEXT)
    assert result.verdict == "leak"
    assert result.future > 1e-10


class LooksAside(TransformerDenoiser):
    """Attends to earlier documents of the window: causal, but no longer the same text."""

    def encode(self, condition: Tensor, layout: Layout):
        place = torch.arange(layout.positions.shape[1])
        return super().encode(condition, Layout(place[None].expand_as(layout.positions)))


def test_a_denoiser_that_looks_into_another_document_is_caught():
    result = leak_gate(with_denoiser(LooksAside), TEXT)
    assert result.verdict == "leak"
    assert result.others > 1e-10
    assert result.future < 1e-10


class LooksFarAhead(TransformerDenoiser):
    """Sees what is a hundred positions ahead."""

    def forward(self, z: Tensor, t: Tensor, context) -> Tensor:
        ahead = torch.zeros_like(context.stream)
        ahead[:, :-100] = context.stream[:, 100:]  # nothing in a window of up to a hundred
        return super().forward(z, t, context) + 1e-6 * ahead.mean(-1, keepdim=True)


def test_a_leak_from_farther_away_than_the_part_is_caught():
    result = leak_gate(with_denoiser(LooksFarAhead), Text([[(0, 3, 200)]]), length=12)
    assert (result.tokens, result.reach) == (12, 200)
    assert result.verdict == "leak"
    assert leak_gate(redrawn("hidden"), Text([[(0, 3, 200)]]), length=12).verdict == "pass"


class LooksUp(TransformerDenoiser):
    """Mixes the rows of a batch, as a batch norm in training mode does."""

    def forward(self, z: Tensor, t: Tensor, context) -> Tensor:
        out = super().forward(z, t, context)
        return out + 1e-6 * out.mean(0, keepdim=True)


def test_a_denoiser_that_mixes_the_rows_of_a_batch_is_caught():
    result = leak_gate(with_denoiser(LooksUp), TEXT)
    assert result.verdict == "leak"
    assert result.others > 1e-10


@pytest.mark.parametrize("options", [{"rounding": "nearest"}, {"clamp": True}])
def test_what_is_not_rounded_yet_is_watched(options):
    """Few changed tokens change the nearest embedding, so logits alone would prove nothing."""
    options = EmbeddingOptions(**options)
    assert leak_gate(redrawn("embedding", options=options), TEXT).verdict == "pass"
    interface = with_denoiser(LooksAhead, "embedding")
    interface.options = options
    assert leak_gate(interface, TEXT).verdict == "leak"


def test_an_output_that_never_moves_proves_nothing():
    """Freshly built, the trunk puts out zeros, whatever it sees."""
    result = leak_gate(build("hidden", residual="none"), TEXT)
    assert result.verdict == "inconclusive"
    assert result.effect == 0


class Broken(TransformerDenoiser):
    def forward(self, z: Tensor, t: Tensor, context) -> Tensor:
        return super().forward(z, t, context) * math.nan


def test_logits_that_are_no_numbers_prove_nothing():
    assert leak_gate(with_denoiser(Broken), TEXT).verdict == "inconclusive"


def test_text_of_a_single_token_can_be_changed_too():
    text = Text([[(0, 1, 20)]])
    text.all.tokens[:] = 5
    assert leak_gate(redrawn("regress"), text).verdict == "pass"


def test_a_part_of_a_long_window_is_taken_around_a_boundary():
    text = Text([[(0, 3, 200)], [(1, 9, 150), (2, 0, 50)]])
    result = leak_gate(redrawn("identity"), text, length=12)
    assert result.tokens == 12
    assert leak_gate(with_denoiser(LooksAside), text, length=12).others > 1e-10


def test_the_interface_is_not_changed():
    interface = build("regress")
    before = {name: value.clone() for name, value in interface.state_dict().items()}
    leak_gate(interface, TEXT)
    assert interface.dtype == torch.float32
    assert interface.backbone.model.dtype == torch.float32
    assert all(torch.equal(value, before[name]) for name, value in interface.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_large_model_is_tested_in_its_own_arithmetic(name):
    result = leak_gate(in_single(redrawn(name)), TEXT, largest=0)
    assert (result.verdict, result.dtype) == ("pass", "float32"), result
    assert max(result.future, result.others) <= result.tolerance < 1e-5


@pytest.mark.parametrize("leak", [LooksAhead, LooksAside, LooksUp])
def test_a_leak_is_caught_in_float32_too(leak):
    interface = in_single(with_denoiser(leak))
    assert leak_gate(interface, TEXT, largest=0).verdict == "leak"


def scorer(folder: Path | None = None) -> ScoreCache:
    return ScoreCache(
        data=TEXT, backbone=backbone(torch.float64), windows=range(2), batch=2, folder=folder
    )


def test_the_run_is_told_which_row_leaks():
    rows = {"identity": redrawn("identity"), "mine": with_denoiser(LooksAhead)}
    with pytest.raises(UserError, match=r"^mine did not pass the leak gate \(leak: "):
        check_gates(rows, TEXT, scorer())
    own = {"identity": rows["identity"]}
    assert check_gates(own, TEXT, scorer())["identity"].verdict == "pass"


def test_weights_that_passed_are_not_tested_again_and_others_are(tmp_path, monkeypatch):
    tested = []
    real = evaluate.leak_gates

    def watched(interfaces, data):
        tested.extend(interfaces)
        return real(interfaces, data)

    monkeypatch.setattr(evaluate, "leak_gates", watched)
    rows = {"one": redrawn("hidden"), "two": redrawn("regress")}
    first = check_gates(rows, TEXT, scorer(tmp_path))
    assert check_gates(rows, TEXT, scorer(tmp_path)) == first
    assert tested == ["one", "two"]
    rows["two"] = with_denoiser(LooksAhead, "regress")
    for _ in range(2):  # what leaks is never taken for tested
        with pytest.raises(UserError, match="two did not pass"):
            check_gates(rows, TEXT, scorer(tmp_path))
    assert tested == ["one", "two", "two", "two"]


def test_controls_are_tested_through_their_own_chains():
    assert leak_gate(with_denoiser(LooksAhead, "regress"), TEXT).verdict == "leak"


def test_a_test_whose_rows_move_by_themselves_says_nothing() -> None:
    moves = gate._Moves(future=0.0, others=0.0, effect=9.0, unchanged=0.2, finite=True)
    for tolerance, verdict in ((LOOSEST["float32"], "pass"), (0.2, "inconclusive")):
        loosest = LOOSEST["float32"]
        assert gate._verdict([moves], 0.0, 9.0, tolerance, loosest, True) == verdict
