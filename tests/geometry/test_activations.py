"""Sampled rows are the states of the tokens that they stand for."""

from dataclasses import replace

import numpy as np
import torch

from dihal_bench.geometry.activations import sample_activations

from ..tiny import TEXT, backbone


class Rows:
    """Windows by index, as a text has them."""

    window = TEXT.tokens.shape[1]

    def __len__(self):
        return len(TEXT.tokens)

    def batch(self, rows):
        rows = np.asarray(rows)
        return replace(TEXT, **{name: values[rows] for name, values in vars(TEXT).items()})


def sampled(per_window):
    return sample_activations(
        backbone(),
        Rows(),
        [1, 3],
        windows=len(TEXT.tokens),
        per_window=per_window,
        residual="none",
        seed=0,
    )


def test_all_rows_know_whether_they_start_a_window_or_a_document():
    for sample in sampled(Rows.window).values():
        np.testing.assert_array_equal(sample.inside, TEXT.positions.flatten() > 0)


def test_a_sampled_row_is_inside_where_its_token_is():
    whole, some = sampled(Rows.window), sampled(8)
    for layer, sample in some.items():
        assert 0 < int((~sample.inside).sum()) < len(sample.states) / 2
        places = torch.cdist(sample.states, whole[layer].states).topk(2, largest=False)
        clear = places.values[:, 1] > 1e-3  # a token that repeats itself has the same state again
        assert clear.float().mean() > 0.8
        assert torch.equal(sample.inside[clear], whole[layer].inside[places.indices[clear, 0]])
