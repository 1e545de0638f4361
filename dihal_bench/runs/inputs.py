"""What a run rests on: the frozen teacher and the text, checked before anything is done."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.core import distributed, kept
from dihal_bench.core.devices import has_bfloat16
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import write_text
from dihal_bench.data.sources import load_corpus
from dihal_bench.data.tokens import PackedTokens, evaluation_windows, pack
from dihal_bench.models.loading import JUDGE, bundled_facts, bundled_fingerprint, check_device
from dihal_bench.models.model import Backbone
from dihal_bench.models.named import NOTICE, notice_text
from dihal_bench.runs.folder import INPUTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.data.documents import Corpus

_REMEDY = "delete it if backbone and text are those that the run was begun with"
_DECISIVE = ("backbone", "corpus", "device", "dtype", "text")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Inputs:
    """Backbone, corpus and tokens of a configuration, each loaded when it is first asked for.

    Attributes:
        loaded: when the backbone was, in seconds: no interface has seen a text before.
    """

    loaded: float

    def __init__(
        self, config: RunConfig, say: Callable[[str], None], *, shard_teacher: bool = False
    ):
        """Look at dtype and device.

        Args:
            config: what is asked for.
            say: takes one-line messages for a person.
            shard_teacher: whether the backbone's blocks are spread over several processes.

        Raises:
            UserError: there is no such dtype or device, or there is one process only.
        """
        self.config = config
        self.say = say
        self.shard_teacher = shard_teacher
        if shard_teacher and distributed.size() == 1:
            raise UserError(
                "--shard-teacher spreads the backbone over several processes, and this is one; "
                "start it with torchrun -m dihal_bench."
            )
        if config.dtype not in _DTYPES:
            raise UserError(
                f"--dtype {config.dtype} is unknown; choose one of {', '.join(_DTYPES)}."
            )
        self.device = check_device(distributed.device(config.device))
        self._check_arithmetic()
        if self.device.type == "cuda" and distributed.size() > 1:
            torch.cuda.set_device(self.device)

    def _check_arithmetic(self) -> None:
        """Say what an accelerator computes in, and refuse what it would only emulate.

        Raises:
            UserError: it has no bfloat16, and is asked for it.
        """
        config = self.config
        if self.device.type == "cpu":
            return
        if not has_bfloat16(self.device):
            if config.dtype == "bfloat16":
                raise UserError(
                    f"--dtype bfloat16: {self.device} does not compute in it; give --dtype float32."
                )
            if config.train.autocast:
                raise UserError(
                    f"{self.device} does not compute in bfloat16, in which trunks are trained; add "
                    "--set train.autocast=false."
                )
        self.say(f"device: {self.device}; backbone in {config.dtype} (--dtype changes it)")

    def serve(self, config: RunConfig) -> bool:
        """Return whether another configuration rests on the same backbone and text."""
        own = self.config
        return all(getattr(own, name) == getattr(config, name) for name in _DECISIVE)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen teacher."""
        name, window = self.config.backbone, self.config.text.window
        self.say(f"backbone: {name}")
        dtype = _DTYPES[self.config.dtype]
        backbone = Backbone.load(name, device=self.device, dtype=dtype, shard=self.shard_teacher)
        if _is_judge(backbone):
            raise UserError(
                f"--backbone {name} is the judge, which must stay independent; choose bundled."
            )
        if backbone.info.source:
            self.say(f"backbone: {name} is {backbone.info.source.title}")
        backbone.check_window(window)
        if backbone.only_scored:
            self.say(f"backbone: {name} is scored, but cannot generate: {backbone.only_scored}")
        self.loaded = time.time()
        return backbone

    @cached_property
    def corpus(self) -> Corpus:
        """The text."""
        self.say(f"corpus: {self.config.corpus}")
        with distributed.first_on_machine():
            corpus = load_corpus(self.config.corpus, self.config.text.column)
        if corpus.name == "bundled" and corpus.fingerprint != (pinned := bundled_fingerprint()):
            self.say(
                f"corpus: its fingerprint is {corpus.fingerprint}, not {pinned}: other versions of "
                "the dependencies are installed than constraints.txt pins, so results are not "
                "comparable"
            )
        return corpus

    @cached_property
    def training_text(self) -> PackedTokens:
        """What interfaces are trained and fitted on."""
        return self._pack("train", self.config.text.train_tokens)

    @cached_property
    def validation_text(self) -> PackedTokens:
        """What is evaluated on."""
        return self._pack("validation", self.config.text.validation_tokens)

    @cached_property
    def trained_on(self) -> list[PackedTokens]:
        """The training text, then every other set that is not evaluated on."""
        others = [name for name in self.corpus.splits if name not in ("train", "validation")]
        return [self.training_text, *(self._pack(name, 0) for name in others)]

    def check(self, folder: Path) -> None:
        """Refuse text that cannot be scored, and a folder's results of other inputs of one name."""
        evaluation_windows(self.validation_text, self.config.score.tokens)
        found = {
            "backbone": self.backbone.info.fingerprint,
            "training text": self.training_text.fingerprint,
            "validation text": self.validation_text.fingerprint,
        }
        self._check_others(found)
        source = self.backbone.info.source
        if source and (notice := notice_text(asdict(source))):
            write_text(folder / NOTICE, notice)
        path = folder / INPUTS
        if path.exists():
            begun = kept.read_json(path, remedy=_REMEDY)
            changed = [name for name, value in found.items() if begun.get(name) != value]
            if changed:
                raise UserError(
                    f"{folder} was begun with another {changed[0]} of the same name; put that one "
                    "back, or choose another folder with --out."
                )
        kept.write_json(path, found)

    def _check_others(self, found: dict[str, str]) -> None:
        """Refuse processes that do not read the same, as on machines with other files."""
        everywhere = distributed.gather([found])
        for name, value in found.items():
            if any(other[name] != value for other in everywhere):
                raise UserError(
                    f"the processes of this run read a different {name} under the same name; give "
                    "all machines the same files."
                )

    def describe(self) -> dict[str, Any]:
        """Return what a record keeps of them."""
        return {
            "backbone": self.backbone.info.to_dict(),
            "corpus": {
                "name": self.corpus.name,
                "fingerprint": self.corpus.fingerprint,
                "train_tokens": self.training_text.tokens,
                "val_tokens": self.validation_text.tokens,
                "notes": self.corpus.notes,
            },
        }

    def _pack(self, split: str, limit: int) -> PackedTokens:
        tokenizer, window = self.backbone.tokenizer, self.config.text.window
        corpus = self.corpus
        with distributed.first_on_machine():
            data = pack(corpus, split, tokenizer, window=window, max_tokens=limit or None)
        size = self.backbone.vocab_size
        found = data.first_of(size) if max(tokenizer.get_vocab().values()) >= size else None
        if found:
            token, document = found
            where = f"--corpus {corpus.name}: document {document} of its set {split!r}"
            self.backbone.check_ids([[token]], where)
        return data


def _is_judge(backbone: Backbone) -> bool:
    """Whether a backbone has the judge's weights, whatever its name."""
    if backbone.info.parameters != bundled_facts(JUDGE)["parameters"]:
        return False
    judge = Backbone.load(JUDGE, device=backbone.device, dtype=backbone.model.dtype)
    return judge.info.fingerprint == backbone.info.fingerprint
