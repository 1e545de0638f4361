"""The forward process and its samplers, on diffusers' schedulers with their defaults corrected.

diffusers clips samples to [-1, 1] and starts DDIM at 875 of 1000 steps unless told otherwise; here
nothing is clipped, sampling starts at pure noise (zero terminal SNR, trailing spacing; Lin et al.,
2024), every call gets a fresh scheduler, and the network's output reaches it as an estimate of x0
whatever the network predicts. Two more of its habits are worked around: DDIM takes T // S for the
distance between levels, which misses them unless S divides T, and all but DDIM keep tables and the
state in float32. So a scheduler's table is the visited levels, just these, in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dihal_bench.core.configurable import Configurable
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PREDICTIONS = ("x0", "eps", "v")
_BLIND = 1e-12  # the largest share of the signal's amplitude in what counts as pure noise
_SNR_CAP = 5.0  # Hang et al., 2023 (min-SNR weighting)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The diffusion process.

    Attributes:
        sampler: registered name; it decides the path (variance-preserving or flow) as well.
        betas: variance-preserving schedule by diffusers' name ("squaredcos_cap_v2", "linear", ...).
        train_steps: number T of discrete noise levels.
        prediction: what the network puts out: "x0", "eps" or "v" (on the flow path the velocity).
        self_conditioning: the network sees its previous estimate beside z, in half of the windows
            while training and always while sampling (Chen et al., 2022).
        zero_terminal_snr: level T is pure noise; eps-prediction is undefined there and refused.
        options: the sampler's own settings, of its ``Options``; None: their defaults. As keys they
            are diffusion.NAME.key.
    """

    sampler: str = "ddim"
    betas: str = "squaredcos_cap_v2"
    train_steps: int = 1000
    prediction: str = "x0"
    zero_terminal_snr: bool = True
    self_conditioning: bool = False
    options: Any = None

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise UserError(
                f"diffusion.prediction={self.prediction} is unknown; "
                f"choose one of {', '.join(PREDICTIONS)}."
            )
        if self.train_steps < 2:
            raise UserError(f"diffusion.train_steps={self.train_steps} must be 2 or more.")


@dataclass(frozen=True)
class LevelTables:
    """Numbers per level, float64 [T] each.

    Attributes:
        alpha: of the signal.
        sigma: of the noise.
        weight: of the loss.
    """

    alpha: Tensor
    sigma: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> LevelTables:
        """Return them on a device."""
        return LevelTables(*(own.to(device) for own in (self.alpha, self.sigma, self.weight)))


@dataclass(frozen=True)
class Place:
    """A point of the path that a sampler visits: z = alpha x0 + sigma eps."""

    level: int
    alpha: float
    sigma: float


CLEAN = Place(-1, 1.0, 0.0)


