"""A judge: a language model that is not the backbone, and reads samples as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.data.tokens import document_prefix
from dihal_bench.evaluation.token_scores import require_finite
from dihal_bench.models.model import Backbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.evaluation.samples.sampling import Samples

_TOKENS_PER_PASS = 1 << 13


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge says of samples, one by one.

    Attributes:
        nll: sums over the scored tokens, nats, [n].
        tokens: how many were scored: all but the first one of a text without a prompt, [n].
        nll_begun: the same sums with every token scored, given the token that begins a document;
            NaN where the judge has none, [n].
        tokens_begun: how many that are, [n].
        features: the judge's last state after the last token, [n, D]; of an empty text zeros.
    """

    nll: Array
    tokens: Array
    nll_begun: Array
    tokens_begun: Array
    features: Array

    @property
    def empty(self) -> int:
        """How many samples had no token that could be scored."""
        return int((self.tokens == 0).sum())


class Judge:
    """Reads text with its own tokenizer."""

    def __init__(self, model: Backbone):
        self.model = model

    @classmethod
    def load(cls, name: str, generator: Backbone) -> Judge:
        """Load a judge for what ``generator`` or an interface on it writes.

        Raises:
            UserError: it has the generator's own weights, which would judge themselves.
        """
        model = Backbone.load(name, device=generator.device)
        if cls(model).is_model(generator):
            raise UserError(
                f"the judge {name} has the backbone's own weights and would judge itself; choose "
                "another, such as bundled-judge."
            )
        return cls(model)

    def is_model(self, other: Backbone) -> bool:
        """Whether the judge has another model's weights, in whatever dtype."""
        mine, theirs = dict(self.model.model.named_parameters()), other.model.named_parameters()
        if self.model.info.parameters != other.info.parameters:
            return False
        return all(
            name in mine
            and mine[name].shape == weight.shape
            and bool(torch.equal(mine[name].to(weight), weight))
            for name, weight in theirs
        )

    def read(self, samples: Samples, *, label: str = "judge") -> Judged:
        """Score all samples, none of them cut, given their prompts."""
        rows = [
            self.tokens(prompt, text)
            for prompt, text in zip(samples.prompts, samples.texts, strict=True)
        ]
        longest = max((len(ids) for ids, _ in rows), default=0)
        context = self.model.info.most(1 + longest)  # the token that begins a text comes before
        plain = self.losses([ids for ids, _ in rows], context, max(1, context // 2), label=label)
        nll, tokens = _sums(plain.nll, [max(1, first) for _, first in rows])
        prefix = document_prefix(self.model.tokenizer)[:1]
        if prefix:
            begun = self.losses(
                [prefix + ids for ids, _ in rows], context, max(1, context // 2), label=label
            )
            nll_begun, tokens_begun = _sums(begun.nll, [1 + first for _, first in rows])
        else:
            nll_begun, tokens_begun = np.full(len(rows), math.nan), np.zeros(len(rows))
        return Judged(
            nll=nll,
            tokens=tokens,
            nll_begun=nll_begun,
            tokens_begun=tokens_begun,
            features=plain.features,
        )

    def tokens(self, prompt: str, text: str) -> tuple[list[int], int]:
        """Return the tokens of prompt and text together, and the first that begins in the text."""
        encoding = self.model.tokenizer(
            prompt + text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        starts = np.array([start for start, _ in encoding["offset_mapping"]], dtype=np.int64)
        return list(encoding["input_ids"]), int((starts < len(prompt)).sum())

    @torch.no_grad()
    def losses(
        self, rows: Sequence[Sequence[int]], context: int, stride: int, *, label: str = "judge"
    ) -> Losses:
        """Return the NLL of every token given those before it in its window.

        Args:
            rows: tokens.
            context: longest window; windows begin ``stride`` tokens after one another, and a token
                is scored in the first that has something before it.
            stride: at most ``context``.
            label: of the progress bar.

        Raises:
            UserError: an NLL is not finite.
        """
        self.model.check_ids(rows, f"judge {self.model.name}")
        device = self.model.device
        nll = [np.full(len(row), math.nan) for row in rows]
        features: list[Array | None] = [None] * len(rows)
        windows = [
            (i, w) for i, row in enumerate(rows) for w in _windows(len(row), context, stride)
        ]
        windows.sort(key=lambda pair: pair[1].end - pair[1].start)
        with progress(label, len(windows), unit="texts") as bar:
            for part in _passes(windows):
                longest = max(window.end - window.start for _, window in part)
                tokens = torch.zeros(len(part), longest, dtype=torch.int64)
                for place, (row, window) in enumerate(part):
                    own = torch.tensor(rows[row][window.start : window.end])
                    tokens[place, : len(own)] = own
                tokens = tokens.to(device)  # later places are padding, which no earlier one sees
                logits, states = self.model.read(tokens)
                logs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
                found = -logs.gather(2, tokens[:, 1:, None])[..., 0].double().cpu()
                last = states.double().cpu().numpy()
                for place, (row, window) in enumerate(part):
                    first, size = window.first - window.start, window.end - window.start
                    own_nll = found[place, first - 1 : size - 1]
                    require_finite(own_nll, f"judge {self.model.name}", "NLLs")
                    nll[row][window.first : window.end] = own_nll.numpy()
                    if window.end == len(rows[row]):
                        features[row] = last[place, size - 1]
                bar.update(len(part))
        width = next((own.shape[0] for own in features if own is not None), self.model.hidden_size)
        whole = [np.zeros(width) if own is None else own for own in features]
        return Losses(nll, np.stack(whole) if whole else np.zeros((0, width)))


@dataclass(frozen=True)
class Losses:
    """Per text the NLL of every token, NaN where it has nothing before it; and the last state."""

    nll: list[Array]
    features: Array


@dataclass(frozen=True)
class _Window:
    start: int
    first: int  # token that is scored
    end: int


def _windows(length: int, context: int, stride: int) -> list[_Window]:
    found: list[_Window] = []
    scored = 0
    for start in range(0, max(1, length), stride):
        end = min(start + context, length)
        if end <= start:
            break
        found.append(_Window(start, max(scored, start + 1), end))
        scored = end
        if end == length:
            break
    return found


def _passes(windows: list[tuple[int, _Window]]) -> list[list[tuple[int, _Window]]]:
    """Group windows, which are in order of their lengths, into passes of a bounded size."""
    parts: list[list[tuple[int, _Window]]] = []
    for pair in windows:
        size = pair[1].end - pair[1].start
        if not parts or (len(parts[-1]) + 1) * size > _TOKENS_PER_PASS:
            parts.append([])
        parts[-1].append(pair)
    return parts


def _sums(nll: list[Array], first: list[int]) -> tuple[Array, Array]:
    parts = [row[start:] for row, start in zip(nll, first, strict=True)]
    return (
        np.array([float(np.nansum(part)) for part in parts]),
        np.array([float(np.isfinite(part).sum()) for part in parts]),
    )
