"""Samplers recover what is known in closed form, and diffusers agrees where it is exact."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import SAMPLERS
from dihal_bench.diffusion.schedule import PREDICTIONS, Diffusion, DiffusionConfig

NAMES = SAMPLERS.names()
VARIANCE_PRESERVING = [name for name in NAMES if name != "flow"]
ALLOWED = [
    (name, output) for name in NAMES for output in PREDICTIONS if (name, output) != ("flow", "eps")
]
DETERMINISTIC = [name for name in NAMES if name != "ddpm"]
STEPS = (1, 2, 3, 4, 7, 16, 61, 64, 100)  # divisors of 1000 and others
SHAPE = (2, 3, 4)


def process(name: str, **settings: object) -> Diffusion:
    return Diffusion.create(replace(DiffusionConfig(sampler=name), **settings))


def draw(step: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def point(z: Tensor, t: Tensor) -> Tensor:
    """The posterior mean of a point mass at +-5, whatever z and t are."""
    del t
    signs = torch.ones(z.shape[-1], dtype=z.dtype)
    signs[1::2] = -1.0
    return (5.0 * signs).expand_as(z)


def gaussian(diffusion: Diffusion, mean: float, std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The posterior mean of N(mean, std^2)."""

    def estimate(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = diffusion.alpha[t], diffusion.sigma[t]
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return mean + gain * (z - alpha * mean)

    return estimate


def output_of(diffusion: Diffusion, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What a perfect network of the configured kind puts out."""
    alpha, sigma = diffusion.alpha[t][..., None], diffusion.sigma[t][..., None]
    velocity = eps - x0 if diffusion.config.sampler == "flow" else alpha * eps - sigma * x0
    return {"x0": x0, "eps": eps, "v": velocity}[diffusion.config.prediction]


# --- levels and the forward process ---------------------------------------------------------------


@pytest.mark.parametrize("total", [2, 7, 250, 1000, 1024])
def test_levels_start_at_the_last_and_are_distinct(total: int) -> None:
    diffusion = process("flow", train_steps=total)
    for steps in range(1, total + 1):
        levels = diffusion.levels(steps)
        assert len(levels) == steps
        assert levels[0] == total - 1
        assert all(a > b for a, b in itertools.pairwise([*levels, -1]))
        assert levels[-1] <= total / steps  # the last step is as long as the others
    for steps in (0, -1, total + 1):
        with pytest.raises(UserError, match=f"choose 1 to {total}"):
            diffusion.levels(steps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("betas", ["squaredcos_cap_v2", "linear", "scaled_linear"])
def test_tables(name: str, betas: str) -> None:
    diffusion = process(name, betas=betas)
    alpha, sigma = diffusion.alpha, diffusion.sigma
    assert alpha.dtype == sigma.dtype == torch.float64
    assert float(alpha[-1]) == 0.0
    assert float(sigma[-1]) == 1.0
    assert (alpha.diff() < 0).all()
    total = alpha + sigma if name == "flow" else alpha**2 + sigma**2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_loss_weight_is_the_capped_snr_with_mean_one(name: str) -> None:
    diffusion = process(name)
    levels = torch.arange(1000)
    weight = diffusion.loss_weight(levels)
    assert float(weight.mean()) == pytest.approx(1.0, abs=1e-12)
    snr = (diffusion.alpha / diffusion.sigma) ** 2
    torch.testing.assert_close(weight / weight[0], snr.clamp(max=5.0) / 5.0)
    assert float(weight[-1]) == 0.0
    assert diffusion.loss_weight(levels[:6].reshape(2, 3)).shape == (2, 3)


def test_drawn_levels_are_uniform() -> None:
    diffusion = process("ddim", train_steps=8)
    uniform = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    assert diffusion.draw_level(uniform).bincount().tolist() == [1000] * 8


@pytest.mark.parametrize("name", NAMES)
def test_corrupt_is_the_add_noise_of_diffusers(name: str) -> None:
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    x0, eps = draw(0, (5, 7, 4)), draw(1, (5, 7, 4))
    t = torch.randint(0, 1000, (5, 7), generator=torch.Generator().manual_seed(2))
    t[0, 0], t[0, 1] = 0, 999
    z = process(name).corrupt(x0, eps, t)
    flat = (x0.flatten(0, 1), eps.flatten(0, 1), t.flatten())  # (B T, D)
    if name == "flow":
        scheduler = FlowMatchEulerDiscreteScheduler()  # its time steps descend
        reference = scheduler.scale_noise(flat[0], scheduler.timesteps[999 - flat[2]], flat[1])
    else:
        scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True)
        reference = scheduler.add_noise(*flat)
    torch.testing.assert_close(z, reference.reshape(z.shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 6, 4), (1, 1, 4), (6, 1, 4), (4,)])
def test_corrupt_keeps_shape_and_dtype(name: str, shape: tuple[int, ...]) -> None:
    diffusion, t = process(name), torch.full(shape[:-1], 300)
    x0, eps = draw(0, shape), draw(1, shape)
    for dtype in (torch.float32, torch.float64):
        z = diffusion.corrupt(x0.to(dtype), eps, t)
        assert z.shape == shape
        assert z.dtype == dtype
    assert torch.equal(z, diffusion.alpha[300] * x0 + diffusion.sigma[300] * eps)


@pytest.mark.parametrize(("name", "prediction"), ALLOWED)
def test_to_x0_inverts_corrupt(name: str, prediction: str) -> None:
    diffusion = process(name, prediction=prediction, zero_terminal_snr=prediction != "eps")
    t = torch.tensor([[0, 1, 499], [900, 998, 999]])
    x0, eps = draw(0), draw(1)
    z = diffusion.corrupt(x0, eps, t)
    back = diffusion.to_x0(output_of(diffusion, x0, eps, t), z, t)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-10)
    for level in (0, 999):  # one level for all
        t = torch.tensor(level)
        z = diffusion.corrupt(x0, eps, t)
        back = diffusion.to_x0(output_of(diffusion, x0, eps, t), z, t)
        torch.testing.assert_close(back, x0, rtol=0, atol=1e-10)


# --- samplers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", STEPS)
def test_a_point_mass_is_recovered(name: str, steps: int) -> None:
    sample = process(name).sample(point, draw, steps)
    assert sample.dtype == torch.float64
    torch.testing.assert_close(sample, point(sample, torch.tensor(0)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "prediction"), ALLOWED)
@pytest.mark.parametrize("steps", [1, 7, 16])
def test_a_point_mass_is_recovered_from_every_output(
    name: str, prediction: str, steps: int
) -> None:
    diffusion = process(name, prediction=prediction, zero_terminal_snr=prediction != "eps")

    def estimate(z: Tensor, t: Tensor) -> Tensor:
        x0 = point(z, t)
        eps = (z - diffusion.alpha[t] * x0) / diffusion.sigma[t]
        return diffusion.to_x0(output_of(diffusion, x0, eps, t), z, t)

    sample = diffusion.sample(estimate, draw, steps)
    torch.testing.assert_close(sample, point(sample, torch.tensor(0)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", STEPS)
def test_the_first_evaluation_sees_pure_noise_at_the_last_level(name: str, steps: int) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def estimate(z: Tensor, t: Tensor) -> Tensor:
        seen.append((z, t))
        return torch.zeros_like(z)

    diffusion = process(name)
    diffusion.sample(estimate, draw, steps)
    assert [int(t) for _, t in seen] == diffusion.levels(steps)
    assert all(z.dtype == torch.float64 for z, _ in seen)
    assert all(z.shape == SHAPE for z, _ in seen)
    assert all(t.shape == () for _, t in seen)
    assert torch.equal(seen[0][0], draw(0))
    assert int(seen[0][1]) == 999


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("steps", [*STEPS, 1000])
def test_the_state_is_at_the_level_that_the_network_is_told(name: str, steps: int) -> None:
    diffusion = process(name)

    def estimate(z: Tensor, t: Tensor) -> Tensor:
        x0 = point(z, t)
        expected = diffusion.corrupt(x0, draw(0), t)
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-12)
        return x0

    diffusion.sample(estimate, draw, steps)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_gives_the_mean(name: str) -> None:
    diffusion = process(name)
    sample = diffusion.sample(gaussian(diffusion, 2.0, 0.7), draw, 1)
    torch.testing.assert_close(sample, torch.full_like(sample, 2.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"),
    [("ddim", 200, 0.02), ("dpm", 50, 0.005), ("euler", 200, 0.02), ("flow", 200, 0.01)],
)
def test_a_gaussian_is_reproduced(name: str, steps: int, tolerance: float) -> None:
    """The exact flow maps noise affinely to N(mean, std^2): x = mean + std * eps."""
    diffusion = process(name)
    sample = diffusion.sample(gaussian(diffusion, 2.0, 0.7), draw, steps)
    assert float((sample - (2.0 + 0.7 * draw(0))).abs().max()) < tolerance * 3
    slope = (sample - 2.0) / (0.7 * draw(0))
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=0, atol=tolerance)


def test_every_deterministic_sampler_is_covered_by_the_gaussian() -> None:
    (mark,) = test_a_gaussian_is_reproduced.pytestmark
    assert [name for name, *_ in mark.args[1]] == DETERMINISTIC


def test_ancestral_sampling_reproduces_a_gaussian() -> None:
    diffusion, shape = process("ddpm"), (20_000, 1)
    sample = diffusion.sample(gaussian(diffusion, 2.0, 0.7), lambda step: draw(step, shape), 100)
    assert float(sample.mean()) == pytest.approx(2.0, abs=5 * 0.7 / 20_000**0.5)
    assert float(sample.std()) == pytest.approx(0.7, abs=0.02)


def test_order_of_convergence() -> None:
    """Twice the steps: first order halves the error, second order quarters it."""
    ratios = {}
    for name in DETERMINISTIC:
        diffusion = process(name)
        estimate = gaussian(diffusion, 2.0, 0.7)
        errors = [
            float((diffusion.sample(estimate, draw, steps) - 2.0 - 0.7 * draw(0)).abs().max())
            for steps in (50, 100)
        ]
        ratios[name] = errors[0] / errors[1]
    assert ratios.pop("dpm") > 3.0
    for name, ratio in ratios.items():
        assert 1.7 < ratio < 2.5, name


@pytest.mark.parametrize("steps", [2, 7, 16])
def test_euler_is_ddim(steps: int) -> None:
    """In sigma / alpha the flow's Euler step is DDIM's (Song et al., 2021, section 4.3)."""
    estimate = gaussian(process("ddim"), 2.0, 0.7)
    euler, ddim = (process(name).sample(estimate, draw, steps) for name in ("euler", "ddim"))
    torch.testing.assert_close(euler, ddim, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [4, 20])
def test_diffusers_does_the_same_in_single_precision(name: str, steps: int) -> None:
    """Plainly driven, where S divides T and the terminal SNR is not zero."""
    import diffusers

    diffusion = process(name, betas="linear", zero_terminal_snr=False)
    estimate = gaussian(diffusion, 1.5, 0.7)
    common = {
        "beta_schedule": "linear",
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    scheduler = {
        "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False, **common),
        "ddpm": lambda: diffusers.DDIMScheduler(clip_sample=False, **common),
        "dpm": lambda: diffusers.DPMSolverMultistepScheduler(**common),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**common),
        "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(),
    }[name]()
    if name == "flow":
        scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    else:
        scheduler.set_timesteps(steps)
    x = draw(0).flatten(0, 1) * float(scheduler.init_noise_sigma if name == "euler" else 1.0)
    if name == "euler":  # it starts at alpha eps + sigma eps' with eps' = eps / sigma
        x = x / float(diffusion.sigma[-1] / diffusion.alpha[-1]) / float(diffusion.alpha[-1])
    for i, time in enumerate(scheduler.timesteps):
        level = round(float(time)) - (name == "flow")
        z = scheduler.scale_model_input(x, time) if name == "euler" else x
        output = estimate(z, level)
        if name == "flow":
            output = (z - output) / diffusion.sigma[level]
        extra = {"eta": 1.0, "variance_noise": draw(i + 1).flatten(0, 1)} if name == "ddpm" else {}
        x = scheduler.step(output, time, x, **extra).prev_sample
    ours = diffusion.sample(estimate, draw, steps)
    torch.testing.assert_close(ours, x.double().reshape(ours.shape), rtol=0, atol=2e-5)


def test_ancestral_sampling_is_finite_at_every_number_of_steps() -> None:
    diffusion = process("ddpm", train_steps=100)
    for steps in range(1, 101):
        assert torch.isfinite(diffusion.sample(point, draw, steps)).all(), steps


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_functions_of_their_noise(name: str) -> None:
    diffusion, steps = process(name), 5
    estimate = gaussian(diffusion, 2.0, 0.7)
    before = torch.get_rng_state()
    first = diffusion.sample(estimate, draw, steps)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(diffusion.sample(estimate, draw, steps), first)
    torch.set_rng_state(before)
    alone = diffusion.sample(estimate, lambda step: draw(step)[:1, :1], steps)
    torch.testing.assert_close(alone, first[:1, :1], rtol=0, atol=1e-14)


def test_only_ancestral_sampling_asks_for_more_noise() -> None:
    for name in NAMES:
        asked: list[int] = []

        def noise(step: int, asked: list[int] = asked) -> Tensor:
            asked.append(step)
            return draw(step)

        process(name).sample(point, noise, 4)
        assert asked == ([0, 1, 2, 3, 4] if name == "ddpm" else [0]), name


@pytest.mark.parametrize("name", NAMES)
def test_interleaved_calls_share_nothing(name: str) -> None:
    diffusion = process(name)
    inner, outer = gaussian(diffusion, -1.0, 0.3), gaussian(diffusion, 2.0, 0.7)
    separate = [diffusion.sample(estimate, draw, 6) for estimate in (outer, inner)]
    found: list[Tensor] = []

    def interrupted(z: Tensor, t: Tensor) -> Tensor:
        if len(found) < 3:
            found.append(diffusion.sample(inner, draw, 6))
        return outer(z, t)

    assert torch.equal(diffusion.sample(interrupted, draw, 6), separate[0])
    assert all(torch.equal(sample, separate[1]) for sample in found)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_eps_is_refused_at_zero_terminal_snr(name: str) -> None:
    with pytest.raises(UserError, match=r"diffusion\.prediction=eps .* choose x0 or v"):
        process(name, prediction="eps")
    if name != "flow":
        process(name, prediction="eps", zero_terminal_snr=False)


def test_flow_refuses_eps_whatever_the_setting() -> None:
    with pytest.raises(UserError, match="variance-preserving"):
        process("flow", prediction="eps", zero_terminal_snr=False)


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="no sampler called 'dddim'; did you mean 'ddim'"):
        process("dddim")
    with pytest.raises(UserError, match="prediction=noise is unknown; choose one of x0, eps, v"):
        DiffusionConfig(prediction="noise")
    with pytest.raises(UserError, match=r"betas=cosine is unknown .* choose squaredcos_cap_v2"):
        process("ddim", betas="cosine")
    with pytest.raises(UserError, match="train_steps=1 must be 2 or more"):
        DiffusionConfig(train_steps=1)


def test_the_network_sees_the_best_linear_estimate_of_a_unit_signal() -> None:
    """Its error is uncorrelated with z at every level; pure noise is not seen at all."""
    diffusion = Diffusion.create(DiffusionConfig())
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 20_000, 1, dtype=torch.float64, generator=generator)
    for level in (0, 300, 700):
        t = torch.full((20_000,), level)
        z = diffusion.corrupt(x0, eps, t)
        assert abs(float((z * (x0 - diffusion.network_input(z, t))).mean())) < 0.03
    last = torch.full((20_000,), diffusion.terminal)
    assert float(diffusion.network_input(eps, last).abs().max()) == 0.0
