"""What all processes of a launch do in the tests of several processes; the main one reports."""

import argparse
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dihal_bench.cli import main as cli
from dihal_bench.core import distributed
from dihal_bench.core.files import atomic_path, write_json
from dihal_bench.data.documents import Corpus
from dihal_bench.data.tokens import PackedTokens, pack
from dihal_bench.evaluation.block_bound import block_bound
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.evaluate import check_gates
from dihal_bench.evaluation.likelihood import Row, score
from dihal_bench.evaluation.reconstruction import bridgeability, oracle
from dihal_bench.geometry.activations import sample_activations
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import LossWeights
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.models.loading import shard_blocks
from dihal_bench.models.model import Backbone
from dihal_bench.training import trainer as module
from dihal_bench.training.config import TrainConfig
from dihal_bench.training.trainee import TrainState
from dihal_bench.training.trainer import train

from ..tiny import BLOCKS, SPAN, VOCABULARY, backbone, build
from ..tiny import statistics as fitted_to

WINDOW, BATCH, STEPS = 16, 8, 4
LONG, KILLED_AT = 7, 3  # steps of a training, and the one in which a process is killed


@dataclass(frozen=True)
class Case:
    """A training: of whom, in passes of how many windows, in which phase, in blocks of how many."""

    names: tuple[str, ...]
    micro: int
    phase: str = "diffusion"
    block: int = 0
    token_share: float = 1.0

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(batch=BATCH, micro=self.micro, optimizer="adamw", autocast=False)

    def trainees(self) -> list[TrainState]:
        losses = LossWeights(token_share=self.token_share)
        made = {name: build(name, block=self.block, losses=losses) for name in self.names}
        return [TrainState(name, made[name], self.config, self.phase) for name in self.names]


CASES = {
    "passes dealt": Case(("hidden", "regress"), micro=2),
    "passes shared": Case(("hidden", "regress"), micro=8),
    "passes dealt to pairs": Case(("hidden",), micro=4),
    "a short last pass": Case(("hidden",), micro=6),
    "blocks": Case(("hidden", "embedding"), micro=8, block=4),
    "a share of the windows": Case(("hidden", "regress"), micro=2, token_share=0.25),
    "a share of the windows of passes shared": Case(("hidden",), micro=8, token_share=0.125),
    "a share of blocks": Case(("hidden",), micro=8, block=4, token_share=0.25),
    "recovery": Case(("c2d", "latent"), micro=8, phase="recovery"),
}
INTERRUPTED = CASES["passes shared"]


def text(folder: Path) -> PackedTokens:
    """Documents of very different lengths, so that windows differ in how many places they score."""
    vocabulary = {"</s>": 0, "<s>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="</s>"
    )
    generator = np.random.default_rng(0)
    lengths = [2 if i % 3 else 60 for i in range(60)]
    documents = [" ".join(f"w{i}" for i in generator.integers(2, 60, n)) for n in lengths]
    corpus = Corpus(name="uneven", fingerprint="u", splits={"train": lambda: documents}, notes={})
    with (
        mock.patch.dict(os.environ, {"DIHAL_BENCH_CACHE": str(folder)}),
        distributed.first_on_machine(),
    ):
        return pack(corpus, "train", tokenizer, window=WINDOW)


def learn(case: Case, data: PackedTokens, checkpoint: Path, steps: int = STEPS) -> list[TrainState]:
    trainees = case.trainees()
    tokens = steps * BATCH * WINDOW
    train(trainees, data, backbone(), tokens=tokens, seed=0, checkpoint=checkpoint)
    return trainees


