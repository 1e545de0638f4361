"""The forward process and its samplers, on diffusers' schedulers with their defaults corrected.

diffusers clips samples to [-1, 1] and starts DDIM at 875 of 1000 steps unless told otherwise; here
nothing is clipped, sampling starts at pure noise (zero terminal SNR, trailing spacing; Lin et al.,
2024), every call gets a fresh scheduler, and the network's output reaches it as an estimate of x0
whatever the network predicts (flow matching's Euler step takes only velocities, so x0 is converted).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dihal_bench.errors import UserError
from dihal_bench.registry import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Callable

PREDICTIONS = ("x0", "eps", "v")
_SNR_CAP = 5.0  # Hang et al., 2023 (min-SNR weighting)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The diffusion process.

    Attributes:
        sampler: registered name; it decides the path (variance-preserving or flow) as well.
        betas: variance-preserving schedule, a name of diffusers' ("squaredcos_cap_v2", "linear", ...).
        train_steps: number T of discrete noise levels.
        prediction: what the network puts out: "x0", "eps" or "v" (on the flow path the velocity).
        zero_terminal_snr: level T is pure noise; eps-prediction is undefined there and refused.
    """

    sampler: str = "ddim"
    betas: str = "squaredcos_cap_v2"
    train_steps: int = 1000
    prediction: str = "x0"
    zero_terminal_snr: bool = True

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise UserError(
                f"diffusion.prediction={self.prediction} is unknown; choose one of {', '.join(PREDICTIONS)}."
            )


