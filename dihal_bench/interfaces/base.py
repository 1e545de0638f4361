"""The contract of an interface: where in the model a signal enters, and the way back to tokens.

A new interface states ``target``, ``condition`` and ``recover`` (and what it fits in closed form);
the trunk, the diffusion, losses, sampling, checkpoints and scores come with this class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dihal_bench.core.configurable import Configurable
from dihal_bench.core.registry import DENOISERS
from dihal_bench.diffusion.denoisers import check_denoiser
from dihal_bench.diffusion.layout import Layout
from dihal_bench.diffusion.noise import Noise
from dihal_bench.diffusion.schedule import Diffusion
from dihal_bench.interfaces.losses import mean_over
from dihal_bench.interfaces.part import leading
from dihal_bench.interfaces.settings import REGIMES
from dihal_bench.interfaces.token_losses import losses_of_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dihal_bench.diffusion.denoisers import Denoiser
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span, Step
    from dihal_bench.interfaces.statistics import SpanStatistics
    from dihal_bench.models.model import Backbone

_TRAINING_DRAWS = 1 << 30  # training and sampling never use the same noise
_RECOVERY_DRAWS = 1 << 31  # nor do the phases


class Interface(Configurable, nn.Module, ABC):
    """A signal x0 that is generated given the clean prefix, and its way back to next-token logits.

    Shapes: B windows, T positions, D signal dimensions, C condition dimensions, V vocabulary.

    Attributes:
        phases: the training phases it declares, each with a budget of its own: "recovery" trains
            ``self.recovery``, "diffusion" everything else; none: nothing is trained by gradient.
        bears_tokens: whether the signal at i stands for token i + 1 and has a recovery of its own,
            so that all blocks above a are replaced; else it is a state of position i.
        stochastic: whether different chains give different signals.
        iterative: whether the number of network evaluations is its user's to choose.
        reads_tokens: whether predictions are meant to depend on the tokens at all.
        local_recovery: whether logits at i are made of the signal at i alone; else earlier signals
            are read too, and in the sequence regime estimated anew once their tokens are known.
        cached: whether a text can be read place by place: conditions and recovery then take what
            they need of earlier places from ``batch.hidden``, ``batch.upper`` and the layout's
            past alone; else generation reads all of it anew for every token.
        decoder_steps: network evaluations per token that its recovery adds to the sampler's.
        regimes: the regimes it can be used in.
        period: training steps after which what one costs in FLOPs begins anew; so many are counted.
        least_accuracy: share of tokens that must be recovered from the true signal, else training
            stops before diffusion.
        controls: what stands beside it in its table by default.
        slow_controls: what stands there too where everything is compared.
        section: NAME of its settings NAME.key, where it is not the registered one: a control shares
            its interface's.
        help: one line for ``dihal-bench list``.
    """

    phases: ClassVar[tuple[str, ...]] = ("diffusion",)
    bears_tokens: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True
    iterative: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    local_recovery: ClassVar[bool] = False
    cached: ClassVar[bool] = True
    decoder_steps: ClassVar[int] = 0
    period: ClassVar[int] = 1
    least_accuracy: ClassVar[float] = 0.0
    regimes: ClassVar[tuple[str, ...]] = REGIMES
    controls: ClassVar[tuple[str, ...]] = ()
    slow_controls: ClassVar[tuple[str, ...]] = ()
    section: ClassVar[str] = ""
    help: ClassVar[str] = ""

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__()
        self.__dict__["backbone"] = backbone  # the frozen teacher is not a submodule
        self.backbone: Backbone
        self.span = span
        self.config = config
        self.options = self.with_defaults(config.options)
        self.noise = Noise(config.seed)
        self.diffusion = Diffusion.create(config.diffusion)
        self.recovery: nn.Module | None = None
        self.trunk: Denoiser | None = self._new_trunk() if "diffusion" in self.phases else None

    # --- what an interface must state -------------------------------------------------------------

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Signal dimensions D and condition dimensions C."""

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """Layers whose teacher states it asks for: a first, then that of the signal, if any."""

    @abstractmethod
    def target(self, batch: Batch) -> Tensor:
        """Return the clean, standardised signal x0 [B, T, D]; at i of tokens <= i + 1 only."""

    @abstractmethod
    def condition(self, batch: Batch) -> Tensor:
        """Return the condition [B, T, C]; at i a function of tokens <= i."""

    @abstractmethod
    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return next-token logits [B, T, V]; at i of x0 and tokens at positions <= i only."""

    # --- what an interface may state --------------------------------------------------------------

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep what is estimated in closed form from the training text, if anything."""

    def recovery_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the losses of the recovery phase, for interfaces that declare one."""
        raise NotImplementedError(f"{type(self).__name__} declares a recovery phase without losses")

    def recovery_key(self) -> dict[str, Any]:
        """Return what the recovery phase depends on besides seed, text, budget and own settings.

        Rows that agree in all of it train the phase once.
        """
        losses = asdict(self.config.losses)
        del losses["token_share"]  # no recovery knows it
        return {
            "span": asdict(self.span),
            "losses": losses,
            "diffusion": asdict(self.config.diffusion),
        }

    def settle(self, batches: Iterable[Batch]) -> None:
        """Estimate what depends on the trained recovery, once its phase is over."""

    def signal(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return the signal [B, T, D] in the space where errors are reported; x0 by default."""
        del batch
        return x0

    def refine(self, x0: Tensor) -> Tensor:
        """Return what the sampler takes for the network's estimate of x0; itself by default."""
        return x0

    # --- what comes with the contract -------------------------------------------------------------

    @property
    def likelihood(self) -> bool:
        """Whether what it recovers is a distribution over tokens that may be scored as one."""
        return True

    @property
    def rounds(self) -> bool:
        """Whether it settles on single tokens before there are logits, hiding small changes."""
        return False

    def known(self, batch: Batch) -> Tensor:
        """Return where the target is defined, bool [B, T]."""
        return batch.followed if self.bears_tokens else torch.ones_like(batch.scored)

    def clean(self, batch: Batch) -> Tensor:
        """Return the target [B, T, D], zero where it is not defined: no place may hint at others.

        (At the end of a window the next token is missing; places of its block see each other.)
        """
        return torch.where(self.known(batch)[..., None], self.target(batch), 0.0)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the unweighted losses of a training batch by name; its noise is the step's."""
        if step.phase == "recovery":
            return self.recovery_losses(batch, step)
        assert self.trunk is not None
        weights, x0, known = self.config.losses, self.clean(batch), self.known(batch)
        layout = self.layout(batch, self._shift(batch, step))
        context = self.trunk.encode(self.condition(batch), layout)
        losses = {}
        if weights.diff:
            z, t = self.training_input(x0, batch, layout, step)
            previous = self._first_guess(z, t, context, batch, step)
            error = (self.estimate(z, t, context, previous) - x0).square().mean(-1)
            losses["diff"] = mean_over(self.diffusion.loss_weight(t).to(error.dtype) * error, known)
        if weights.rec or weights.ce or weights.kd:
            z, t = self.terminal_input(x0, batch, context, step)
            estimate = self.estimate(z, t, context)
            losses["rec"] = mean_over((estimate - x0).square().mean(-1), known)
            if weights.ce or weights.kd:
                draw = _TRAINING_DRAWS + 2 * step.index
                losses |= losses_of_tokens(self, (estimate, z, t), batch, layout, step, draw=draw)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses; an interface's own weigh 1."""
        weights = self.config.losses
        terms = [getattr(weights, name, 1.0) * value for name, value in losses.items()]
        return torch.stack(terms).sum()

    def layout(self, batch: Batch, shift: int | Tensor = 0) -> Layout:
        """Return who sees whom; in the sequence regime the first block is short by ``shift``."""
        return Layout.of(batch.positions, self.config.block, shift, batch.past)

    def training_input(
        self, x0: Tensor, batch: Batch, layout: Layout, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Return the noised signal [B, T, D] and its levels [B, T], drawn per position or block."""
        draw = _TRAINING_DRAWS + 2 * step.index
        t = self.diffusion.draw_level(layout.at_start(batch.uniform(self.noise, draw=draw)))
        return self.diffusion.corrupt(x0, self._normal(batch, draw), t), t

    def terminal_input(
        self, x0: Tensor, batch: Batch, context: Any, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Return the signal at the last level, t = T: pure noise where the terminal SNR is zero."""
        del context
        t = torch.full(batch.tokens.shape, self.diffusion.terminal, device=x0.device)
        eps = self._normal(batch, _TRAINING_DRAWS + 2 * step.index + 1)
        return self.diffusion.corrupt(x0, eps, t), t

    def estimate(
        self, z: Tensor, t: Tensor, context: Any, previous: Tensor | None = None
    ) -> Tensor:
        """Return the network's estimate of x0 [B, T, D] at levels ``t``, [B, T] or [].

        With self-conditioning the network sees the ``previous`` estimate beside z; None: zeros.
        """
        assert self.trunk is not None
        level = (t + 1).to(torch.float32) / self.diffusion.config.train_steps
        z = z.to(self.dtype)
        seen = self.diffusion.network_input(z, t)
        if self.diffusion.config.self_conditioning:
            before = torch.zeros_like(seen) if previous is None else previous.to(seen.dtype)
            seen = torch.cat((seen, before), dim=-1)
        return self.diffusion.to_x0(self.trunk(seen, level, context), z, t)

    def chains(
        self, batch: Batch, *, steps: int, count: int, layout: Layout | None = None
    ) -> Iterator[Tensor]:
        """Yield ``count`` independent samples [B, T, D], of ``steps`` evaluations each."""
        assert self.trunk is not None
        context = self.trunk.encode(self.condition(batch), layout or self.layout(batch))
        for chain in range(count):
            yield self.draw(batch, context, chain=chain, steps=steps)

    def samples(
        self,
        batch: Batch,
        *,
        steps: int,
        count: int,
        layout: Layout | None = None,
        current: Tensor | None = None,
        chosen: Sequence[int] | None = None,
    ) -> Iterator[Tensor]:
        """Yield ``count`` independent signals [B, T, D] as recovery is to read them.

        Those of ``chains``, but for a recovery that reads earlier signals in the sequence regime:
        the places of a block were drawn before its tokens were known. Once they are, what goes on
        from them is given one-step estimates, each given all tokens up to its place, as training
        has them (``_read``). First places of blocks knew all that from the start.

        Args:
            batch: windows.
            steps: network evaluations per chain.
            count: chains.
            layout: of the blocks; the interface's own by default.
            current: first place of the block that is being generated, per row, int64 [B]; by
                default that of no block: logits are then those of what follows the known tokens.
            chosen: numbers of the chains that are wanted, rising; None: all.
        """
        layout = layout or self.layout(batch)
        drawn = self._chosen(batch, chosen, steps, count, layout)
        if not self.redraws:
            yield from drawn
            return
        kept = layout.kept(current)[..., None]
        again = self._chosen(batch, chosen, 1, count, layout.causal())
        for x0, later in zip(drawn, again, strict=True):
            yield torch.where(kept, x0, later)

    @property
    def redraws(self) -> bool:
        """Whether signals are estimated once more when the tokens of their block are known."""
        return bool(self.config.block and self.trunk is not None and not self.local_recovery)

    def draw(self, batch: Batch, context: Any, *, chain: int, steps: int) -> Tensor:
        """Return one sample [B, T, D] given the encoded context, from noise of ``chain`` alone."""
        return self.diffusion.sample(
            self._stepwise(context), lambda step: self._normal(batch, chain, step), steps
        ).to(self.dtype)

    def parameters_in(self, phase: str) -> list[nn.Parameter]:
        """Return what a phase trains, of all that requires a gradient; the rest stays as it is."""
        own = set() if self.recovery is None else set(self.recovery.parameters())
        trainable = [p for p in self.parameters() if p.requires_grad]
        return [p for p in trainable if (p in own) == (phase == "recovery")]

    @property
    def closed_form_parameters(self) -> int:
        """Numbers estimated without gradients: tables, means, scales."""
        return sum(buffer.numel() for buffer in self.buffers())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the trunk's weights."""
        return next((p.dtype for p in self.parameters()), self.backbone.model.dtype)

    def _chosen(
        self, batch: Batch, chosen: Sequence[int] | None, steps: int, count: int, layout: Layout
    ) -> Iterator[Tensor]:
        """Return the chosen chains; others are drawn too where ``chains`` is not this class's."""
        if chosen is not None and self.trunk and type(self).chains is Interface.chains:
            context = self.trunk.encode(self.condition(batch), layout)
            return (self.draw(batch, context, chain=chain, steps=steps) for chain in chosen)
        drawn = self.chains(batch, steps=steps, count=count, layout=layout)
        return (x0 for chain, x0 in enumerate(drawn) if chosen is None or chain in chosen)

    def _stepwise(self, context: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the sampler's estimate of x0, which remembers its last one."""
        previous: Tensor | None = None

        def estimate(z: Tensor, t: Tensor) -> Tensor:
            nonlocal previous
            previous = self.refine(self.estimate(z, t, context, previous))
            return previous

        return estimate

    def _first_guess(
        self, z: Tensor, t: Tensor, context: Any, batch: Batch, step: Step
    ) -> Tensor | None:
        """Return the estimate that half of the windows are self-conditioned on, without gradient.

        Both kinds are in every step, so that every step costs the same (Strudel et al., 2022, make
        two passes as well).
        """
        if not self.diffusion.config.self_conditioning:
            return None
        with torch.no_grad():
            guess = self.estimate(z, t, context)
        coin = batch.coin(self.noise, draw=_TRAINING_DRAWS + 2 * step.index + 1)
        return torch.where(coin[..., None] < 0.5, guess, torch.zeros_like(guess))

    def _shift(self, batch: Batch, step: Step) -> int | Tensor:
        """Return how much shorter the first block is in a step: drawn, so that all places start."""
        if not self.config.block:
            return 0
        uniform = batch.coin(self.noise, draw=_TRAINING_DRAWS + 2 * step.index + 1, begin=True)[:1]
        return (leading(uniform) * self.config.block).long()

    def _normal(self, batch: Batch, draw: int, step: int = 0) -> Tensor:
        return batch.normal(self.noise, self.sizes[0], draw=draw, step=step)

    def _recovery_normal(self, batch: Batch, size: int, step: Step) -> Tensor:
        """Return noise [B, T, size] for what is recovered in a step, of either phase."""
        draw = _RECOVERY_DRAWS + 2 * step.index + (step.phase == "recovery")
        return batch.normal(self.noise, size, draw=draw)

    def _new_trunk(self) -> Denoiser:
        (signal, condition), config = self.sizes, self.config
        kind = DENOISERS.get(config.denoiser.name)
        check_denoiser(config.denoiser.name, config.regime)
        inputs = signal * (2 if config.diffusion.self_conditioning else 1)
        trunk: Denoiser = self._built(lambda: kind(inputs, signal, condition, config.denoiser))
        return trunk

    def _built(self, make: Callable[[], Any]) -> Any:
        """Return a module whose initial weights are a function of the seed alone, in its place."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return make().to(self.backbone.device)
