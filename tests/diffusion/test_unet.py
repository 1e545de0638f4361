"""The U-Net denoiser: its attention against diffusers' own, its size, its frozen autoencoder."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dihal_bench.core.errors import UserError
from dihal_bench.diffusion.denoisers import DenoiserConfig, TransformerDenoiser
from dihal_bench.diffusion.layout import Layout
from dihal_bench.diffusion.unet import UNetDenoiser, UNetOptions, cross_attentions

SIGNAL, CONDITION = 6, 5
POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 5]])
CONFIG = DenoiserConfig(width=16, heads=2, context_layers=1, layers=1)


def denoiser_of(config: DenoiserConfig = CONFIG) -> UNetDenoiser:
    """A denoiser of float64 parameters drawn anew; its output starts at zero otherwise."""
    denoiser = UNetDenoiser(SIGNAL, SIGNAL, CONDITION, config).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    return denoiser


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


Z, T = drawn(*POSITIONS.shape, SIGNAL), torch.linspace(0.1, 1.0, POSITIONS.numel()).view(2, -1)
C = drawn(*POSITIONS.shape, CONDITION)


@torch.no_grad()
def run(denoiser: UNetDenoiser, condition: Tensor = C) -> Tensor:
    out: Tensor = denoiser(Z, T, denoiser.encode(condition, Layout(POSITIONS)))
    return out


@torch.no_grad()
def expanded_run(denoiser: UNetDenoiser, hidden: float, condition: Tensor = C) -> Tensor:
    """The same by diffusers' own attention, over a copy of the context for every image.

    ``hidden`` stands in the mask where a key is hidden; diffusers adds (1 - mask) * -10000, so 0
    is what it is meant for, and -inf hides strictly.
    """
    seen: list[Tensor] = []
    first = cross_attentions(denoiser.unet)[0]
    with first.to_k.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        context = denoiser.encode(condition, Layout(POSITIONS))
    images = POSITIONS.numel()
    keys = seen[0][:, None].expand(-1, POSITIONS.shape[1], -1, -1).reshape(images, -1, CONFIG.width)
    visible = context.mask.reshape(images, -1)
    mask = torch.where(visible, 1.0, torch.tensor(hidden, dtype=torch.float64))
    plain = copy.deepcopy(denoiser)
    plain.unet.set_attn_processor(AttnProcessor2_0())
    given = plain.embed_signal(Z).reshape(context.image.shape) + context.image
    out = plain.unet(given, 1000 * T.flatten(), keys, encoder_attention_mask=mask).sample
    result: Tensor = plain.head(out.reshape(*POSITIONS.shape, -1))
    return result


def test_it_is_diffusers_attention_with_a_strict_mask() -> None:
    denoiser = denoiser_of()
    expected = expanded_run(denoiser, hidden=-torch.inf)
    torch.testing.assert_close(run(denoiser), expected, rtol=0, atol=1e-12)


def test_every_image_sees_the_null_key_and_its_past() -> None:
    mask = denoiser_of().encode(C, Layout(POSITIONS)).mask
    assert mask.dtype == torch.bool
    assert mask[..., 0].all()
    assert torch.equal(mask[..., 1:], Layout(POSITIONS).context_mask())


def test_the_null_key_is_heard() -> None:
    denoiser = denoiser_of()
    before = run(denoiser)
    denoiser.null.data += 0.1
    assert ((run(denoiser) - before).abs().amax(-1) > 1e-6).all()


def future_influence(run_it: Callable[..., Tensor], denoiser: UNetDenoiser) -> float:
    """By how much anything moves when the last condition of the second row does, but its place."""
    changed = C.clone()
    changed[1, -1] += 1
    moved = (run_it(denoiser, condition=changed) - run_it(denoiser, condition=C)).abs().amax(-1)
    moved[1, -1] = 0
    return float(moved.max())


def test_large_activations_leak_through_an_additive_mask_and_not_through_ours() -> None:
    def additive(denoiser: UNetDenoiser, condition: Tensor) -> Tensor:
        return expanded_run(denoiser, hidden=0.0, condition=condition)

    denoiser = denoiser_of()
    with torch.no_grad():
        for name, parameter in denoiser.unet.named_parameters():
            if "transformer_blocks" in name and name.endswith("norm2.weight"):
                parameter.fill_(1.0)  # as it starts
    for scale, leaks in {1.0: False, 1e4: True}.items():
        denoiser.context_norm.weight.data.fill_(scale)
        assert (future_influence(additive, denoiser) > 1e-3) is leaks
        assert future_influence(run, denoiser) == 0


def test_keys_and_values_are_computed_once_per_sequence() -> None:
    denoiser, calls = denoiser_of(), {"keys": 0, "queries": 0, "encoder": 0}

    def counted(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            calls[name] += 1

        return count

    attentions = cross_attentions(denoiser.unet)
    for attention in attentions:
        attention.to_k.register_forward_hook(counted("keys"))
        attention.to_v.register_forward_hook(counted("keys"))
        attention.to_q.register_forward_hook(counted("queries"))
    denoiser.encoder.register_forward_hook(counted("encoder"))
    context = denoiser.encode(C, Layout(POSITIONS))
    rows, length = POSITIONS.shape
    for keys, values in context.keys_values:
        assert keys.shape == values.shape
        assert (keys.shape[0], keys.shape[2]) == (rows, 1 + length)
    for _ in range(3):
        denoiser(Z, T, context)
    count = len(attentions)
    assert calls == {"keys": 2 * count, "queries": 3 * count, "encoder": 1}


@pytest.mark.parametrize(
    ("image", "widths"),
    [((8, 4), (16, 48)), ((4, 3), (16, 32, 32)), ((2, 1), (8,)), ((3, 2), (24,))],
)
def test_all_sizes_learn(image: tuple[int, int], widths: tuple[int, ...]) -> None:
    options = UNetOptions(image=image, widths=widths)
    denoiser = denoiser_of(DenoiserConfig(width=16, heads=2, layers=1, options=options))
    denoiser(Z, T, denoiser.encode(C, Layout(POSITIONS))).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_it_has_the_shape_of_stable_diffusion() -> None:
    """At its sizes it has exactly the 859,520,964 parameters of Stable Diffusion 1.5's U-Net."""
    options = UNetOptions(image=(4, 32), widths=(320, 640, 1280, 1280))
    config = DenoiserConfig(width=768, heads=12, context_layers=0, layers=2, options=options)
    with torch.device("meta"):
        denoiser = UNetDenoiser(4096, 4096, 8, config)
    assert sum(p.numel() for p in denoiser.unet.parameters()) == 859_520_964
    assert {attention.heads for attention in cross_attentions(denoiser.unet)} == {8}
    assert denoiser.unet.config.norm_num_groups == 32
    assert denoiser.embed_signal.weight.shape == (4096, 4096)  # 4 x 32 x 32 is the state's size


