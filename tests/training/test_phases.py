"""Phases: each interface's own, trained once, shared where all that they depend on agrees."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dihal_bench.config.identity import interface_identity
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.tokens import PackedTokens
from dihal_bench.interfaces.settings import Span
from dihal_bench.training import phases
from dihal_bench.training.config import BudgetConfig, TrainConfig
from dihal_bench.training.phases import PhaseRunner, Trained, kept_weights, train_together
from dihal_bench.training.trainer import SHARES, train

from ..tiny import BLOCKS, CONFIG, backbone, build, statistics
from .test_trainer import BATCH, WINDOW, data  # noqa: F401  (a fixture)

STEP = BATCH * WINDOW
BUDGET = BudgetConfig(diffusion_tokens=4 * STEP, recovery_tokens=2 * STEP)


def trainer(data: PackedTokens, folder: Path, **settings: object) -> PhaseRunner:  # noqa: F811
    parts = {
        "data": data,
        "held_out": data,
        "backbone": backbone(),
        "budget": BUDGET,
        "config": TrainConfig(batch=BATCH, autocast=False),
        "seed": 0,
        "folder": folder,
        "shared": folder.parent / "shared",
        "fit": lambda interface: interface.fit(statistics()),
        "identity": interface_identity,
        "settings": {},
        "say": lambda text: None,
    }
    return PhaseRunner(**parts | settings)  # type: ignore[arg-type]


def tokens(done: Trained, name: str) -> dict[str, int]:
    return {phase: spent.tokens for phase, spent in done.spent[name].items()}


def test_every_interface_has_its_phases(data, tmp_path) -> None:  # noqa: F811
    interfaces = {name: build(name) for name in ("c2d", "lm-decoder", "hidden", "ridge")}
    done = trainer(data, tmp_path / "run").run(interfaces)
    assert tokens(done, "c2d") == {"recovery": 2 * STEP, "diffusion": 4 * STEP}
    assert tokens(done, "lm-decoder") == {"recovery": 2 * STEP}
    assert tokens(done, "hidden") == {"diffusion": 4 * STEP}
    assert tokens(done, "ridge") == {}
    recovery, diffusion = done.spent["c2d"].values()
    assert recovery.trainable_parameters == sum(
        p.numel() for p in interfaces["c2d"].recovery.parameters()
    )
    assert diffusion.trainable_parameters == sum(
        p.numel() for p in interfaces["c2d"].trunk.parameters()
    )


def test_of_one_total_everything_is_spent() -> None:
    budget = replace(BUDGET, matched="total")
    assert budget.plan(("diffusion",)) == {"diffusion": 6 * STEP}
    assert budget.plan(("recovery",)) == {"recovery": 6 * STEP}
    assert budget.plan(("recovery", "diffusion")) == BUDGET.caps
    assert budget.plan(()) == {}


def test_a_finished_phase_is_not_trained_again(data, tmp_path, monkeypatch) -> None:  # noqa: F811
    first = trainer(data, tmp_path / "one").run({"c2d": build("c2d")})
    monkeypatch.setattr(phases, "train", None)
    again = trainer(data, tmp_path / "two").run({"c2d": build("c2d")})
    assert again.spent == first.spent
    assert again.curves == first.curves
    one, two = (done.interfaces["c2d"].state_dict() for done in (first, again))
    assert all(torch.equal(two[key], value) for key, value in one.items())


def test_a_recovery_serves_several_trunks(data, tmp_path, monkeypatch) -> None:  # noqa: F811
    trained = []
    train = phases.train
    monkeypatch.setattr(
        phases,
        "train",
        lambda trainees, *a, **k: (trained.append(trainees), train(trainees, *a, **k)),
    )
    deep = replace(build("c2d").config.denoiser, layers=2)
    for number, settings in enumerate(({}, {"denoiser": deep}, {"block": 4})):
        run = trainer(data, tmp_path / str(number))
        run.run({"c2d": build("c2d", **settings)})
    assert [[t.phase for t in some] for some in trained] == [
        ["recovery"],
        *[["diffusion"]] * 3,
    ]


def test_another_seed_or_option_is_another_phase(data, tmp_path) -> None:  # noqa: F811
    interface = build("c2d")
    own = trainer(data, tmp_path / "run")
    files = {
        own.file("c2d", interface, "recovery"),
        trainer(data, tmp_path / "run", seed=1).file("c2d", interface, "recovery"),
        own.file("c2d", build("c2d", options=replace(interface.options, width=8)), "recovery"),
        own.file("c2d", interface, "diffusion"),
        own.file("c2d", build("c2d", block=4), "diffusion"),
    }
    assert len(files) == 5


def test_weights_on_the_way_are_averages(data, tmp_path) -> None:  # noqa: F811
    own, interface = trainer(data, tmp_path / "run"), build("regress")
    own.run({"regress": interface})
    file = own.file("regress", interface, "diffusion")
    assert all(kept_weights(file, share).exists() for share in SHARES)


def test_a_poor_recovery_stops_before_diffusion(data, tmp_path, monkeypatch) -> None:  # noqa: F811
    interface = build("c2d")
    monkeypatch.setattr(type(interface), "least_accuracy", 0.999)
    with pytest.raises(
        UserError, match=r"c2d recovers \d+\.\d% of the tokens .* less than the 100%"
    ):
        trainer(data, tmp_path / "run").run({"c2d": interface})
    assert not list((tmp_path / "shared").glob("*diffusion*"))


def spanning(name: str, b: int):
    place = Span(a=1, b=b, blocks=BLOCKS)
    interface = INTERFACES.get(name)(backbone(), place, replace(CONFIG, seed=3))
    interface.fit(statistics())  # of another layer: any scale will do
    return interface


@pytest.mark.parametrize("name", ["hidden", "c2d"])
def test_runs_that_learn_together_come_out_as_alone(name: str, data, tmp_path, monkeypatch) -> None:  # noqa: F811
    """Several layers from one teacher pass per batch, phase by phase: each to the bit."""
    alone, passes = {}, []
    for b in (2, 3):
        own = trainer(data, tmp_path / f"alone-{b}", shared=tmp_path / f"shared-{b}")
        alone[b] = own.run({name: spanning(name, b)})
    monkeypatch.setattr(phases, "train", lambda *a, **k: passes.append(len(a[0])) or train(*a, **k))
    parts = [(trainer(data, tmp_path / f"run-{b}"), {name: spanning(name, b)}) for b in (2, 3)]
    together = train_together(parts)
    count = len(INTERFACES.get(name).phases)
    assert passes == [2] * count
    for b, done in zip((2, 3), together, strict=True):
        one, other = (d.interfaces[name].state_dict() for d in (alone[b], done))
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert done.curves == alone[b].curves
        flops = [d.spent[name]["diffusion"].flops for d in (alone[b], done)]
        assert flops[0] == flops[1]  # what it would have cost alone, the teacher included


def test_runs_of_one_name_and_span_are_told_apart(data, tmp_path) -> None:  # noqa: F811
    alone = {}
    for seed in (3, 4):
        own = trainer(data, tmp_path / f"alone-{seed}", shared=tmp_path / f"shared-{seed}")
        alone[seed] = own.run({"hidden": build("hidden", seed=seed)}).interfaces["hidden"]
    parts = [
        (trainer(data, tmp_path / f"run-{s}"), {"hidden": build("hidden", seed=s)}) for s in (3, 4)
    ]
    for one, done in zip(alone.values(), train_together(parts), strict=True):
        other = done.interfaces["hidden"].state_dict()
        assert all(torch.equal(value, other[key]) for key, value in one.state_dict().items())


def test_what_one_run_has_trained_the_others_need_not_wait_for(data, tmp_path, monkeypatch) -> None:  # noqa: F811
    trainer(data, tmp_path / "run-2").run({"hidden": spanning("hidden", 2)})
    passes = []
    monkeypatch.setattr(phases, "train", lambda *a, **k: passes.append(len(a[0])) or train(*a, **k))
    train_together(
        [(trainer(data, tmp_path / f"run-{b}"), {"hidden": spanning("hidden", b)}) for b in (2, 3)]
    )
    assert passes == [1]