def outcome(trainee: TrainState) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What came of a training: facts, and weights by name."""
    spent = trainee.spent
    facts = {"curve": trainee.curve, "steps": spent.steps, "tokens": spent.tokens}
    facts["flops"] = spent.flops
    return facts, {f"{trainee.name}/{i}": a for i, a in enumerate(trainee.average)}


def measured(data: PackedTokens) -> dict[str, Any]:
    """Everything that is dealt besides training, as plain values."""
    interface, blocks = build("hidden"), build("embedding", block=4)
    windows = range(11)
    rows = [Row(subject="teacher"), Row(subject="it", steps=2, chains=2)]
    totals = score(rows, {"it": interface}, data, backbone(), windows=windows, batch=2)
    facts: dict[str, Any] = {
        f"score {row.subject} {name}": values.tolist()
        for row, own in totals.items()
        for name, values in [*own.sums.items(), ("tokens", own.tokens), ("bytes", own.bytes)]
    }
    batch = {"windows": windows, "batch": 2}
    facts["bridge"] = list(bridgeability(interface, data, **batch, steps=2).to_dict().values())
    own = oracle(interface, data, **batch)
    facts["oracle"] = [own.kl, own.agreement, *own.kl_under_noise, own.tokens]
    facts["bound"] = [x.tolist() for x in block_bound(blocks, data, **batch, snr=1.0, draws=2)]
    facts |= {f"statistics {n}": v.tolist() for n, v in vars(statistics(data)).items()}
    scorer = ScoreCache(data=data, backbone=backbone(), windows=windows, batch=2)
    gates = check_gates({name: build(name) for name in ("ridge", "token-mean")}, data, scorer)
    facts |= {f"gate {name}": [gate.future, gate.effect] for name, gate in gates.items()}
    layers = list(range(1, BLOCKS))
    for residual in ("none", "token-mean"):
        samples = sample_activations(
            backbone(), data, layers, windows=30, per_window=3, residual=residual, seed=0
        )
        for layer, sample in samples.items():
            facts[f"states {layer} {residual}"] = sample.states.tolist()
            facts[f"transformed {layer} {residual}"] = sample.transformed.tolist()
    return facts


def statistics(data: PackedTokens) -> SpanStatistics:
    """Of a text that one process is dealt nothing of where there are four."""

    def batches() -> Iterator[Batch]:
        for lo, counts in distributed.turns(range(0, 48, 16)):
            batch = Batch.of(data.batch(range(lo, lo + 16)), backbone(), layers=(SPAN.a, SPAN.b))
            if counts:
                yield batch

    return SpanStatistics.collect(batches(), SPAN.a, SPAN.b)


def sharded(data: PackedTokens) -> dict[str, float]:
    """How far a teacher that is spread over the processes is from the same in one piece."""
    whole = backbone()
    model = LlamaForCausalLM(whole.model.config)
    model.load_state_dict(whole.model.state_dict())
    shard_blocks(model, torch.device("cpu"))
    spread = Backbone.from_model(model, None, name="spread")
    windows = data.batch([0, 1])
    tokens, positions = torch.from_numpy(windows.tokens), torch.from_numpy(windows.positions)
    found: list[list[torch.Tensor]] = []
    for one in (whole, spread):
        states = one.states(tokens, positions, logits=True)
        hidden = states.hidden[1].clone().requires_grad_()
        upper = torch.log_softmax(one.upper(hidden, 1, positions), -1)
        (teacher := torch.softmax(states.logits, -1).roll(1, 0)).detach_()
        torch.nn.functional.kl_div(upper, teacher, reduction="sum").backward()
        assert hidden.grad is not None
        found.append([*states.hidden.values(), states.logits, hidden.grad])
        assert all(p.grad is None for p in one.model.parameters())
    block = spread.model.model.layers[BLOCKS - 1]
    held = sum(p.to_local().numel() for p in block.parameters())  # all passes are over
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found, strict=True)]
    return {
        "gap": max(gaps),
        "gradient": float(found[0][-1].abs().max()),
        "sharded": float(spread.sharded and not whole.sharded),
        "held": held / sum(p.numel() for p in block.parameters()),
    }


def cases(folder: Path) -> None:
    """Train all cases and what was interrupted, measure, and report."""
    data = text(folder / "cache")
    facts: dict[str, Any] = {"processes": distributed.size()}
    for name, case in CASES.items():
        for trainee in learn(case, data, folder / f"{name}-{distributed.size()}"):
            own, weights = outcome(trainee)
            facts[f"{name}: {trainee.name}"] = own
            keep(folder / f"{name} {trainee.name} {distributed.size()}.safetensors", weights)
    taken = []
    update = TrainState.update
    with mock.patch.object(
        TrainState, "update", lambda self, *a: (taken.append(a[0]), update(self, *a))[1]
    ):
        resumed = learn(INTERRUPTED, data, folder / f"interrupted-{distributed.size()}", LONG)
    facts["resumed"] = {"taken": sorted(set(taken)), "curve": resumed[0].curve}
    digests = [hashlib.sha256(p.detach().numpy().tobytes()).hexdigest() for p in resumed[0].average]
    facts["digests"] = [list(own) for own in set(distributed.gather([tuple(digests)]))]
    facts["measured"] = measured(data)
    facts["sharded"] = distributed.gather([sharded(data)])
    facts["writes"] = distributed.gather([distributed.writes()])
    write_json(folder / f"report-{distributed.size()}.json", facts)


def keep(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def victim(folder: Path) -> None:
    """Train with a checkpoint after every step, until one process is killed."""
    module._CHECKPOINT_SECONDS = 0.0
    update = TrainState.update

    def killed(self: TrainState, step: int, steps: int) -> torch.Tensor:
        if step == KILLED_AT and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, step, steps)

    with mock.patch.object(TrainState, "update", killed):
        learn(INTERRUPTED, text(folder / "cache"), folder / "interrupted", LONG)


def main() -> int:
    work, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    fitted_to()  # what interfaces are fitted to, before it would be added up over the processes
    verb = argparse.Namespace(verb="test", parallel=True)
    verb.work = lambda _: {"cases": cases, "victim": victim}[work](folder) or 0
    return cli.perform(verb)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    distributed.leave(main())