def test_by_default_it_is_about_as_large_as_the_transformer() -> None:
    sizes = [
        sum(p.numel() for p in kind(128, 128, 128, DenoiserConfig()).parameters())
        for kind in (UNetDenoiser, TransformerDenoiser)
    ]
    assert abs(sizes[0] / sizes[1] - 1) < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": (8,)}, r"denoiser\.sd-unet\.image=8 must be channels and side, such as 8,4\."),
        ({"image": (8, 0)}, r"denoiser\.sd-unet\.image=8,0 must be"),
        ({"widths": (16, 20)}, r"denoiser\.sd-unet\.widths=16,20 must be multiples of 8"),
        ({"widths": ()}, r"denoiser\.sd-unet\.widths= must be multiples of 8"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        UNetOptions(**settings)


# --- the frozen autoencoder -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny autoencoder of random weights: 3 x 8 x 8 images, 2 x 4 x 4 latents."""
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=2,
        norm_num_groups=2,
        shift_factor=0.25,
    ).save_pretrained(folder)
    return folder


def config_with(vae: Path, image: tuple[int, int] = (2, 4)) -> DenoiserConfig:
    options = UNetOptions(image=image, widths=(16,), vae=str(vae))
    return DenoiserConfig(width=16, heads=2, context_layers=1, layers=1, options=options)


def test_the_unet_works_on_the_scaled_latents_of_the_frozen_autoencoder(vae: Path) -> None:
    denoiser, reference = denoiser_of(config_with(vae)), AutoencoderKL.from_pretrained(vae).double()
    context, seen = denoiser.encode(C, Layout(POSITIONS)), []
    denoiser.unet.register_forward_hook(lambda _, given, out: seen.append((given[0], out.sample)))
    with torch.no_grad():
        out = denoiser(Z, T, context)
        images = denoiser.embed_signal(Z).reshape(-1, 3, 8, 8)
        latents = (reference.encode(images).latent_dist.mode() - 0.25) * 0.18215
        decoded = reference.decode(seen[0][1] / 0.18215 + 0.25).sample
        expected = denoiser.head(decoded.reshape(*POSITIONS.shape, -1))
    torch.testing.assert_close(seen[0][0], latents + context.image, rtol=0, atol=1e-12)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_the_autoencoder_is_frozen(vae: Path) -> None:
    denoiser = denoiser_of(config_with(vae)).train().requires_grad_(True)
    model = denoiser.vae.model if denoiser.vae else nn.Module()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert before
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    own, frozen = {id(p) for p in denoiser.parameters()}, {id(p) for p in model.parameters()}
    assert not own & frozen
    assert not any("vae" in name for name in denoiser.state_dict())
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=1.0)
    denoiser(Z, T, denoiser.encode(C, Layout(POSITIONS))).square().sum().backward()
    assert denoiser.embed_signal.weight.grad is not None  # through the frozen encoder
    assert denoiser.embed_signal.weight.grad.abs().max() > 0
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_autoencoder_moves_and_is_copied_with_the_trunk(vae: Path) -> None:
    denoiser = UNetDenoiser(SIGNAL, SIGNAL, CONDITION, config_with(vae))
    other = copy.deepcopy(denoiser).double()
    assert denoiser.vae is not None
    assert other.vae is not None
    assert {p.dtype for p in denoiser.vae.model.parameters()} == {torch.float32}
    assert {p.dtype for p in other.vae.model.parameters()} == {torch.float64}


