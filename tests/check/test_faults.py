"""Every planted fault is caught, in its own line, and its healthy twin passes."""

import json
from pathlib import Path

import pytest

from dihal_bench.check import kit
from dihal_bench.cli.main import main

from .faults import BUILT, DENOISER, FIT, HELP, READ, RECOVER, TARGET, adding, broken

pytestmark = pytest.mark.usefixtures("registries")

LIKELIHOOD, GENERATION = "no leak: likelihood", "no leak: generation"
HEARS, MOVES = "recovery hears its signal", "training moves what it should"
TARGETS, RECOVERY = "locality of the target", "locality of the recovery"
PARAMETERS, PASSES, FLOPS = (f"ledger: {name}" for name in ("parameters", "passes", "FLOPs"))


def checked(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> dict[str, str]:
    """Failing lines of a file, each with its sentence."""
    (folder / "mine.py").write_text(text, encoding="utf-8")
    status = main(["check", "my-interface", f"--include={folder / 'mine.py'}", "--json", *flags])
    found = capsys.readouterr()
    assert "Traceback" not in found.err
    findings = json.loads(found.out)
    failed = {f["check"]: f["sentence"] for f in findings if f["verdict"] == "FAIL"}
    assert status == bool(failed)
    for sentence in failed.values():
        assert "mine.py:" in sentence
        assert "\n" not in sentence
    return failed


def only(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run these checks alone, for time; the healthy twins go through all."""
    kept = tuple(check for check in kit.CHECKS if check[0] in lines or check == kit.FIRST)
    assert len(kept) == len(lines) + 1
    monkeypatch.setattr(kit, "CHECKS", kept)


@pytest.mark.parametrize("regime", ["causal", "sequence"])
def test_the_healthy_twin_passes(regime, tmp_path, capsys):
    assert checked(broken(regime=regime), tmp_path, capsys) == {}


# A decoder that reads tokens, as c2d's does, to be trained in a phase of its own.
DECODER = (
    (HELP, f'    phases = ("recovery", "diffusion")\n    decoder_steps = 1\n{HELP}'),
    adding(
        "    def recovery_losses(self, batch, step):\n"
        "        from dihal_bench.interfaces.losses import token_losses\n\n"
        "        noise = self._recovery_normal(batch, self.sizes[0], step).float()\n"
        "        logits = self.recover(self.target(batch) + 0.1 * noise, batch)\n"
        "        return token_losses(logits, batch, ce=True, kd=False)\n"
    ),
    (
        BUILT,
        f"{BUILT}\n        self.recovery = self._built(lambda: nn.Sequential("
        "nn.Linear(self.sizes[0] + backbone.hidden_size, 32), nn.ReLU(), nn.Linear(32, 32)))\n"
        "        self.out = self._built(lambda: nn.Linear(32, backbone.vocab_size))",
    ),
)
DECODE = "pair = torch.cat((x0, self.condition(batch)), dim=-1)\n        return "
HEARING = (RECOVER, f"{DECODE}{READ} + self.out(self.recovery(pair))")


def ahead(what: str) -> tuple[str, str]:
    """Logits to which what follows is added."""
    return RECOVER, f"{RECOVER} + 1e-6 * {what}"


NEXT = "self.codes[batch.following(batch.tokens)][..., :1]"
UNFROZEN = (
    BUILT,
    f"{BUILT}\n        self.head = backbone.model.lm_head.requires_grad_(True)",
)
ALL = adding("    def parameters_in(self, phase):\n        return list(self.parameters())\n")
FAULTS = {
    "the token itself": ([(TARGET, "return self.codes[batch.tokens]")], [TARGETS, HEARS]),
    "the token after the next": (
        [(TARGET, "return self.codes[batch.following(batch.following(batch.tokens))]")],
        [TARGETS],
    ),
    "recovery peeks at a later token": ([ahead(NEXT)], [RECOVERY, LIKELIHOOD, GENERATION]),
    "recovery peeks, behind a zero": (
        [
            (BUILT, f"{BUILT}\n        self.peek = nn.Parameter(torch.zeros(1, 1))"),
            (RECOVER, f"{RECOVER} + self.peek * {NEXT}"),
        ],
        [RECOVERY, LIKELIHOOD, GENERATION],
    ),
    "recovery peeks at a later signal": (
        [ahead("batch.following(x0)[..., :1]")],
        [RECOVERY, LIKELIHOOD],
    ),
    "recovery reads earlier signals, and says it does not": (
        [ahead("x0.cumsum(1)[..., :1]")],
        [RECOVERY],
    ),
    "recovery mixes rows": ([ahead("x0.mean(0, keepdim=True)[..., :1]")], ["no leak: neighbours"]),
    "recovery mixes documents": (
        [ahead("x0.cumsum(1)[..., :1]")],
        ["no leak: padding", "no leak: document starts", PASSES],
    ),
    "the condition is the next one": (
        [("batch.hidden(self.span.a)", "batch.following(batch.hidden(self.span.a))")],
        [LIKELIHOOD],
    ),
    "documents are not kept apart": (
        [
            adding(
                "    def layout(self, batch, shift=0):\n"
                "        from dihal_bench.diffusion.layout import Layout\n\n"
                "        place = torch.arange(batch.tokens.shape[1])\n"
                "        return Layout(place.expand_as(batch.positions))\n"
            )
        ],
        [LIKELIHOOD, "no leak: padding", "no leak: document starts"],
    ),
    "a frozen tensor trains": (
        [
            ('self.register_buffer("codes", ', "self.codes = nn.Parameter("),
            (".to(device))  # [V, D]", ".to(device), requires_grad=False)"),
            ("        self.codes: Tensor\n", ""),
            ALL,
        ],
        [MOVES],
    ),
    "a buffer moves": (
        [
            adding(
                "    def losses(self, batch, step):\n        self.mean.mul_(0.9)\n"
                "        return super().losses(batch, step)\n"
            )
        ],
        [MOVES],
    ),
    "the teacher trains": (
        [
            UNFROZEN,
            ALL,
            (RECOVER, "return self.head(x0 @ self.codes.T[:, :32])"),
        ],
        [MOVES],
    ),
    "a tensor is never used": (
        [(BUILT, f"{BUILT}\n        self.spare = nn.Parameter(torch.ones(3))")],
        [MOVES],
    ),
    "a tensor is in no phase": (
        [
            (BUILT, f"{BUILT}\n        self.bias = nn.Parameter(torch.zeros(64))"),
            (RECOVER, f"{RECOVER} + self.bias"),
            adding(
                "    def parameters_in(self, phase):\n"
                "        return list(self.trunk.parameters())\n"
            ),
        ],
        [PARAMETERS],
    ),
    "recovery ignores its signal": (
        [(RECOVER, "return 0.0 * means @ self.codes.T")],
        [HEARS],
    ),
    "a decoder ignores its signal": (
        [
            *DECODER,
            (RECOVER, f"{DECODE}self.out(self.recovery(pair * 0 + 1))"),
        ],
        [HEARS],
    ),
    "a decoder hears tokens only": (
        [
            *DECODER,
            (
                RECOVER,
                f"{DECODE}self.out(self.recovery(pair.index_fill(-1, torch.arange("
                "self.sizes[0]), 0.0)))",
            ),
        ],
        [HEARS],
    ),
    "a readout outside registration": (
        [
            (BUILT, f"{BUILT}\n        self.parts = [self._built(lambda: nn.Linear(6, 64))]"),
            (RECOVER, f"{RECOVER} + self.parts[0](x0.float()).to(x0)"),
        ],
        [PARAMETERS],
    ),
    "a readout outside the class": (
        [
            ("@INTERFACES", "EXTRA = nn.Linear(6, 64)\n\n\n@INTERFACES"),
            (RECOVER, f"{RECOVER} + EXTRA(x0.float()).to(x0)"),
        ],
        [PARAMETERS],
    ),
    "fitted numbers are not counted": (
        [adding("    @property\n    def closed_form_parameters(self):\n        return 3\n")],
        [PARAMETERS],
    ),
    "two passes a step": (
        [
            adding(
                "    def estimate(self, z, t, context, previous=None):\n"
                "        guess = super().estimate(z, t, context, previous)\n"
                "        return 2 * guess - super().estimate(0 * z, t, context, previous)\n"
            )
        ],
        [PASSES],
    ),
    "more work in later steps": (
        [
            adding(
                "    def losses(self, batch, step):\n        if step.index:\n"
                "            super().losses(batch, step)\n"
                "        return super().losses(batch, step)\n"
            )
        ],
        [FLOPS],
    ),
    "a decoder's pass is not counted": (
        [*DECODER[2:], HEARING],
        [PASSES],
    ),
    "a decoder's second pass is not counted": (
        [
            *DECODER,
            (
                RECOVER,
                f"{DECODE}{READ} + self.out(self.recovery(pair) - self.recovery(-pair))",
            ),
        ],
        [PASSES],
    ),
    "dice are thrown": (
        [(RECOVER, f"{RECOVER} + torch.randn(64)")],
        ["determinism"],
    ),
    "single precision throughout": (
        [(RECOVER, f"return ({READ}).float()")],
        ["dtype"],
    ),
    "the wrong scale": ([(TARGET, f"{TARGET} * 10")], ["standardisation"]),
    "standardised by the batch": (
        [
            (
                TARGET,
                "x0 = self.codes[batch.following(batch.tokens)]\n        return x0 - x0.mean(0)",
            )
        ],
        ["standardisation"],
    ),
    "a table that is not saved": (
        [
            ('self.register_buffer("mean", ', "self.mean = ("),
            ("self.mean.copy_(statistics.condition_mean)", "self.mean = statistics.condition_mean"),
            ("        self.mean: Tensor\n", ""),
        ],
        ["checkpoint"],
    ),
    "fitting undoes training": (
        [
            (BUILT, f"{BUILT}\n        self.bias = nn.Parameter(torch.zeros(64))"),
            (FIT, f"{FIT}\n        self.bias.data.zero_()"),
            (RECOVER, f"{RECOVER} + self.bias"),
        ],
        ["checkpoint"],
    ),
    "a counter that is not saved": (
        [
            adding(
                "    calls = 0\n\n    def losses(self, batch, step):\n        self.calls += 1\n"
                "        losses = super().losses(batch, step)\n"
                "        return {n: v * (1 + self.calls) for n, v in losses.items()}\n"
            )
        ],
        ["checkpoint"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault, tmp_path, capsys, monkeypatch):
    changes, lines = FAULTS[fault]
    only(lines, monkeypatch)
    assert set(checked(broken(*changes), tmp_path, capsys)) == set(lines)


def test_a_decoder_that_hears_its_signal_passes(tmp_path, capsys):
    assert checked(broken(*DECODER, HEARING), tmp_path, capsys) == {}


# --- denoisers ------------------------------------------------------------------------------------

CAUSAL = "encode(self, condition, layout):\n        return super().encode(condition, layout)"
OPEN = (
    "encode(self, condition, layout):\n        both = super().encode(condition, layout)\n"
    "        return type(both)(both.stream, both.keys_values, "
    "(torch.ones_like(both.masks[0]), both.masks[1]), both.angles)"
)
GATED = (
    "forward(self, z, t, context):\n        ahead = context.stream.roll(-1, dims=1)\n"
    "        return super().forward(z, t, context) + self.gate * ahead.mean(-1, keepdim=True)"
)
OWN = (
    "encode(self, condition, layout):\n        both = super().encode(condition, layout)\n"
    "        stream, _ = self.encoder(condition, layout)\n"
    "        return type(both)(stream, both.keys_values, both.masks, both.angles)"
)


@pytest.mark.parametrize("method", [OPEN, GATED], ids=["mask", "behind a zero"])
def test_a_denoiser_that_is_not_causal_is_caught(method, tmp_path, capsys, monkeypatch):
    """Both put out zeros until they are trained, and pass any test that does not redraw them."""
    only([LIKELIHOOD, GENERATION], monkeypatch)
    text = broken() + DENOISER.format(method=method)
    failed = checked(text, tmp_path, capsys, "--denoiser=theirs")
    assert set(failed) == {LIKELIHOOD, GENERATION}


def test_a_denoiser_that_reads_a_block_before_it_is_drawn_is_caught(tmp_path, capsys, monkeypatch):
    only([GENERATION], monkeypatch)
    text = broken(regime="sequence") + DENOISER.format(method=OWN)
    assert set(checked(text, tmp_path, capsys, "--denoiser=theirs")) == {GENERATION}


def test_a_denoiser_that_is_causal_passes_but_for_its_idle_gate(tmp_path, capsys):
    text = broken() + DENOISER.format(method=CAUSAL)
    failed = checked(text, tmp_path, capsys, "--denoiser=theirs")
    assert set(failed) == {MOVES}
    assert "trunk.gate" in failed[MOVES]
