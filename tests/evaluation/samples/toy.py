"""A judge whose probabilities can be worked out by hand."""

import math

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dihal_bench.evaluation.samples.judge import Judge
from dihal_bench.evaluation.samples.sampling import Samples
from dihal_bench.models.model import BackboneInfo

WORDS = {"<unk>": 0, "</s>": 1, "a": 2, "b": 3}


class ToyModel:
    """``a`` has probability 1 / (k + 1) after k tokens of a window; the rest have equal shares."""

    name, blocks, hidden_size, device = "toy", 1, 2, torch.device("cpu")

    def __init__(self, context: int):
        rules = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
        rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="</s>")
        about = {"name": "toy", "fingerprint": "toy", "dtype": "float32", "architecture": "toy"}
        sizes = {"blocks": 1, "hidden_size": 2, "vocab_size": len(WORDS), "parameters": 0}
        self.info = BackboneInfo(**about, **sizes, context=context)

    def check_ids(self, rows: object, where: str) -> None:
        """Every id has its place."""

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        assert tokens.shape[1] <= self.info.context
        a = 1 / (torch.arange(tokens.shape[1], dtype=torch.float64) + 2)  # of the next token
        other = (1 - a) / 3
        logs = torch.stack([other, other, a, other], dim=-1).log()
        hidden = torch.stack([tokens.double(), torch.ones_like(tokens).double()], dim=-1)
        return logs.expand(len(tokens), -1, -1), hidden


def judge(context: int) -> Judge:
    return Judge(ToyModel(context))  # type: ignore[arg-type]


def nll(place: int, word: str = "a") -> float:
    """Of a word with so many tokens of its window before it."""
    a = 1 / (place + 1)
    return -math.log(a if word == "a" else (1 - a) / 3)


def samples(*texts: str, prompts: tuple[str, ...] = ()) -> Samples:
    given = list(prompts) or [""] * len(texts)
    ids = [[WORDS[word] for word in text.split()] for text in texts]
    return Samples(ids, list(texts), given, [[] for _ in texts])