class Diffusion(ABC):
    """A forward process z = alpha_t x0 + sigma_t eps with levels t in {0, ..., T-1}, and its sampler."""

    def __init__(self, config: DiffusionConfig):
        self.config = config
        self.terminal = config.train_steps - 1
        self.alpha, self.sigma = self._levels()  # float64 [T]
        if config.prediction == "eps" and float(self.alpha[-1]) < 1e-6:
            raise UserError(
                "diffusion.prediction=eps cannot recover x0 from pure noise; choose x0 or v, or set "
                "diffusion.zero_terminal_snr=false with a variance-preserving sampler."
            )
        weight = torch.clamp((self.alpha / self.sigma) ** 2, max=_SNR_CAP)
        self.weight = weight / weight.mean()  # [T]

    @staticmethod
    def create(config: DiffusionConfig) -> Diffusion:
        """Build the process that ``config.sampler`` names."""
        process: Diffusion = SAMPLERS.get(config.sampler)(config)
        return process

    def draw_level(self, uniform: Tensor) -> Tensor:
        """Map numbers in (0, 1) to levels, int64, the same shape."""
        return (uniform * self.config.train_steps).long()

    def corrupt(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return z at levels ``t``.

        Args:
            x0: clean signal, [..., D].
            eps: standard normal noise, [..., D].
            t: int64 levels, [...], one per row.
        """
        return self._at(self.alpha, t, x0) * x0 + self._at(self.sigma, t, x0) * eps.to(x0.dtype)

    def to_x0(self, output: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Turn the network's output [..., D] at levels ``t`` [...] into an estimate of x0."""
        if self.config.prediction == "x0":
            return output
        return self._solve(output, z, self._at(self.alpha, t, z), self._at(self.sigma, t, z))

    def loss_weight(self, t: Tensor) -> Tensor:
        """Return min(SNR, 5), normalised to mean one over the levels, at ``t`` [...]."""
        return self.weight.to(t.device)[t]

    def sample(
        self, estimate: Callable[[Tensor, Tensor], Tensor], noise: Callable[[int], Tensor], steps: int
    ) -> Tensor:
        """Run the reverse process from pure noise.

        Args:
            estimate: (z [..., D], t int64 []) -> estimate of x0 [..., D].
            noise: step -> standard normal noise [..., D], float64; step 0 is the start, step i >= 1 is
                what a stochastic sampler adds at its i-th step.
            steps: number of network evaluations S; the first is at t = T - 1.

        Returns:
            The sample, float64 [..., D].
        """
        scheduler = self._scheduler(steps)
        x = noise(0).double() * float(getattr(scheduler, "init_noise_sigma", 1.0))
        shape = x.shape
        x = x.reshape(-1, shape[-1])  # diffusers reads a leading axis as the batch
        for i, time in enumerate(scheduler.timesteps):
            z = self._model_input(scheduler, x, time)
            level = self._level_of(time).to(x.device)
            x0 = estimate(z.reshape(shape), level).double().reshape(x.shape)
            extra = self._step_noise(noise, i + 1, x.shape)
            x = scheduler.step(self._scheduler_output(x0, z, level), time, x, **extra).prev_sample
        return x.reshape(shape)

    @staticmethod
    def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
        return table.to(device=t.device)[t][..., None].to(like.dtype)

    @abstractmethod
    def _levels(self) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _solve(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor: ...

    @abstractmethod
    def _scheduler(self, steps: int) -> Any: ...

    def _model_input(self, scheduler: Any, x: Tensor, time: Tensor) -> Tensor:
        del scheduler, time
        return x

    def _scheduler_output(self, x0: Tensor, z: Tensor, level: Tensor) -> Tensor:
        del z, level
        return x0

    def _level_of(self, time: Tensor) -> Tensor:
        return time.round().long()

    def _step_noise(
        self, noise: Callable[[int], Tensor], step: int, shape: torch.Size
    ) -> dict[str, Any]:
        del noise, step, shape
        return {}


class _VariancePreserving(Diffusion):
    """alpha^2 + sigma^2 = 1, from diffusers' beta schedules."""

    def _arguments(self) -> dict[str, Any]:
        return {
            "num_train_timesteps": self.config.train_steps,
            "beta_schedule": self.config.betas,
            "prediction_type": "sample",
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": self.config.zero_terminal_snr,
        }

    def _levels(self) -> tuple[Tensor, Tensor]:
        from diffusers import DDIMScheduler

        table = DDIMScheduler(clip_sample=False, **self._arguments()).alphas_cumprod.double()
        return table.sqrt(), (1 - table).sqrt()

    def _solve(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.config.prediction == "eps":
            return (z - sigma * output) / alpha
        return alpha * z - sigma * output


@SAMPLERS.register("ddim")
class DDIM(_VariancePreserving):
    """DDIM (Song et al., 2021), deterministic."""

    eta = 0.0

    def _scheduler(self, steps: int) -> Any:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(clip_sample=False, thresholding=False, **self._arguments())
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.set_timesteps(steps)
        return scheduler

    def _step_noise(
        self, noise: Callable[[int], Tensor], step: int, shape: torch.Size
    ) -> dict[str, Any]:
        if not self.eta:
            return {}
        return {"eta": self.eta, "variance_noise": noise(step).double().reshape(shape)}


@SAMPLERS.register("ddpm")
class DDPM(DDIM):
    """Ancestral sampling (Ho et al., 2020): DDIM's family at eta = 1, whose noise can be handed in."""

    eta = 1.0


@SAMPLERS.register("dpm")
class DPM(_VariancePreserving):
    """DPM-Solver++ (Lu et al., 2022), second order, deterministic."""

    def _scheduler(self, steps: int) -> Any:
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(thresholding=False, **self._arguments())
        scheduler.set_timesteps(steps)
        return scheduler


@SAMPLERS.register("euler")
class Euler(_VariancePreserving):
    """Euler steps of the probability-flow ODE in sigma (Karras et al., 2022)."""

    def _scheduler(self, steps: int) -> Any:
        from diffusers import EulerDiscreteScheduler

        scheduler = EulerDiscreteScheduler(**self._arguments())
        scheduler.set_timesteps(steps)
        return scheduler

    def _model_input(self, scheduler: Any, x: Tensor, time: Tensor) -> Tensor:
        scaled: Tensor = scheduler.scale_model_input(x, time)
        return scaled


@SAMPLERS.register("flow")
class Flow(Diffusion):
    """Rectified flow (Liu et al., 2023): alpha = 1 - sigma, Euler steps of equal length."""

    def _levels(self) -> tuple[Tensor, Tensor]:
        sigma = torch.arange(1, self.config.train_steps + 1, dtype=torch.float64) / self.config.train_steps
        return 1 - sigma, sigma

    def _solve(self, output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.config.prediction == "eps":
            return (z - sigma * output) / alpha
        return z - sigma * output

    def _scheduler(self, steps: int) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.config.train_steps)
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
        return scheduler

    def _scheduler_output(self, x0: Tensor, z: Tensor, level: Tensor) -> Tensor:
        return (z - x0) / self.sigma.to(z.device)[level]

    def _level_of(self, time: Tensor) -> Tensor:
        return (time.round().long() - 1).clamp(0, self.terminal)
