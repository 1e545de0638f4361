"""``dihal-bench backbone``: the recipe of the bundled models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from dihal_bench.verbs.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("backbone", help="the bundled models")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train a bundled model from scratch by its recipe")
    train.add_argument("--role", default="backbone", choices=("backbone", "judge"))
    train.add_argument("--out", type=Path, required=True, help="folder that receives the model")
    train.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.backbone.recipe import train_bundled

    facts = train_bundled(arguments.role, arguments.out)
    validation = facts["validation"]
    print(
        f"{arguments.role}: validation perplexity {validation['perplexity']:.2f} on "
        f"{validation['tokens']:,} tokens; written to {arguments.out}"
    )
    return 0
