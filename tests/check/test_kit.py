"""All that is built in passes, in seconds; formulas by hand are what is counted."""

import itertools
import time

import pytest
import torch
from torch import nn

from dihal_bench.check import kit
from dihal_bench.check.accounts import _close, _trunk
from dihal_bench.check.formulas import by_hand
from dihal_bench.check.kit import render
from dihal_bench.check.strays import hidden_tensors, leaves
from dihal_bench.check.subject import PASSED, Subject
from dihal_bench.cli.main import main
from dihal_bench.core.registry import INTERFACES

NAMES = sorted(INTERFACES.names())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_built_in_passes_in_time(name):
    start = time.process_time()
    findings = kit.examine(kit.subjects([name], "transformer"))
    assert time.process_time() - start < 30
    assert [f for f in findings if f.verdict == "FAIL"] == []
    assert len(findings) == len(kit.CHECKS) * len(INTERFACES.get(name).regimes)


@pytest.mark.parametrize("name", ["hidden", "embedding"])
def test_a_denoiser_of_one_regime_is_checked_in_that(name):
    findings = kit.examine(kit.subjects([name], "mlp"))
    assert {f.regime for f in findings} == {"causal"}
    assert [f for f in findings if f.verdict == "FAIL"] == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("embedding", ["embedding.rounding=nearest"]),
        ("embedding", ["embedding.learned=true", "embedding.clamp=true"]),
        ("latent", ["latent.joint=true", "diffusion.self_conditioning=true"]),
    ],
)
def test_settings_are_checked_too(name, settings, capsys, monkeypatch):
    seen = []
    examine = kit.examine
    monkeypatch.setattr(kit, "examine", lambda chosen: seen.extend(chosen) or examine(chosen))
    flags = [word for setting in settings for word in ("--set", setting)]
    assert main(["check", name, *flags]) == 0, capsys.readouterr().out
    for subject, setting in itertools.product(seen, settings):
        key, _, value = setting.rpartition(".")[2].partition("=")
        own = subject.diffusion if setting.startswith("diffusion") else subject.new().options
        assert str(getattr(own, key)).lower() == value


def test_silence_needs_no_hearing():
    (finding,) = [
        f
        for f in kit.examine(kit.subjects(["mean"], "transformer"))
        if f.check == "recovery hears its signal"
    ]
    assert finding.verdict == "n/a"
    assert "silent" in finding.sentence


def test_the_table_has_a_line_per_check_and_a_column_per_regime(capsys, monkeypatch):
    monkeypatch.setattr(kit, "CHECKS", kit.CHECKS[:4])  # each is its own line
    assert main(["check", "lm"]) == 0
    table = capsys.readouterr().out
    heading, _, *lines = table.splitlines()
    assert heading.split() == ["lm", "causal", "sequence"]
    assert [line.rsplit(maxsplit=2)[0].strip() for line in lines[: len(kit.CHECKS)]] == [
        name for name, _ in kit.CHECKS
    ]
    assert "all checks pass" in table


def test_a_failure_has_its_sentence_under_the_table():
    one = {"interface": "mine", "regime": "causal"}
    findings = [
        kit.CheckFinding(**one, check="dtype", verdict="pass", sentence=""),
        kit.CheckFinding(
            **one, check="checkpoint", verdict="FAIL", sentence="mine.py:3: it is not"
        ),
    ]
    assert render(findings).splitlines()[-2:] == [
        "mine: 1 of 2 checks fail",
        "causal, checkpoint: mine.py:3: it is not",
    ]


# --- formulas by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("denoiser", "regime"),
    [("transformer", "causal"), ("transformer", "sequence"), ("mlp", "causal")],
)
def test_flops_by_hand_are_those_that_are_counted(denoiser, regime):
    subject = Subject("hidden", INTERFACES.get("hidden"), regime, denoiser)
    assert _trunk(subject) == PASSED
    assert by_hand(subject.fitted().trunk, 4, 32, blocks=regime == "sequence") is not None


def test_work_that_the_formula_does_not_know_is_seen(monkeypatch):
    """A second feed-forward hidden in a layer: the trunk's class is the known one."""
    subject = Subject("hidden", INTERFACES.get("hidden"), "causal")
    interface = subject.fitted()
    layer = interface.trunk.layers[0]
    layer.mlp = nn.Sequential(layer.mlp, nn.Linear(16, 16))
    monkeypatch.setattr(subject, "fitted", lambda: interface)
    assert "an evaluation of the trunk costs" in _trunk(subject).sentence


def test_an_unknown_trunk_has_no_formula():
    class Other(nn.Module):
        pass

    assert by_hand(Other(), 1, 1, blocks=False) is None


def test_one_per_cent_is_close():
    assert _close(100.0, 100.9)
    assert not _close(100.0, 101.2)


# --- strays ---------------------------------------------------------------------------------------


def test_trainable_tensors_are_found_wherever_they_hang():
    interface = Subject("lm", INTERFACES.get("lm"), "causal").fitted()
    assert hidden_tensors(interface) == {}
    loose = nn.Linear(2, 2)
    interface.in_list = [{"deep": loose}]
    interface.in_closure = lambda x: loose(x)
    interface.plain = torch.zeros(3, requires_grad=True)
    interface.frozen = [nn.Linear(2, 2).requires_grad_(False)]
    found = hidden_tensors(interface)
    assert {id(t) for t in found.values()} == {
        id(loose.weight),
        id(loose.bias),
        id(interface.plain),
    }
    assert any(path.startswith("LanguageModel.") for path in found)


def test_leaves_are_what_gradients_end_in():
    a, b, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    values = [(a * b.exp()).sum(), (a + 1).mean(), c.detach() * 2]
    assert {id(leaf) for leaf in leaves(values)} == {id(a), id(b)}
