"""The command line: ``dihal-bench VERB``. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench import __version__
from dihal_bench.environment import keep_freed_memory
from dihal_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.config import RunConfig
    from dihal_bench.geometry.locate import Located


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for what the user has to mend)."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    keep_freed_memory()
    try:
        status: int = arguments.work(arguments)
    except UserError as error:
        print(f"dihal-bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dihal-bench: interrupted; the same command continues.", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dihal-bench", description="Where should diffusion enter a pretrained language model?"
    )
    parser.add_argument("--version", action="version", version=f"dihal-bench {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser(
        "run", help="locate a layer, train the interface, score it against its controls"
    )
    run.add_argument("--interface", help="registered interface (default: hidden)")
    run.add_argument("--controls", help="comma-separated controls in the table")
    _common(run)
    run.set_defaults(work=_run)
    locate = verbs.add_parser("locate", help="score all layers by geometry; table and figure")
    _common(locate)
    locate.set_defaults(work=_locate)
    listing = verbs.add_parser("list", help="what is registered, and where it comes from")
    listing.add_argument("--include", action="append", metavar="FILE", help=_INCLUDE)
    listing.add_argument("--json", action="store_true", help=_JSON)
    listing.set_defaults(work=_list)
    _backbone(verbs.add_parser("backbone", help="the bundled models"))
    return parser


def _backbone(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train a bundled model from scratch by its recipe")
    train.add_argument("--role", default="backbone", choices=("backbone", "judge"))
    train.add_argument("--out", type=Path, required=True, help="folder that receives the model")
    train.set_defaults(work=_train_backbone)


_INCLUDE = "a Python file that registers interfaces (repeatable)"
_JSON = "print JSON, and nothing else, on standard output"


def _common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--layer", help="auto, early, middle, late, or a number (default: auto)")
    add("--from", dest="from_layer", metavar="A", help="layer that conditions (default: 0)")
    add("--backbone", help="bundled, a folder, or a hub id (default: bundled)")
    add("--corpus", help="bundled, a file, a folder, or a Hugging Face dataset (default: bundled)")
    add("--budget", "--preset", default="tiny", help="tiny, small or paper (default: tiny)")
    add("--denoiser", help="registered denoiser (default: transformer)")
    add("--regime", help="causal (default) or sequence: blocks that are denoised jointly")
    add("--seed", help="seed of everything (default: 0)")
    add("--device", help="torch device (default: cpu)")
    add("--dtype", help="dtype of the backbone (default: by preset)")
    add("--out", type=Path, help="folder of the run (default: under runs/)")
    add("--include", action="append", metavar="FILE", help=_INCLUDE)
    add("--config", metavar="FILE", help="TOML or JSON file with configuration keys")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any configuration key")
    add("--dry-run", action="store_true", help="print the resolved plan and its cost, do nothing")
    add("--json", action="store_true", help=_JSON)


def _config(arguments: argparse.Namespace) -> RunConfig:
    from dihal_bench.resolve import resolve

    names = ("interface", "controls", "layer", "from_layer", "backbone", "corpus", "regime", "seed")
    values = {name: getattr(arguments, name, None) for name in (*names, "device", "dtype")}
    values["denoiser.name"] = arguments.denoiser
    values["include"] = tuple(arguments.include) if arguments.include else None
    return resolve(
        preset=arguments.budget, file=arguments.config, values=values, sets=arguments.set
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    from dihal_bench.folder import run_folder
    from dihal_bench.job import run
    from dihal_bench.report import plan, show_located, show_record

    if arguments.dry_run:
        return _print_plan(plan(config), as_json=arguments.json)

    def show(located: Located) -> None:
        if not arguments.json:
            selected = located.select(config.layer, above=config.from_layer)
            print(show_located(located, selected), flush=True)

    folder = run_folder(config, arguments.out)
    record = run(config, out=folder, command=_command(arguments), say=_say, show=show)
    if arguments.json:
        _print_json(record.data)
    else:
        print(show_record(record, folder))
    return 0


def _locate(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    from dihal_bench.folder import claimed, run_folder
    from dihal_bench.geometry.figure import draw
    from dihal_bench.job import Job
    from dihal_bench.report import plan, show_located

    if arguments.dry_run:
        return _print_plan(plan(config, train=False), as_json=arguments.json)
    folder = run_folder(config, arguments.out, name="locate")
    job = Job(config, folder, _say)
    with claimed(folder, config):
        job.inputs.check(folder)
        located = job.located
        figures = draw(located, folder / "locate")
    if arguments.json:
        _print_json(located.to_dict())
    else:
        selected = located.select(config.layer, above=config.from_layer)
        print(show_located(located, selected))
        print("figure: " + " and ".join(str(path) for path in figures))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from dihal_bench.registry import REGISTRIES, include

    for path in arguments.include or ():
        include(path)
    entries = [
        {
            "kind": registry.kind,
            "name": name,
            "origin": registry.origin(name),
            "help": registry.help(name),
        }
        for registry in REGISTRIES
        for name in registry.names()
    ]
    if arguments.json:
        _print_json(entries)
        return 0
    from tabulate import tabulate

    print(tabulate(entries, headers="keys", tablefmt="simple"))
    return 0


def _train_backbone(arguments: argparse.Namespace) -> int:
    from dihal_bench.backbone.recipe import train_bundled

    facts = train_bundled(arguments.role, arguments.out)
    validation = facts["validation"]
    print(
        f"{arguments.role}: validation perplexity {validation['perplexity']:.2f} on "
        f"{validation['tokens']:,} tokens; written to {arguments.out}"
    )
    return 0


def _print_plan(plan: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        _print_json(plan)
    else:
        for key, value in plan["summary"].items():
            print(f"{key}: {value}")
    return 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, sort_keys=True))


def _command(arguments: argparse.Namespace) -> str:
    """The command as it can be typed again: the folder it wrote to is left out."""
    import shlex

    words = ["dihal-bench", arguments.verb]
    for name in (*_REPRODUCED, "include", "set"):
        value = getattr(arguments, name)
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                words += [f"--{name.removesuffix('_layer')}", str(item)]
    return shlex.join(words)


_REPRODUCED = (
    *("interface", "layer", "from_layer", "backbone", "corpus", "budget", "denoiser", "regime"),
    *("controls", "seed", "device", "dtype", "config"),
)


if __name__ == "__main__":
    sys.exit(main())
