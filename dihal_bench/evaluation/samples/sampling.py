"""Sets of samples: drawn from a model, or the beginnings of real documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.data.tokens import document_prefix
from dihal_bench.evaluation.generation import Choice, decode
from dihal_bench.evaluation.incremental import TeacherDecoder, decoder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.evaluation.incremental import IncrementalDecoder
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone


_SPREAD, _WORD = 0x9E3779B1, 0xFFFFFFFF  # numbers of documents: seeds far apart, 32 bits


@dataclass(frozen=True)
class Samples:
    """Texts of one origin, of at most as many tokens each.

    Attributes:
        ids: tokens of every sample up to its end, those of the prompt left out.
        texts: the same as text, special tokens left out.
        prompts: what every one continues, as text; empty for the beginning of a document.
        given: the same in tokens.
        about: how they were made: temperature, steps, NFE per token and so on.
    """

    ids: list[list[int]]
    texts: list[str]
    prompts: list[str]
    given: list[list[int]]
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, index: Sequence[int]) -> Samples:
        """Return some of them."""
        return Samples(
            [self.ids[i] for i in index],
            [self.texts[i] for i in index],
            [self.prompts[i] for i in index],
            [self.given[i] for i in index],
            self.about,
        )

    @classmethod
    def of(
        cls,
        ids: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        prompts: Sequence[Sequence[int]] | None = None,
        **about: Any,
    ) -> Samples:
        """Return samples of tokens, each ending before its first end-of-text token."""
        end = tokenizer.eos_token_id
        own = [_until(list(map(int, row)), end) for row in ids]
        given = [list(map(int, row)) for row in prompts] if prompts is not None else [[]] * len(own)
        before = tokenizer.batch_decode(given, skip_special_tokens=True)
        whole = tokenizer.batch_decode(
            [a + b for a, b in zip(given, own, strict=True)], skip_special_tokens=True
        )
        # the text that the tokens add: where a prompt ends within a character, that is a part of it
        common = [_shared(text, prompt) for text, prompt in zip(whole, before, strict=True)]
        texts = [text[size:] for text, size in zip(whole, common, strict=True)]
        kept = [prompt[:size] for prompt, size in zip(before, common, strict=True)]
        return cls(own, texts, kept, given, about)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How samples are drawn.

    Attributes:
        tokens: of a sample, at most.
        choice: of tokens from their distributions.
        ends: whether a sample may end before; else the end of text is never drawn, so that all are
            of one length: the law given that a text is that long.
        steps: network evaluations per chain.
        chains: whose mean is drawn from.
        batch: samples at a time; none depends on it.
    """

    tokens: int = 128
    choice: Choice = field(default_factory=Choice)
    ends: bool = True
    steps: int = 16
    chains: int = 1
    batch: int = 64

    def __post_init__(self) -> None:
        for name in ("tokens", "steps", "chains", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} of samples must be 1 or more.")

    def draw(
        self,
        source: Backbone | Interface,
        prompts: Sequence[Sequence[int]],
        *,
        first: int = 0,
        label: str = "generate",
    ) -> Samples:
        """Continue every prompt.

        Args:
            source: the teacher or an interface.
            prompts: starts of documents, in tokens, of any lengths.
            first: number of the first sample; of two calls those of one number are drawn alike.
            label: of the progress bar.

        Returns:
            Samples in the order of the prompts.

        Raises:
            UserError: prompts and samples are longer than the model's context, or there are none.
        """
        backbone, reader = _reading(source, self)
        _check(prompts, self.tokens, backbone)
        numbers = (self.choice.seed * _SPREAD + first + np.arange(len(prompts))) & _WORD
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        rows: dict[int, list[int]] = {}
        with progress(label, len(prompts) * self.tokens, unit="tokens") as bar:
            for part in _parts(order, prompts, self.batch, _blocks(source)):
                documents = torch.tensor(numbers[part], device=backbone.device)
                found = self._continue(
                    reader(documents),
                    [prompts[i] for i in part],
                    documents,
                    backbone,
                    bar.update,
                )
                rows |= dict(zip(part, found, strict=True))
        return Samples.of(
            [rows[i] for i in range(len(prompts))],
            backbone.tokenizer,
            prompts=prompts,
            **self._about(source),
        )

    def _continue(
        self,
        reader: IncrementalDecoder,
        prompts: list[Sequence[int]],
        documents: Tensor,
        backbone: Backbone,
        tick: Callable[[int], object],
    ) -> list[list[int]]:
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=backbone.device)
        longest = int(lengths.max())
        given = torch.zeros(len(prompts), longest, dtype=torch.int64, device=backbone.device)
        for row, prompt in enumerate(prompts):
            given[row, : len(prompt)] = torch.tensor(list(prompt), device=backbone.device)
        end = backbone.tokenizer.eos_token_id

        def ended(tokens: Tensor) -> bool:
            place = torch.arange(tokens.shape[1], device=tokens.device)
            new = place >= lengths[:, None]
            over = place.expand_as(new).amax(1) + 1 >= lengths + self.tokens
            if end is not None and self.ends:
                over = over | ((tokens == end) & new).any(1)
            return bool(over.all())

        def choose(logits: Tensor, offset: int) -> Tensor:
            if end is not None and not self.ends:
                logits = logits.clone()
                logits[:, end] = -torch.inf
            return self.choice.draw(logits, documents, offset)

        tokens = decode(
            reader,
            given,
            choose,
            new=self.tokens,
            lengths=lengths,
            until=ended,
            tick=tick,
        )
        return [
            row[length : length + self.tokens].tolist()
            for row, length in zip(tokens.cpu(), lengths.tolist(), strict=True)
        ]

    def _about(self, source: Backbone | Interface) -> dict[str, Any]:
        from dihal_bench.interfaces.base import Interface

        about: dict[str, Any] = {
            "temperature": self.choice.temperature,
            "top_p": self.choice.top_p,
            "seed": self.choice.seed,
            "ends": self.ends,
            "steps": 1,
            "chains": 1,
        }
        if isinstance(source, Interface) and source.stochastic:
            about |= {"steps": self.steps, "chains": self.chains}
        return about


