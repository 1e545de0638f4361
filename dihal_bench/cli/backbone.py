"""``dihal-bench backbone``: the recipes of the bundled models and of the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs

_ROLE = "backbone (default), judge, or a member of the zoo such as gpt2-10"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("backbone", help="small models that are trained from scratch")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train a small model from scratch by its recipe")
    what = train.add_mutually_exclusive_group()
    what.add_argument("--role", default="backbone", help=_ROLE)
    what.add_argument(
        "--zoo", action="store_true", help="six models: three architectures, two seeds each"
    )
    train.add_argument("--out", type=Path, required=True, help="folder that receives the model(s)")
    train.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.studies.bundled_models.recipe import RECIPES, ZOO, train_bundled, train_zoo

    if arguments.zoo:
        for folder in train_zoo(arguments.out):
            _say(folder)
        return 0
    recipes = {**RECIPES, **ZOO}
    if arguments.role not in recipes:
        raise UserError(f"--role {arguments.role} is unknown; choose one of {', '.join(recipes)}.")
    train_bundled(arguments.role, arguments.out, recipes[arguments.role])
    _say(arguments.out)
    return 0


def _say(folder: Path) -> None:
    import json

    facts = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    validation = facts["validation"]
    print(
        f"{facts['role']}: validation perplexity {validation['perplexity']:.2f} on "
        f"{validation['tokens']:,} tokens; written to {folder}"
    )
