"""How often the host waits for the device in a training step: twice at most, for any trainees."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dihal_bench.data.tokens import PackedTokens
from dihal_bench.interfaces import batch as batch_module
from dihal_bench.interfaces.settings import LossWeights
from dihal_bench.models.packing import Documents
from dihal_bench.training import trainer as module
from dihal_bench.training.trainee import TrainState

from ..tiny import backbone, build
from .test_trainer import CONFIG, data, run  # noqa: F401

aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default}


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what an accelerator would have to finish its work for: numbers, masks as indices."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        masks = func in {aten.index.Tensor, aten.index_put_.default} and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masks or func in READS:
            self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("block", [0, 4])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_step_waits_twice_at_most(
    block: int,
    share: float,
    data: PackedTokens,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = LossWeights(token_share=share)
    names = ("hidden", "regress", "embedding")
    trainees = [TrainState(n, build(n, losses=losses, block=block), CONFIG) for n in names]
    for trainee in trainees:  # they count their steps on the host, wherever the weights are
        trainee.optimizers, trainee.rates = [], []
    waits, step, read = Waits(), module._step, torch.Tensor.tolist
    find = Documents.find

    def counted(*args: object, **kwargs: object) -> object:
        if not trainees[0].spent.steps:  # whose FLOPs are counted
            return step(*args, **kwargs)  # type: ignore[arg-type]
        with waits:
            return step(*args, **kwargs)  # type: ignore[arg-type]

    def reads(tensor: torch.Tensor) -> object:
        waits.seen["tolist"] += bool(trainees[0].spent.steps)
        return read(tensor)

    def on_host(positions: torch.Tensor | None) -> Documents | None:
        waits.seen["find"] += positions is not None and bool(trainees[0].spent.steps)
        with _disable_current_modes():
            return find(positions)

    monkeypatch.setattr(module, "_step", counted)
    monkeypatch.setattr(torch.Tensor, "tolist", reads)
    monkeypatch.setattr(TrainState, "averaged", lambda _: pytest.fail("not reached"))
    monkeypatch.setattr(module, "SHARES", ())
    monkeypatch.setattr(module, "save_training", lambda *_: None)
    monkeypatch.setattr(batch_module.Documents, "find", on_host)
    run(trainees, data, tmp_path / "it", steps=4)
    assert waits.seen["tolist"] == 3
    waits.seen["find"] -= 3  # of a whole batch, before it is on the device
    assert sum(waits.seen.values()) <= 2 * 3, waits.seen


def test_transformers_looks_for_documents_itself_where_nobody_tells() -> None:
    tokens = torch.arange(2, 10)[None]
    apart, whole = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]]), torch.arange(8)[None]
    model = backbone().model
    plain = model(tokens, position_ids=whole, use_cache=False).logits
    packed = model(tokens, position_ids=apart, use_cache=False).logits
    torch.testing.assert_close(packed, backbone().logits(tokens, apart))
    torch.testing.assert_close(plain, backbone().logits(tokens, whole))
    assert not torch.allclose(packed[:, 3:], plain[:, 3:], atol=1e-3)
