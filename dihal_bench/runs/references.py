"""What speed is measured against: transformers' own training and text, and the obvious way."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dihal_bench.data.tokens import Windows
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.interfaces.settings import Step
    from dihal_bench.models.model import Backbone

_RATE = 1e-5


def fine_tuning(
    backbone: Backbone, windows: Windows, *, autocast: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the two halves of a plain step of transformers on all weights: gradients, update.

    Args:
        backbone: whose model is copied into float32.
        windows: of a pass.
        autocast: whether it computes in bfloat16 where that is safe.
    """
    model = copy.deepcopy(backbone.model).float().train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    tokens = torch.from_numpy(windows.tokens).to(backbone.device)

    def learn() -> None:
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=autocast):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        torch.autograd.backward(loss)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return learn, update


def obvious(interface: Interface, windows: Windows, step: Step) -> Callable[[], object]:
    """Return a training pass written plainly: all states and logits, in float32, shared by nobody.

    It computes the losses of a step of `Interface.losses` in the causal regime.

    Args:
        interface: with a trunk, and a state of its backbone as its signal.
        windows: of a pass.
        step: whose noise is drawn.
    """
    backbone, weights = interface.backbone, interface.config.losses

    def learn() -> None:
        every = range(backbone.blocks + 1)
        batch = Batch.of(windows, backbone, layers=every, logits=True)
        x0, layout = interface.clean(batch), interface.layout(batch)
        assert interface.trunk is not None
        context = interface.trunk.encode(interface.condition(batch), layout)
        z, t = interface.training_input(x0, batch, layout, step)
        weight = interface.diffusion.loss_weight(t)
        diff = (weight * (interface.estimate(z, t, context) - x0).square().mean(-1)).mean()
        z, t = interface.terminal_input(x0, batch, context, step)
        estimate = interface.estimate(z, t, context)
        rec = F.mse_loss(estimate, x0)
        ce, kd = _distances(interface.recover(estimate, batch), batch)
        total = weights.diff * diff + weights.rec * rec + weights.ce * ce + weights.kd * kd
        torch.autograd.backward(total)

    return learn


def _distances(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    student = F.log_softmax(logits.float(), dim=-1)[:, :-1].flatten(0, 1)
    teacher = F.softmax(batch.teacher_logits.float(), dim=-1)[:, :-1].flatten(0, 1)
    ce = F.nll_loss(student, batch.tokens[:, 1:].flatten())
    return ce, F.kl_div(student, teacher, reduction="batchmean")


def generated(backbone: Backbone, prompts: Tensor, new: int) -> Callable[[], object]:
    """Return transformers' ``generate`` of ``new`` tokens after prompts [B, T], sampled."""

    def write() -> object:
        return backbone.model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            min_new_tokens=new,
            max_new_tokens=new,
            pad_token_id=0,
        )

    return write
