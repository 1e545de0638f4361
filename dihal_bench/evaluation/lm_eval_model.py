"""Any interface as a model of lm-eval (0.4.13): its windows, batching and multiple choice."""

from __future__ import annotations

import copy
import math
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.data.tokens import document_prefix
from dihal_bench.evaluation.generation import Choice, decode
from dihal_bench.evaluation.incremental import TeacherDecoder, decoder_of, rows_as_windows
from dihal_bench.evaluation.likelihood import TEACHER
from dihal_bench.evaluation.token_scores import require_law
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from dihal_bench.evaluation.incremental import IncrementalDecoder
    from dihal_bench.models.model import Backbone

_UNSTATED = HFLM._DEFAULT_MAX_LENGTH + 1  # context where a model states none
_STEPS = 16  # of an interface that is in memory, where nobody says how many


class InterfaceLM(HFLM):  # type: ignore[misc]
    """An interface, or its teacher, behind lm-eval's own windows, batching and multiple choice.

    Attributes:
        source: the interface, or the backbone itself.
        steps: network evaluations per chain.
        chains: whose mean is the law.
        truncated: requests whose beginning was cut off, since they exceeded ``max_length``.
    """

    def __init__(
        self,
        source: Interface | Backbone,
        *,
        steps: int | str = 0,
        chains: int | str = 1,
        seed: int | str = 0,
        max_length: int | str = 0,
        batch_size: int | str = 8,
        add_bos_token: bool | None = None,
        **others: Any,
    ):
        """Take an interface, or the teacher, that is in memory.

        Args:
            source: an interface or a backbone.
            steps: network evaluations per chain; 0: 16.
            chains: whose mean is the law.
            seed: of generated tokens.
            max_length: tokens of a window before the last target; 0: the context less one.
            batch_size: windows at a time.
            add_bos_token: whether contexts stand behind the token that begins documents; None: as
                the tokenizer has it, and as lm-eval's own model does.
            others: what else lm-eval passes to a model.

        Raises:
            UserError: the interface has no likelihood of texts.
        """
        self.source, self.steps, self.chains = source, int(steps) or _STEPS, int(chains)
        self.seed = int(seed)
        self.truncated = 0
        self._documents: dict[tuple[int, ...], int] = {}
        self._asked: Counter[tuple[int, ...]] = Counter()
        backbone = source.backbone if isinstance(source, Interface) else source
        others.pop("max_batch_size", None)
        super().__init__(
            pretrained=backbone.model,
            tokenizer=copy.deepcopy(backbone.tokenizer),  # it is given a padding token
            add_bos_token=False,  # else rolling windows would score it: P(BOS | BOS)
            max_length=int(max_length) or (backbone.info.context or _UNSTATED) - 1,
            batch_size=batch_size,
            **others,
        )
        self._prefix = document_prefix(self.tokenizer)[:1]
        plain = self.tokenizer("a")["input_ids"][:1] == self._prefix
        self._begins = plain if add_bos_token is None else add_bos_token

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse lm-eval's cache of answers, whose keys do not tell models apart.

        Raises:
            UserError: there is one.
        """
        if getattr(cache_hook, "dbdict", None) is not None:
            raise UserError(
                "lm-eval's use_cache would give one model the answers of another (its keys are the "
                "requests alone); leave it out."
            )
        super().set_cache_hook(cache_hook)

    @property
    def backbone(self) -> Backbone:
        """The frozen teacher."""
        return self.source.backbone if isinstance(self.source, Interface) else self.source

    def get_model_info(self) -> dict[str, Any]:
        """Return where the numbers come from, without asking a hub; lm-eval keeps it."""
        about: dict[str, Any] = {
            "model_dtype": str(self.backbone.model.dtype),
            "backbone": self.backbone.name,
            "backbone_fingerprint": self.backbone.info.fingerprint,
            "interface": TEACHER,
        }
        if isinstance(self.source, Interface):
            from dihal_bench.evaluation.cache import fingerprint

            about |= {
                "interface": type(self.source).__name__,
                "interface_fingerprint": fingerprint(self.source),
                "steps": self.steps,
                "chains": self.chains,
                "seed": self.seed,
            }
        return about

    @property
    def max_gen_toks(self) -> int:
        """Tokens that are generated where a task does not say how many."""
        return int(min(super().max_gen_toks, self.max_length // 2))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return both in tokens, the context as the tokenizer begins a text."""
        first, second = super()._encode_pair(context, continuation)
        return self._begun(first), second

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return contexts as the tokenizer begins a text, padded, and the mask [B, T]."""
        del truncation
        rows = [self._begun(self.tok_encode(text)) for text in strings]
        if left_truncate_len:
            self.truncated += sum(len(row) > left_truncate_len for row in rows)
            rows = [
                row if len(row) <= left_truncate_len else row[:1] + row[1 - left_truncate_len :]
                for row in rows
            ]
        self.backbone.check_ids(rows, "a prompt of lm-eval")
        longest = max(map(len, rows))
        tokens = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(tokens)
        for index, row in enumerate(rows):
            place = slice(longest - len(row), None) if padding_side == "left" else slice(len(row))
            tokens[index, place], mask[index, place] = torch.tensor(row), 1
        return tokens, mask

    def _begun(self, ids: list[int]) -> list[int]:
        if ids and (not self._begins or ids[:1] == self._prefix):
            return ids
        return self._prefix + ids

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **settings: Any
    ) -> list[tuple[float, bool]]:
        """Give every context noise of its own, which its continuations share; see lm-eval."""
        for _, context, continuation in requests:
            self.backbone.check_ids([context, continuation], "a request of lm-eval")
            whole = context + continuation
            self.truncated += len(whole) > self.max_length + 1
            row = whole[-(self.max_length + 1) :][:-1]
            own = whole if context in ([], self._prefix) else context
            self._documents[_unpadded(row)] = _number(own)
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **settings)
        return found

    @torch.no_grad()
    def _model_call(
        self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Return logits [B, T, V] of rows that are one document each, padded behind."""
        assert attn_mask is None
        assert labels is None
        logits = self._logits(inps)
        require_law(logits, "a model of lm-eval")
        return logits

    def _logits(self, inps: Tensor) -> Tensor:
        if not isinstance(self.source, Interface):
            return self.source.logits(inps)
        if not self.source.likelihood:
            raise UserError(
                "an interface that rounds to the nearest embedding has no likelihood, which this "
                "task needs; choose embedding.rounding=readout."
            )
        if self.source.config.block:
            raise UserError(
                "in the sequence regime a text has no likelihood token by token (only the first "
                "tokens of blocks have one), so this task cannot be scored; use the causal regime."
            )
        documents = torch.tensor([self._documents[_unpadded(row)] for row in inps.tolist()])
        batch = Batch.of(rows_as_windows(inps, documents), self.source.backbone)
        chains = [
            torch.log_softmax(self.source.recover(x0, batch).float(), dim=-1)
            for x0 in self.source.samples(batch, steps=self.steps, count=self.chains)
        ]
        return torch.logsumexp(torch.stack(chains), dim=0) - math.log(len(chains))

    def _model_generate(
        self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> Tensor:
        """Continue contexts that are padded in front; return them with what follows."""
        mask = generation_kwargs.pop("attention_mask")
        lengths = mask.sum(1)
        rows = torch.zeros_like(context)
        for row, length in enumerate(lengths.tolist()):
            rows[row, :length] = context[row, context.shape[1] - length :]
        temperature = float(generation_kwargs.pop("temperature", 0.0) or 0.0)
        sampled = generation_kwargs.pop("do_sample", None)
        if sampled and not temperature:
            raise UserError(
                "the task asks for do_sample without a temperature above 0, which draws nothing; "
                "give generation_kwargs a temperature."
            )
        if sampled is False:
            temperature = 0.0
        choice = Choice(
            temperature=temperature,
            top_p=float(generation_kwargs.pop("top_p", 1.0)),
            seed=self.seed,
        )
        if generation_kwargs:
            raise UserError(
                f"the task asks for {', '.join(sorted(generation_kwargs))} in its "
                "generation_kwargs; dihal-bench knows until, max_gen_toks, do_sample, temperature "
                "and top_p."
            )
        new = max_length - context.shape[1]
        found = context.new_full((len(context), max_length), self.tokenizer.pad_token_id)
        found[:, : context.shape[1]] = context
        for part in self._parts(lengths):
            texts = self._continue(rows[part], lengths[part], new, choice, stop)
            for row, own in zip(part, texts, strict=True):
                found[row, context.shape[1] : context.shape[1] + len(own)] = own
        return found

    def _parts(self, lengths: Tensor) -> list[list[int]]:
        """Return rows that are continued together: of one length where blocks begin at its end."""
        everything = list(range(len(lengths)))
        if not (isinstance(self.source, Interface) and self.source.config.block):
            return [everything]
        return [
            [row for row in everything if int(lengths[row]) == length]
            for length in sorted(set(lengths.tolist()))
        ]

    def _continue(
        self, rows: Tensor, lengths: Tensor, new: int, choice: Choice, stop: list[str]
    ) -> list[Tensor]:
        sizes = lengths.tolist()
        pairs = zip(rows.tolist(), sizes, strict=True)
        numbers = [self._ask(tuple(row[:size])) for row, size in pairs]
        documents = torch.tensor(numbers, device=rows.device)
        prompts, end = rows[:, : int(lengths.max())], self.eot_token_id

        def stopped(tokens: Tensor) -> bool:
            return all(
                end in row[size:]
                or len(row) >= size + new
                or any(word in self.tok_decode(row[size:]) for word in stop)
                for row, size in zip(tokens.tolist(), sizes, strict=True)
            )

        tokens = decode(
            self._reader(documents),
            prompts,
            lambda logits, offset: choice.draw(logits, documents, offset),
            new=new,
            lengths=lengths,
            until=stopped,
        )
        found = [row[size : size + new] for row, size in zip(tokens, sizes, strict=True)]
        ends = [(row == end).nonzero()[:1, 0].tolist() for row in found]
        return [row[: place[0]] if place else row for row, place in zip(found, ends, strict=True)]

    def generate_until(self, requests: list[Any], *arguments: Any, **settings: Any) -> list[str]:
        """Answer; a prompt that is asked again gets an answer of its own. See lm-eval."""
        self._asked.clear()
        found: list[str] = super().generate_until(requests, *arguments, **settings)
        return found

    def _ask(self, prompt: tuple[int, ...]) -> int:
        """Return the number of the document that continues a prompt, for this time it is asked."""
        time = self._asked[prompt]
        self._asked[prompt] += 1
        return _number([*prompt, -time] if time else list(prompt))

    def _reader(self, documents: Tensor) -> IncrementalDecoder:
        if not isinstance(self.source, Interface):
            return TeacherDecoder(self.source)
        return decoder_of(self.source, documents, steps=self.steps, chains=self.chains)


def _number(tokens: list[int]) -> int:
    """Return the number of the document that a text is, which addresses its noise."""
    return zlib.crc32(repr(tokens).encode())


def _unpadded(row: list[int]) -> tuple[int, ...]:
    """Return a row without the padding that lm-eval puts behind it, token 0."""
    end = len(row)
    while end and row[end - 1] == 0:
        end -= 1
    return tuple(row[:end])
