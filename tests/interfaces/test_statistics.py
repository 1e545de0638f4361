"""Closed-form statistics of a span against numpy and scikit-learn, and look-ups made of them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from dihal_bench.interfaces.statistics import SpanStatistics

from ..tiny import (
    BOS,
    PROBE,
    SPAN,
    TEXT,
    VOCABULARY,
    backbone,
    batch_of,
    build,
    logits_of,
    states,
    statistics,
)

LOOK_UPS = ("token-mean", "ridge", "mean", "identity")


# --- statistics -----------------------------------------------------------------------------------


def test_means_and_deviations() -> None:
    _, x, y = states(batch_of(TEXT))
    found = statistics()
    np.testing.assert_allclose(found.mean, y.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.std, y.std(0), rtol=1e-5)
    np.testing.assert_allclose(found.condition_mean, x.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.condition_std, x.std(0), rtol=1e-5)
    assert float(found.tokens) == len(y)


def test_ridge_is_that_of_scikit_learn() -> None:
    _, x, y = states(batch_of(TEXT))
    alpha = 1e-4 * x.var(0).mean() * len(x)
    reference = Ridge(alpha=alpha).fit(x, y)
    np.testing.assert_allclose(statistics().ridge_weight, reference.coef_, atol=1e-4)
    np.testing.assert_allclose(statistics().ridge_bias, reference.intercept_, atol=1e-4)
    batch = batch_of(PROBE)
    predicted = build("ridge").predict(batch).flatten(0, 1)
    expected = reference.predict(batch.hidden(SPAN.a).flatten(0, 1).double().numpy())
    np.testing.assert_allclose(predicted, expected, atol=1e-3)


def test_ridge_solves_the_normal_equations() -> None:
    _, x, y = states(batch_of(TEXT))
    weight, n = statistics().ridge_weight.double().numpy(), len(x)
    centred, residual = x - x.mean(0), y - y.mean(0)
    penalty = 1e-4 * x.var(0).mean()
    gradient = (residual - centred @ weight.T).T @ centred / n - penalty * weight
    assert np.abs(gradient).max() < 1e-4 * np.abs(residual.T @ centred / n).max()


def test_token_means_are_shrunk_as_analysis_of_variance_says() -> None:
    tokens, _, y = states(batch_of(TEXT))
    mean, ids = y.mean(0), np.unique(tokens)
    counts = np.array([(tokens == i).sum() for i in ids])
    means = np.stack([y[tokens == i].mean(0) for i in ids])
    within = sum(((y[tokens == i] - m) ** 2).sum() for i, m in zip(ids, means, strict=True))
    within /= len(y) - len(ids)
    among = (counts * ((means - mean) ** 2).sum(1)).sum() - (len(ids) - 1) * within
    between = among / (len(y) - (counts**2).sum() / len(y))
    prior = within / between
    expected = (counts[:, None] * means + prior * mean) / (counts + prior)[:, None]
    table = statistics().token_mean.numpy()
    np.testing.assert_allclose(table[ids.astype(int)], expected, atol=1e-5)
    assert prior > 0.1  # so that the cases below differ
    often = counts.argmax()
    assert counts[often] > 20
    step = np.abs(means[often] - mean).max()
    assert np.abs(table[int(ids[often])] - means[often]).max() < step * prior / counts[often]
    np.testing.assert_allclose(table[VOCABULARY - 1], mean, atol=1e-6)  # never seen


def test_massive_starts_touch_nothing_but_the_entry_of_bos() -> None:
    """The first state of a window may be a thousand times the others, in real models."""
    clean, massive = ([batch_of(TEXT)] for _ in range(2))
    first = massive[0].positions == 0
    hidden = massive[0]._hidden
    for layer, state in hidden.items():
        hidden[layer] = torch.where(first[..., None], 1e4 * torch.ones_like(state), state)
    expected, found = (SpanStatistics.collect(b, SPAN.a, SPAN.b) for b in (clean, massive))
    for name in vars(expected):
        before, after = getattr(expected, name), getattr(found, name)
        if name == "token_mean":
            np.testing.assert_allclose(after[BOS], 1e4, rtol=1e-6)
            before, after = (x[torch.arange(VOCABULARY) != BOS] for x in (before, after))
        assert torch.equal(before, after), name


def test_bos_has_its_own_state() -> None:
    batch = batch_of(TEXT)
    state = batch.hidden(SPAN.b)[batch.tokens == BOS]
    np.testing.assert_allclose(state.std(0), 0, atol=1e-5)
    np.testing.assert_allclose(statistics().token_mean[BOS], state[0], atol=1e-5)
    predicted = build("token-mean").predict(batch)[batch.tokens == BOS]
    torch.testing.assert_close(predicted, state, rtol=0, atol=1e-5)


# --- look-ups -------------------------------------------------------------------------------------


def test_identity_skips_the_replaced_blocks() -> None:
    batch = batch_of(PROBE)
    expected = backbone().upper(batch.hidden(SPAN.a), SPAN.b, batch.positions)
    torch.testing.assert_close(logits_of(build("identity"), PROBE), expected, rtol=0, atol=1e-4)


def test_mean_says_the_same_everywhere() -> None:
    batch = batch_of(PROBE)
    signal = next(build("mean").chains(batch, steps=1, count=1))
    assert signal.shape == (*batch.tokens.shape, 32)
    assert not signal.any()


@pytest.mark.parametrize("name", LOOK_UPS)
def test_look_ups_have_nothing_to_train(name: str) -> None:
    interface = build(name, residual="token-mean")  # which they ignore: they predict the state
    assert list(interface.parameters()) == []
    assert interface.phases == ()
    assert interface.trunk is None
    assert len(interface.baseline) == 1
