"""Look-ups for ``hidden``: predictions of h_b in closed form, with no network at all."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch

from dihal_bench.core.registry import INTERFACES
from dihal_bench.interfaces.hidden import HiddenSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from dihal_bench.diffusion.layout import Layout
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span
    from dihal_bench.interfaces.statistics import SpanStatistics
    from dihal_bench.models.model import Backbone


class LookUp(HiddenSpace):
    """A prediction of h_b that is fitted, not trained; it subtracts no token table of its own."""

    stochastic: ClassVar[bool] = False
    iterative: ClassVar[bool] = False
    phases: ClassVar[tuple[str, ...]] = ()
    regimes: ClassVar[tuple[str, ...]] = ("causal",)  # in a block the token itself is not known
    tables: ClassVar[tuple[str, ...]] = ()  # fields of the statistics that the prediction uses

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, replace(config, residual="none"))
        size, vocabulary = backbone.hidden_size, backbone.vocab_size
        shapes = {
            "token_mean": (vocabulary, size),
            "ridge_weight": (size, size),
            "ridge_bias": (size,),
        }
        for name in self.tables:
            self.register_buffer(name, torch.zeros(shapes[name], device=backbone.device))

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep the tables that the prediction needs."""
        super().fit(statistics)
        for name in self.tables:
            getattr(self, name).copy_(getattr(statistics, name))

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Return the prediction of h_b, [B, T, D]."""

    def chains(
        self, batch: Batch, *, steps: int, count: int, layout: Layout | None = None
    ) -> Iterator[Tensor]:
        """Yield the one prediction ``count`` times, as a signal."""
        del steps, layout
        signal = self.encode(self.predict(batch), batch)
        for _ in range(count):
            yield signal


@INTERFACES.register("token-mean")
class TokenMean(LookUp):
    """The mean state of the token itself, whatever came before it; shrunk by empirical Bayes."""

    tables: ClassVar[tuple[str, ...]] = ("token_mean",)
    help: ClassVar[str] = "control: the token's mean state, whatever its prefix"
    token_mean: Tensor

    def predict(self, batch: Batch) -> Tensor:
        """Look the token up."""
        return self.token_mean[batch.tokens]


@INTERFACES.register("ridge")
class Ridge(LookUp):
    """A linear map of h_a at the same position."""

    tables: ClassVar[tuple[str, ...]] = ("ridge_weight", "ridge_bias")
    help: ClassVar[str] = "control: ridge regression from h_a at the same position"
    ridge_weight: Tensor
    ridge_bias: Tensor

    def predict(self, batch: Batch) -> Tensor:
        """Map h_a linearly."""
        state = batch.hidden(self.span.a).to(self.ridge_weight.dtype)
        return state @ self.ridge_weight.T + self.ridge_bias


@INTERFACES.register("mean")
class Mean(LookUp):
    """One state for everything."""

    reads_tokens: ClassVar[bool] = False
    help: ClassVar[str] = "control: the mean state everywhere"

    def predict(self, batch: Batch) -> Tensor:
        """Return the global mean at every position."""
        return self.baseline[0].expand(*batch.tokens.shape, -1)


@INTERFACES.register("identity")
class Identity(LookUp):
    """h_a in place of h_b: the replaced blocks are skipped."""

    help: ClassVar[str] = "control: the replaced blocks are skipped"

    def predict(self, batch: Batch) -> Tensor:
        """Pass h_a through."""
        return batch.hidden(self.span.a).to(self.scale.dtype)