def beginnings(
    data: PackedTokens,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int,
    count: int,
    prefix: int = 0,
) -> Samples:
    """Return the first tokens of real documents, evenly spread over those that are long enough.

    Args:
        data: documents.
        tokenizer: theirs.
        tokens: of every sample.
        count: how many, at most.
        prefix: tokens of the document that come before, as a sample's prompt.
    """
    skip = len(document_prefix(tokenizer)) + prefix
    able = np.flatnonzero(data.lengths >= skip + tokens)
    wanted = np.unique(np.linspace(0, len(able) - 1, min(count, len(able))).round().astype(int))
    rows = [data.document(int(able[index])) for index in wanted]
    return Samples.of(
        [row[skip : skip + tokens].tolist() for row in rows],
        tokenizer,
        prompts=[row[:skip].tolist() for row in rows],
    )


def _shared(text: str, prompt: str) -> int:
    """Return how many characters both begin with."""
    pairs = enumerate(zip(text, prompt, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(text), len(prompt)))


def _until(row: list[int], end: int | None) -> list[int]:
    return row[: row.index(end)] if end is not None and end in row else row


def _reading(
    source: Backbone | Interface, drawing: Drawing
) -> tuple[Backbone, Callable[[Tensor], IncrementalDecoder]]:
    from dihal_bench.interfaces.base import Interface

    if not isinstance(source, Interface):
        return source, lambda documents: TeacherDecoder(source)

    def reader(documents: Tensor) -> IncrementalDecoder:
        return decoder_of(source, documents, steps=drawing.steps, chains=drawing.chains)

    return source.backbone, reader


def _blocks(source: Backbone | Interface) -> bool:
    """Whether prompts of a batch must be of one length: blocks begin where a prompt ends."""
    from dihal_bench.interfaces.base import Interface

    return isinstance(source, Interface) and source.config.block > 0


def _parts(
    order: list[int], prompts: Sequence[Sequence[int]], size: int, equal: bool
) -> list[list[int]]:
    parts: list[list[int]] = []
    for index in order:
        fits = parts and len(parts[-1]) < size
        if not fits or (equal and len(prompts[parts[-1][0]]) != len(prompts[index])):
            parts.append([])
        parts[-1].append(index)
    return parts


def _check(prompts: Sequence[Sequence[int]], tokens: int, backbone: Backbone) -> None:
    if not prompts:
        raise UserError("0 samples can be neither drawn nor scored; ask for 1 or more.")
    if not all(prompts):
        raise UserError(
            "a prompt has no token, and the tokenizer none that begins a document; give a prompt."
        )
    backbone.check_ids(prompts, "a prompt")
    longest = max(map(len, prompts))
    if not backbone.info.reads(longest + tokens):
        raise UserError(
            f"a prompt of {longest} tokens and {tokens} new ones exceed the context of "
            f"{backbone.name} ({backbone.info.context}); ask for fewer."
        )
