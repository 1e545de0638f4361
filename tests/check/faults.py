"""The scaffold's interface, and ways to break it: (what is replaced, what stands there then)."""

from importlib import resources

HEALTHY = resources.files("dihal_bench.scaffold").joinpath("template.py").read_text("utf-8")
TARGET = "return self.codes[batch.following(batch.tokens)]"
RECOVER = (
    "logits: Tensor = self.readout(x0)  # it sees the signal at its own place, and no token\n"
    "        return logits"
)
READOUT = "self.readout.weight.data.copy_(self.codes)"
FIT = "self.std.copy_(statistics.condition_std)"
END = "        return logits\n"
SIZES = "    @property\n    def sizes"


def broken(*changes: tuple[str, str], regime: str = "causal") -> str:
    """The file with the changes, to be checked in one regime."""
    text = HEALTHY
    for old, new in (*changes, (SIZES, f"    regimes = ({regime!r},)\n\n{SIZES}")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def adding(method: str) -> tuple[str, str]:
    """A change that adds a method."""
    return END, f"{END}\n{method}"


DENOISER = """
from dihal_bench.diffusion.denoisers import TransformerDenoiser
from dihal_bench.registry import DENOISERS
import torch
from torch import nn


@DENOISERS.register("theirs")
class Theirs(TransformerDenoiser):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.gate = nn.Parameter(torch.zeros(()))

    def {method}
"""