class Diffusion(Configurable, ABC):
    """A forward process z = alpha_t x0 + sigma_t eps, t in {0, ..., T-1}, and its sampler."""

    def __init__(self, config: DiffusionConfig):
        self.config = config
        self.options = self.with_defaults(config.options)
        self.terminal = config.train_steps - 1
        self.alpha, self.sigma = self._levels()  # float64 [T]
        if config.prediction == "eps" and float(self.alpha[-1]) < 1e-6:
            raise UserError(
                "diffusion.prediction=eps cannot recover x0 from pure noise; choose x0 or v, or "
                "set diffusion.zero_terminal_snr=false with a variance-preserving sampler."
            )
        weight = torch.clamp((self.alpha / self.sigma) ** 2, max=_SNR_CAP)
        self.weight = weight / weight.mean()  # [T]
        self._tables: dict[torch.device, LevelTables] = {}

    @staticmethod
    def create(config: DiffusionConfig) -> Diffusion:
        """Build the process that ``config.sampler`` names."""
        process: Diffusion = SAMPLERS.get(config.sampler)(config)
        return process

    @property
    def blind_start(self) -> bool:
        """Whether the first estimate of a chain depends on no noise: one-step chains are equal."""
        return float(self.alpha[-1]) < _BLIND and self.config.prediction == "x0"

    def draw_level(self, uniform: Tensor) -> Tensor:
        """Map numbers in (0, 1) to levels, int64, the same shape."""
        return (uniform * self.config.train_steps).long()

    def levels(self, steps: int) -> list[int]:
        """Return the levels of ``steps`` evaluations, from T - 1 downwards (trailing spacing).

        Raises:
            UserError: there are not that many levels.
        """
        total = self.config.train_steps
        if not 1 <= steps <= total:
            raise UserError(
                f"{steps} network evaluations do not fit diffusion.train_steps={total}; "
                f"choose 1 to {total}."
            )
        return [round(total * left / steps) - 1 for left in range(steps, 0, -1)]

    def corrupt(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return z at levels ``t``.

        Args:
            x0: clean signal, [..., D].
            eps: standard normal noise, [..., D].
            t: int64 levels, [...], one per row.
        """
        alpha, sigma = self._at(t, x0)
        return alpha * x0 + sigma * eps.to(x0.dtype)

    def to_x0(self, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Turn the network's output [..., D] at levels ``t`` [...] into an estimate of x0."""
        if self.config.prediction == "x0":
            return output
        return self._solve(output, z, *self._at(t, z))

    def network_input(self, z: Tensor, t: Tensor) -> Tensor:
        """Return what the network sees of z [..., D] at levels ``t`` [...] or [].

        That is the best linear estimate of a signal of unit variance,
        alpha z / (alpha^2 + sigma^2): pure noise, which says nothing, does not reach the network.
        """
        alpha, sigma = self._at(t, z)
        return alpha / (alpha**2 + sigma**2) * z

    def loss_weight(self, t: Tensor) -> Tensor:
        """Return min(SNR, 5), normalised to mean one over the levels, at ``t`` [...]."""
        return self._on(t.device).weight.take(t)

    def sample(
        self,
        estimate: Callable[[Tensor, Tensor], Tensor],
        noise: Callable[[int], Tensor],
        steps: int,
    ) -> Tensor:
        """Run the reverse process from pure noise.

        Args:
            estimate: (z [..., D], t int64 []) -> estimate of x0 [..., D].
            noise: step -> standard normal noise [..., D], float64; step 0 is the start, step i >= 1
                is what a stochastic sampler adds at its i-th step.
            steps: number of network evaluations S; the first is at t = T - 1.

        Returns:
            The sample, float64 [..., D].
        """
        path = [Place(t, float(self.alpha[t]), float(self.sigma[t])) for t in self.levels(steps)]
        path.append(CLEAN)
        scheduler = self._scheduler(path)
        z = noise(0).double()
        shape = z.shape
        z = z.reshape(-1, shape[-1])  # diffusers reads a leading axis as the batch
        for i, place in enumerate(path[:-1]):
            level = torch.full((), place.level, device=z.device)
            x0 = estimate(z.reshape(shape), level).double().reshape(z.shape)
            z = self._step(scheduler, path, i, z, x0, noise)
        return z.reshape(shape)

    def _step(
        self,
        scheduler: Any,
        path: Sequence[Place],
        index: int,
        z: Tensor,
        x0: Tensor,
        noise: Callable[[int], Tensor],
    ) -> Tensor:
        """Go from ``path[index]`` to the next place, in float64.

        A deterministic step is linear, with the factor sigma'/sigma on the state. diffusers rounds
        the state, not the estimate, to float32: it steps from zero, and the rest is added here.
        """
        del noise
        now, then = path[index], path[index + 1]
        output, time = self._scheduler_output(x0, now, then), scheduler.timesteps[index]
        share: Tensor = scheduler.step(output, time, torch.zeros_like(z)).prev_sample
        return share + then.sigma / now.sigma * z

    def _at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma at levels ``t`` [...], [..., 1] each."""
        tables = self._on(t.device)
        alpha, sigma = tables.alpha.take(t), tables.sigma.take(t)
        return alpha[..., None].to(like.dtype), sigma[..., None].to(like.dtype)

    def _on(self, device: torch.device) -> LevelTables:
        """Return the tables on a device, where they are copied once.

        An accelerator's index into tables of the host, or ``table[t]`` of one level, would make the
        host wait in every step.
        """
        if device not in self._tables:
            self._tables[device] = LevelTables(self.alpha, self.sigma, self.weight).to(device)
        return self._tables[device]

    @abstractmethod
    def _levels(self) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _solve(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def _scheduler(self, path: Sequence[Place]) -> Any:
        """Return a fresh scheduler whose time steps are the places of ``path`` but the last."""

    def _scheduler_output(self, x0: Tensor, now: Place, then: Place) -> Tensor:
        """Return what the scheduler wants for the network's output in a step from zero."""
        del now, then
        return x0


class _VariancePreserving(Diffusion):
    """alpha^2 + sigma^2 = 1, from diffusers' beta schedules."""

    def _levels(self) -> tuple[Tensor, Tensor]:
        from diffusers import DDIMScheduler

        try:
            table = DDIMScheduler(
                num_train_timesteps=self.config.train_steps,
                beta_schedule=self.config.betas,
                rescale_betas_zero_snr=self.config.zero_terminal_snr,
            ).alphas_cumprod.double()
        except NotImplementedError as error:
            raise UserError(
                f"diffusion.betas={self.config.betas} is unknown to diffusers; choose "
                "squaredcos_cap_v2, linear or scaled_linear."
            ) from error
        return table.sqrt(), (1 - table).sqrt()

    def _solve(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.config.prediction == "eps":
            return (z - sigma * output) / alpha
        return alpha * z - sigma * output


@SAMPLERS.register("ddim")
class DDIM(_VariancePreserving):
    """DDIM (Song et al., 2021), deterministic."""

    eta = 0.0
    floor = 0.0  # of alpha^2

    def _scheduler(self, path: Sequence[Place]) -> Any:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(
            num_train_timesteps=len(path) - 1,
            prediction_type="sample",
            timestep_spacing="trailing",
            clip_sample=False,
        )
        ascending = [max(place.alpha**2, self.floor) for place in reversed(path[:-1])]
        scheduler.alphas_cumprod = torch.tensor(ascending, dtype=torch.float64)
        scheduler.set_timesteps(len(path) - 1)
        return scheduler

    def _step(
        self,
        scheduler: Any,
        path: Sequence[Place],
        index: int,
        z: Tensor,
        x0: Tensor,
        noise: Callable[[int], Tensor],
    ) -> Tensor:
        """Go to the next place; this scheduler computes in the state's own dtype."""
        del path
        extra: dict[str, Any] = {}
        if self.eta:
            extra = {"eta": self.eta, "variance_noise": noise(index + 1).double().reshape(z.shape)}
        out: Tensor = scheduler.step(x0, scheduler.timesteps[index], z, **extra).prev_sample
        return out


@SAMPLERS.register("ddpm")
class DDPM(DDIM):
    """Ancestral sampling (Ho et al., 2020): DDIM at eta = 1, where the noise can be handed in."""

    eta = 1.0
    floor = 2.0**-40  # at zero, what remains of the variance cancels and its root may be NaN


@SAMPLERS.register("dpm")
class DPM(_VariancePreserving):
    """DPM-Solver++ (Lu et al., 2022), second order, deterministic."""

    def _scheduler(self, path: Sequence[Place]) -> Any:
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=len(path) - 1, prediction_type="sample"
        )
        scheduler.set_timesteps(timesteps=_descending(path))
        scheduler.sigmas = _ratios(path)
        return scheduler


@SAMPLERS.register("euler")
class Euler(_VariancePreserving):
    """Euler steps of the probability-flow ODE in sigma / alpha (Karras et al., 2022)."""

    def _scheduler(self, path: Sequence[Place]) -> Any:
        from diffusers import EulerDiscreteScheduler

        scheduler = EulerDiscreteScheduler(
            num_train_timesteps=len(path) - 1, prediction_type="sample"
        )
        scheduler.set_timesteps(timesteps=_descending(path))
        scheduler.sigmas = _ratios(path)
        scheduler.is_scale_input_called = True  # z is in the network's scale already
        return scheduler

    def _scheduler_output(self, x0: Tensor, now: Place, then: Place) -> Tensor:
        del now
        return then.alpha * x0  # its state is z / alpha, ours is z


@SAMPLERS.register("flow")
class Flow(Diffusion):
    """Rectified flow (Liu et al., 2023): alpha = 1 - sigma, Euler steps."""

    def _levels(self) -> tuple[Tensor, Tensor]:
        total = self.config.train_steps
        sigma = torch.arange(1, total + 1, dtype=torch.float64) / total
        return 1 - sigma, sigma

    def _solve(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.config.prediction == "eps":
            return (z - sigma * output) / alpha
        return z - sigma * output

    def _scheduler(self, path: Sequence[Place]) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.config.train_steps)
        sigmas = [place.sigma for place in path]
        scheduler.set_timesteps(sigmas=sigmas[:-1])
        scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
        return scheduler

    def _scheduler_output(self, x0: Tensor, now: Place, then: Place) -> Tensor:
        del then
        return -x0 / now.sigma  # it takes velocities only, (z - x0) / sigma; here z = 0


def _descending(path: Sequence[Place]) -> list[int]:
    """Return the time steps of the places of ``path`` but the last: indices of the visited."""
    return list(range(len(path) - 2, -1, -1))


def _ratios(path: Sequence[Place]) -> Tensor:
    """Return sigma / alpha per place, float64; for pure noise so large that it has no weight."""
    ratios = [place.sigma / max(place.alpha, 2.0**-500) for place in path]
    return torch.tensor(ratios, dtype=torch.float64)
