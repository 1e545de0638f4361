"""Frozen weights that are cast once: the same bits, the weights untouched, nothing left behind."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dihal_bench.models import cast
from dihal_bench.models.cast import cast_once

from ..tiny import HIDDEN, PROBE, backbone


class Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts casts of matrices to bfloat16."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.count += args[0].ndim == 2 and not args[0].requires_grad
        return func(*args, **kwargs)


def _pass(entry: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    entry = entry.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = backbone().upper(entry, 1)
    logits.float().square().sum().backward()
    assert entry.grad is not None
    return logits.detach(), entry.grad


def test_the_same_bits_from_casts_made_once() -> None:
    entry = torch.randn(2, 5, HIDDEN)
    weights = {name: value.clone() for name, value in backbone().model.state_dict().items()}
    plain = _pass(entry)
    tokens = torch.from_numpy(PROBE.tokens)
    wide = backbone().logits(tokens)
    with cast_once(backbone(), torch.bfloat16):
        with Casts() as casts:
            again = _pass(entry)
        assert torch.equal(backbone().logits(tokens), wide)  # not under autocast
    assert casts.count == 0
    assert all(map(torch.equal, plain, again))
    assert all(torch.equal(v, weights[n]) for n, v in backbone().model.state_dict().items())
    with Casts() as casts:
        assert all(map(torch.equal, plain, _pass(entry)))
    assert casts.count > 0


@pytest.mark.parametrize(("enabled", "free"), [(False, 1e12), (True, 10.0)])
def test_no_copies_where_they_are_not_wanted_or_do_not_fit(
    enabled: bool, free: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cast, "_free_memory", lambda _: free)
    with cast_once(backbone(), torch.bfloat16, enabled=enabled):
        assert not any("forward" in vars(module) for module in backbone().model.modules())


def test_an_error_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), cast_once(backbone(), torch.bfloat16):
        raise KeyError
    assert not any("forward" in vars(module) for module in backbone().model.modules())
