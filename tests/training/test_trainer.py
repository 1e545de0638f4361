"""Training: the same bits whatever interrupts it or runs beside it, and an honest ledger."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dihal_bench.core.errors import UserError
from dihal_bench.data.documents import Corpus
from dihal_bench.data.tokens import PackedTokens, pack
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import LossWeights, Step
from dihal_bench.training import trainer as module
from dihal_bench.training.checkpoint import (
    load_interface,
    load_training,
    save_interface,
    save_training,
)
from dihal_bench.training.config import BudgetConfig, TrainConfig
from dihal_bench.training.ledger import TrainingCost, count_flops
from dihal_bench.training.trainee import TrainState
from dihal_bench.training.trainer import train

from ..tiny import PROBE, VOCABULARY, backbone, batch_of, build, statistics

WINDOW, BATCH, STEPS = 16, 2, 6
CONFIG = TrainConfig(batch=BATCH, autocast=False)
SETTINGS = [
    replace(CONFIG, optimizer=optimizer, autocast=autocast)
    for optimizer in ("muon", "adamw")
    for autocast in (False, True)
]
NAMES = ("hidden", "regress", "regress-loop")


def by_setting(config: TrainConfig) -> str:
    return f"{config.optimizer}-{'bf16' if config.autocast else 'f32'}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PackedTokens:
    """Random words, packed for real."""
    vocabulary = {"</s>": 0, "<s>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="</s>"
    )
    generator = np.random.default_rng(0)
    documents = [
        " ".join(f"w{i}" for i in generator.integers(2, VOCABULARY, generator.integers(3, 40)))
        for _ in range(40)
    ]
    splits = {"train": lambda: iter(documents)}
    corpus = Corpus(name="random", fingerprint="r", splits=splits, notes={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return pack(corpus, "train", tokenizer, window=WINDOW)


def trainees_of(names: Sequence[str], config: TrainConfig = CONFIG) -> list[TrainState]:
    return [TrainState(name, build(name), config) for name in names]


def run(
    trainees: list[TrainState],
    data: PackedTokens,
    checkpoint: Path,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> list[TrainState]:
    tokens = steps * BATCH * WINDOW
    train(trainees, data, backbone(), tokens=tokens, seed=seed, checkpoint=checkpoint)
    return trainees


def take_step(trainee: TrainState, step: int, steps: int) -> None:
    trainee.learn(batch_of(PROBE), Step(index=step, of=steps))
    trainee.update(step, steps)


def assert_same(one: TrainState, other: TrainState) -> None:
    """Bit for bit: weights, averages, optimisers, curve."""
    assert one.name == other.name
    assert all(map(torch.equal, one.parameters, other.parameters))
    assert all(map(torch.equal, one.average, other.average))
    for a, b in zip(one.optimizers, other.optimizers, strict=True):
        first, second = a.state_dict()["state"], b.state_dict()["state"]
        assert first.keys() == second.keys()
        assert len(first) > 0
        for index, kept in first.items():
            assert kept.keys() == second[index].keys()
            assert all(torch.equal(kept[key], second[index][key]) for key in kept)
    assert one.curve == other.curve
    assert one.spent.tokens == other.spent.tokens
    assert one.spent.flops_per_token == other.spent.flops_per_token


class Stop(Exception):
    """Pulls the plug."""


def stop_at(monkeypatch: pytest.MonkeyPatch, last: int, victim: str) -> None:
    """Checkpoint after every step, and raise when ``victim`` is to take step ``last``."""
    whole = TrainState.update

    def update(self: TrainState, step: int, steps: int) -> torch.Tensor:
        if step == last and self.name == victim:
            raise Stop
        return whole(self, step, steps)

    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(TrainState, "update", update)


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("config", SETTINGS, ids=by_setting)
def test_interrupted_and_resumed_is_never_interrupted(
    config: TrainConfig, data: PackedTokens, tmp_path: Path
) -> None:
    names = ("hidden", "regress")
    whole = run(trainees_of(names, config), data, tmp_path / "whole")
    for last, victim in ((3, "regress"), (5, "hidden")):  # once after the other has stepped
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, last, victim)
            with pytest.raises(Stop):
                run(trainees_of(names, config), data, tmp_path / "parts")
    torch.manual_seed(1)  # nothing depends on the global generator
    resumed = run(trainees_of(names, config), data, tmp_path / "parts")
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one, other)
        assert other.spent.steps == STEPS


@pytest.mark.parametrize("config", SETTINGS[:2], ids=by_setting)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    config: TrainConfig, data: PackedTokens, tmp_path: Path
) -> None:
    (first,) = run(trainees_of(["hidden"], config), data, tmp_path / "0", steps=3)
    torch.manual_seed(1)
    (again,) = run(trainees_of(["hidden"], config), data, tmp_path / "1", steps=3)
    assert_same(first, again)
    (other,) = run(trainees_of(["hidden"], config), data, tmp_path / "2", steps=3, seed=1)
    assert not any(map(torch.equal, first.average, other.average))


def test_what_training_costs_does_not_depend_on_company(data: PackedTokens, tmp_path: Path) -> None:
    """Company asks for more of the teacher: for states, and for probabilities."""
    costs = []
    for company in ([], ["hidden"]):
        quiet = build("embedding", losses=LossWeights(ce=0.0, kd=0.0))
        trainee = TrainState("it", quiet, CONFIG)
        run([trainee, *trainees_of(company)], data, tmp_path / str(company), steps=2)
        costs.append(trainee.spent.flops)
    assert costs[0] == costs[1]


@pytest.mark.parametrize("config", SETTINGS[::3], ids=by_setting)
def test_trained_together_is_trained_alone(
    config: TrainConfig, data: PackedTokens, tmp_path: Path
) -> None:
    together = run(trainees_of(NAMES, config), data, tmp_path / "all", steps=4)
    for trainee in together:
        (alone,) = run(trainees_of([trainee.name], config), data, tmp_path / trainee.name, steps=4)
        assert_same(trainee, alone)


def test_a_finished_training_is_only_loaded(data: PackedTokens, tmp_path: Path) -> None:
    (first,) = run(trainees_of(["hidden"]), data, tmp_path / "it", steps=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "learn", None)
        (again,) = run(trainees_of(["hidden"]), data, tmp_path / "it", steps=3)
    assert_same(first, again)


def test_training_learns_and_keeps_the_averaged_weights(data: PackedTokens, tmp_path: Path) -> None:
    (trainee,) = run(trainees_of(["regress"]), data, tmp_path / "it", steps=25)
    losses = [point["total"] for point in trainee.curve]
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert all(map(torch.equal, trainee.parameters, trainee.average))
    assert trainee.curve[-1]["tokens"] == trainee.spent.tokens == 25 * BATCH * WINDOW


def test_averages_follow_the_weights() -> None:
    (trainee,) = trainees_of(["hidden"], replace(CONFIG, ema=0.5))
    start = [p.detach().clone() for p in trainee.parameters]
    take_step(trainee, 0, 10)  # decay (1 + 0) / (10 + 0)
    for before, average, now in zip(start, trainee.average, trainee.parameters, strict=True):
        torch.testing.assert_close(average, 0.1 * before + 0.9 * now, rtol=1e-5, atol=1e-7)
    middle = [a.clone() for a in trainee.average]
    take_step(trainee, 90, 100)  # 91 / 100, but at most 0.5
    for before, average, now in zip(middle, trainee.average, trainee.parameters, strict=True):
        torch.testing.assert_close(average, 0.5 * before + 0.5 * now, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("micro", [1, 3])
def test_a_step_in_parts_is_the_same_step(micro: int, data: PackedTokens, tmp_path: Path) -> None:
    """Up to rounding, where every part has as many scored tokens."""
    losses = LossWeights(ce=0, kd=0)
    config = replace(CONFIG, batch=6, optimizer="adamw")
    ends = []
    for name, size in (("whole", 6), ("parts", micro)):
        trainee = TrainState("hidden", build("hidden", losses=losses), replace(config, micro=size))
        train(
            [trainee], data, backbone(), tokens=3 * 6 * WINDOW, seed=0, checkpoint=tmp_path / name
        )
        ends.append(trainee)
    whole, parts = ends
    assert (parts.spent.steps, parts.spent.tokens) == (3, 3 * 6 * WINDOW)
    assert parts.spent.flops_per_token == pytest.approx(whole.spent.flops_per_token, rel=1e-3)
    for one, other in zip(whole.curve, parts.curve, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    for one, other in zip(whole.average, parts.average, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


# --- what goes wrong ------------------------------------------------------------------------------


def poison_loss(interface: Interface, at: int) -> None:
    whole = interface.losses

    def losses(batch: Batch, step: Step) -> dict[str, torch.Tensor]:
        found = whole(batch, step)
        return found | {"rec": found["rec"] * float("nan")} if step.index == at else found

    interface.losses = losses  # type: ignore[method-assign]


def poison_gradient(interface: Interface, at: int) -> None:
    whole = interface.losses

    def losses(batch: Batch, step: Step) -> dict[str, torch.Tensor]:
        found = whole(batch, step)
        if step.index == at:
            found["rec"].register_hook(lambda gradient: gradient * float("inf"))
        return found

    interface.losses = losses  # type: ignore[method-assign]


@pytest.mark.parametrize("poison", [poison_loss, poison_gradient])
def test_what_is_not_finite_stops_training_and_the_checkpoint_stays_good(
    poison: object, data: PackedTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", 0.0)
    trainees, path = trainees_of(["hidden", "regress"]), tmp_path / "it"
    poison(trainees[1].interface, 4)  # type: ignore[operator]
    with pytest.raises(UserError, match="regress is not finite at step 4") as caught:
        run(trainees, data, path)
    assert f"the last good checkpoint is {path}" in str(caught.value)
    assert "Lower train.lr" in str(caught.value)
    fresh = trainees_of(["hidden", "regress"])
    assert load_training(path, fresh) == 4
    assert all(torch.isfinite(p).all() for trainee in fresh for p in trainee.parameters)


def test_nothing_saved_yet_is_said(data: PackedTokens, tmp_path: Path) -> None:
    trainees = trainees_of(["hidden"])
    poison_loss(trainees[0].interface, 0)
    with pytest.raises(UserError, match=r"not finite at step 0 .* nothing was saved yet"):
        run(trainees, data, tmp_path / "it")
    assert not (tmp_path / "it").exists()


def test_checkpoints_that_cannot_be_continued(
    data: PackedTokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it"
    assert load_training(path, trainees_of(["hidden"])) == 0
    run(trainees_of(["hidden"]), data, path, steps=1)
    with pytest.raises(UserError, match=r"cannot be continued .*regress.* delete it"):
        load_training(path, trainees_of(["regress"]))
    path.write_bytes(path.read_bytes()[:-100])
    assert load_training(path, trainees_of(["hidden"])) == 0  # named, and made anew
    assert str(path) in capsys.readouterr().err


def test_a_failing_write_leaves_the_old_checkpoint(
    data: PackedTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it"
    (trainee,) = run(trainees_of(["hidden"]), data, path, steps=1)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_training(path, [trainee], 2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [*NAMES, "token-mean", "ridge", "mean"])
def test_an_interface_survives_the_disk(name: str, tmp_path: Path) -> None:
    interface = build(name)
    with torch.no_grad():
        for parameter in interface.parameters():
            parameter.add_(torch.randn(parameter.shape))
    save_interface(tmp_path / "it", interface)
    other = build(name, seed=3)
    other.baseline.zero_()
    load_interface(tmp_path / "it", other)
    assert other.state_dict().keys() == interface.state_dict().keys()
    for key, value in interface.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_an_interface_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_interface(tmp_path / "it", build("hidden"))
    with pytest.raises(UserError, match="does not fit the interface"):
        load_interface(tmp_path / "it", build("hidden", residual="token-mean"))
    with pytest.raises(UserError, match="nowhere cannot be read"):
        load_interface(tmp_path / "nowhere", build("hidden"))
    (tmp_path / "it").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="it is cut off or damaged"):
        load_interface(tmp_path / "it", build("hidden"))


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.optimizer=sgd is unknown; choose one of muon, "):
        TrainConfig(optimizer="sgd")


# --- rates and optimisers -------------------------------------------------------------------------


@pytest.mark.parametrize("config", SETTINGS[::2], ids=by_setting)
def test_every_parameter_has_one_optimizer_and_only_matrices_decay(config: TrainConfig) -> None:
    (trainee,) = trainees_of(["hidden"], config)
    groups = [group for o in trainee.optimizers for group in o.param_groups]
    optimised = [p for group in groups for p in group["params"]]
    assert len(optimised) == len({id(p) for p in optimised}) == len(trainee.parameters)
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim == 2)
    take_step(trainee, 0, 100)
    peak = {"muon": config.muon_lr, "adamw": config.lr}[config.optimizer]
    assert groups[0]["lr"] == pytest.approx(peak / 5)  # one of five steps of warm-up
    assert groups[-1]["lr"] == pytest.approx(config.lr / 5)


@pytest.mark.parametrize("config", SETTINGS[:3:2], ids=by_setting)
def test_the_ledger_of_a_training(config: TrainConfig, data: PackedTokens, tmp_path: Path) -> None:
    (trainee,) = run(trainees_of(["hidden"], config), data, tmp_path / "it", steps=3)
    spent, tokens = trainee.spent, BATCH * WINDOW
    assert (spent.steps, spent.tokens) == (3, 3 * tokens)
    assert spent.trainable_parameters == sum(p.numel() for p in trainee.interface.parameters())
    assert spent.flops == spent.flops_per_token * spent.tokens
    assert spent.seconds > 0
    assert spent.peak_memory_bytes > 10_000_000
    (other,) = trainees_of(["hidden"], config)
    batch = Batch.of(data.draw(0, 0, BATCH), backbone(), layers=(1, 3), logits=True)
    teacher = count_flops(lambda: backbone().logits(batch.tokens, batch.positions))
    step = count_flops(lambda: (other.learn(batch, Step(index=0, of=3)), other.update(0, 3)))
    assert spent.flops_per_token == (teacher + step) / tokens
    matrices = sum(p.numel() for p in other.parameters if p.ndim == 2)
    assert step / tokens > 6 * matrices  # forward once, backward twice, a multiply-add is two
    assert TrainingCost(**spent.to_dict()) == spent


def test_a_budget_is_held_to_one_percent(
    data: PackedTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainState, "learn", lambda *_: {"total": torch.zeros(())})
    monkeypatch.setattr(TrainState, "update", lambda *_: torch.zeros(()))
    monkeypatch.setattr(module.Need, "lesson", lambda *_: None)
    for tokens in (50 * 32, 50 * 32 + 15, 51 * 32 - 15, 2000, 3333):
        (trainee,) = trainees_of(["hidden"])
        path = tmp_path / str(tokens)
        train([trainee], data, backbone(), tokens=tokens, seed=0, checkpoint=path)
        budget = BudgetConfig(diffusion_tokens=tokens)
        checked = budget.check(("diffusion",), {"diffusion": trainee.spent})
        assert checked["within"], checked
        assert abs(trainee.spent.tokens - tokens) <= 16
    assert not BudgetConfig(diffusion_tokens=3333 * 2).check(
        ("diffusion",), {"diffusion": trainee.spent}
    )["within"]


def test_statistics_are_not_touched_by_training(data: PackedTokens, tmp_path: Path) -> None:
    (trainee,) = run(trainees_of(["hidden"]), data, tmp_path / "it", steps=2)
    assert torch.equal(trainee.interface.scale, statistics().std)
    assert torch.equal(trainee.interface.baseline[0], statistics().mean)
