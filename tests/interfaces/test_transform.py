"""Changes of coordinates: what they are, that they are undone, and what must stay as it is."""

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.interfaces.hidden import HiddenOptions
from dihal_bench.interfaces.settings import Step
from dihal_bench.interfaces.transform import Transform
from dihal_bench.training.config import TrainConfig
from dihal_bench.training.trainee import TrainState
from tests.tiny import TEXT, batch_of, build, states, statistics

ALL = ["identity", "rotate", "scale:3", "spectrum:0", "spectrum:0.5", "spectrum:1"]


def of(text: str, name: str = "hidden"):
    return build(name, options=HiddenOptions(transform=text))


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("name", ["hidden", "regress", "ridge", "mean"])
def test_it_is_undone_before_the_upper_blocks(name: str, text: str) -> None:
    interface, batch = of(text, name), batch_of(TEXT)
    again = interface.hidden(interface.target(batch), batch)
    truth = batch.hidden(interface.span.b)
    assert float((again - truth).norm() / truth.norm()) < 1e-5


@pytest.mark.parametrize("text", ALL)
def test_a_coordinate_has_unit_mean_square_and_no_mean(text: str) -> None:
    _, _, upper = states(batch_of(TEXT))
    interface, batch = of(text), batch_of(TEXT)
    signal = interface.target(batch)[batch.positions > 0].double().numpy()
    assert len(signal) == len(upper)
    np.testing.assert_allclose(signal.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose((signal**2).mean(), 1, rtol=1e-4)


def test_spectra_are_as_dialled() -> None:
    covariance = statistics().covariance.double()
    before = torch.linalg.eigvalsh(covariance)
    for power in (0.0, 0.5, 1.0):
        a = Transform("spectrum", power).matrix(covariance, seed=0)
        after = torch.linalg.eigvalsh(a @ covariance @ a.mT)
        expected = before.clamp(min=1e-6 * float(before[-1])) ** (-power) * before
        np.testing.assert_allclose(after, expected.sort().values, rtol=1e-6)


def test_covariance_is_numpys() -> None:
    _, _, upper = states(batch_of(TEXT))
    expected = np.cov(upper.T, bias=True)
    np.testing.assert_allclose(statistics().covariance, expected, atol=1e-5 * expected.max())


def test_a_rotation_is_orthogonal_and_another_for_another_seed() -> None:
    covariance = statistics().covariance
    one, other = (Transform("rotate", np.nan).matrix(covariance, seed) for seed in (0, 1))
    np.testing.assert_allclose(one @ one.T, np.eye(len(one)), atol=1e-12)
    assert float((one - other).norm()) > 1


def test_scale_changes_no_digit_that_matters_and_training_neither() -> None:
    """A power of two divides out exactly: trained weights are those of the identity to the bit."""
    batch, found = batch_of(TEXT), {}
    for text in ("identity", "scale:4"):
        interface = of(text)
        trainee = TrainState("hidden", interface, TrainConfig())
        for step in range(3):
            trainee.learn(batch, Step(index=step))
            trainee.update(step, 3)
        found[text] = [p.detach().clone() for p in interface.parameters()]
    for one, other in zip(*found.values(), strict=True):
        assert torch.equal(one, other)


def test_without_a_transform_the_weights_file_is_as_before() -> None:
    assert not {"there", "back"} & set(build("hidden").state_dict())


@pytest.mark.parametrize(
    "text", ["turn", "scale", "scale:", "scale:x", "scale:0", "rotate:1", "spectrum:9", "none:1"]
)
def test_nonsense_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=f"transform {text}") as error:
        HiddenOptions(transform=text)
    assert "\n" not in str(error.value)


def test_differences_from_token_means_have_no_coordinates_to_change() -> None:
    with pytest.raises(UserError, match=r"set bridge\.residual=none"):
        build("hidden", options=HiddenOptions(transform="rotate"), residual="token-mean")