def test_initial_weights_are_the_same_with_and_without_an_autoencoder(vae: Path) -> None:
    def unet_of(config: DenoiserConfig) -> dict[str, Tensor]:
        torch.manual_seed(7)
        state: dict[str, Tensor] = UNetDenoiser(6, 6, 5, config).unet.state_dict()
        return state

    with_vae = config_with(vae)
    plain = replace(with_vae, options=replace(with_vae.options, vae=""))
    expected = unet_of(plain)
    for name, value in unet_of(with_vae).items():
        assert torch.equal(value, expected[name]), name


class Rebuilt:
    """An autoencoder whose round trip is known: it gives back ``share`` of the image."""

    def __init__(self, share: float):
        self.share = share
        self.model = SimpleNamespace(_apply=lambda *_: None)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return self.share * latents


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_what_a_round_trip_loses(vae: Path, share: float) -> None:
    """Without a bias, share c of the image is share c of the state: (1 - c)^2 of it is lost."""
    denoiser = denoiser_of(config_with(vae))
    denoiser.vae = Rebuilt(share)  # type: ignore[assignment]
    denoiser.embed_signal.bias.data.zero_()
    states = Z.reshape(-1, SIGNAL)
    states = states - states.mean(0)
    assert denoiser.vae_fvu(states) == pytest.approx((1 - share) ** 2, abs=1e-12)


def test_a_random_autoencoder_loses_nearly_everything(vae: Path) -> None:
    assert denoiser_of(config_with(vae)).vae_fvu(drawn(200, SIGNAL)) > 0.5


def test_latents_of_another_size_are_refused(vae: Path) -> None:
    with pytest.raises(UserError, match=r"image=8,4 does not fit .* give 2,4\."):
        UNetDenoiser(SIGNAL, SIGNAL, CONDITION, config_with(vae, image=(8, 4)))


def copied(vae: Path, folder: Path, without: str = "") -> Path:
    folder.mkdir()
    for file in vae.iterdir():
        if file.name != without:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        UNetDenoiser(SIGNAL, SIGNAL, CONDITION, config_with(folder))
    message = str(caught.value)
    assert message.startswith(f"denoiser.sd-unet.vae={folder} ")
    assert message.endswith(": give a folder made by AutoencoderKL.save_pretrained, or a hub id.")
    assert "\n" not in message
    return message


def test_an_autoencoder_that_cannot_be_had_is_refused(vae: Path, tmp_path: Path) -> None:
    assert "is no folder" in refusal(tmp_path / "nowhere")
    assert "is no folder" in refusal(vae / "config.json")
    assert "config.json" in refusal(copied(vae, tmp_path / "a", without="config.json"))


def test_only_safetensors_are_read(vae: Path, tmp_path: Path) -> None:
    folder = copied(vae, tmp_path / "pickled", without="diffusion_pytorch_model.safetensors")
    weights = load_file(vae / "diffusion_pytorch_model.safetensors")
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    assert "cannot be read" in refusal(folder)


def test_incomplete_or_unfit_weights_are_refused(vae: Path, tmp_path: Path) -> None:
    name = "diffusion_pytorch_model.safetensors"
    short = copied(vae, tmp_path / "short")
    weights = load_file(vae / name)
    del weights["decoder.conv_in.bias"]
    save_file(weights, short / name, metadata={"format": "pt"})
    assert "lacks 1 weights of its configuration, such as decoder.conv_in.bias" in refusal(short)
    unfit = copied(vae, tmp_path / "unfit")
    described = json.loads((unfit / "config.json").read_text())
    (unfit / "config.json").write_text(json.dumps({**described, "latent_channels": 3}))
    assert "cannot be read" in refusal(unfit)
    broken = copied(vae, tmp_path / "broken")
    (broken / name).write_bytes(b"nothing")
    assert "cannot be read" in refusal(broken)
