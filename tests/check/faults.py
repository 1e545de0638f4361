"""The scaffold's interface, and ways to break it: (what is replaced, what stands there then)."""

from importlib import resources

HEALTHY = resources.files("dihal_bench.cli").joinpath("interface_template.py").read_text("utf-8")
TARGET = "return self.codes[batch.following(batch.tokens)]"
READ = "torch.atanh(means) @ self.codes.T"
RECOVER = f"return {READ}"
BUILT = 'self.register_buffer("std", torch.ones(backbone.hidden_size, device=device))'
FIT = "self.std.copy_(statistics.condition_std)"
HELP = "    help: ClassVar"
SIZES = "    @property\n    def sizes"


def broken(*changes: tuple[str, str], regime: str = "causal") -> str:
    """The file with the changes, to be checked in one regime."""
    text = HEALTHY.replace("import Tensor\n", "import Tensor, nn\n")
    for old, new in (*changes, (HELP, f"    regimes = ({regime!r},)\n{HELP}")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def adding(method: str) -> tuple[str, str]:
    """A change that adds a method."""
    return SIZES, f"{method}\n{SIZES}"


DENOISER = """
from dihal_bench.diffusion.denoisers import TransformerDenoiser
from dihal_bench.core.registry import DENOISERS
import torch
from torch import nn


@DENOISERS.register("theirs")
class Theirs(TransformerDenoiser):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.gate = nn.Parameter(torch.zeros(()))

    def {method}
"""
