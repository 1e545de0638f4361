"""Flags that several verbs have in common, and what becomes of them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.models.named import ACCEPTED, TERMS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.runs.accelerators import Accelerator

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

INCLUDE = "a Python file that registers interfaces (repeatable)"
JSON = "print JSON, and nothing else, on standard output"
_COLUMN = "column of the text, or of chats, in files of rows; a.b is nested (default: text)"
_BACKBONE = "bundled, a name of dihal-bench list, a folder, a GGUF, or a hub id (default: bundled)"
_TERMS = f"accept the terms of use that a backbone is under (or set {ACCEPTED})"
_GPU = "with --dry-run: estimate the time on a100, h100, h200 or rtx4090 by its data sheet too"
_SHARD = "spread the backbone's blocks over the processes that torchrun starts (FSDP2)"
_FLAGS = (
    *("interface", "layer", "from_layer", "backbone", "corpus", "text_column", "budget"),
    *("denoiser", "regime", "controls", "seed", "device", "dtype", "config"),
    *("interfaces", "seeds", "denoisers", "blocks"),
    *("layers", "span", "over", "transform", "backbones"),
)


def common_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that decide what is run, and where."""
    add = parser.add_argument
    add("--layer", help="auto, early, middle, late, or a number (default: auto)")
    add("--from", dest="from_layer", metavar="A", help="layer that conditions (default: 0)")
    add("--backbone", help=_BACKBONE)
    add("--accept-terms", choices=TERMS, help=_TERMS)
    add("--corpus", help="bundled, a file, a folder, or a Hugging Face dataset (default: bundled)")
    add("--text-column", metavar="NAME", help=_COLUMN)
    add("--budget", "--preset", default="tiny", help="tiny, small or paper (default: tiny)")
    add("--denoiser", help="registered denoiser (default: transformer)")
    add("--regime", help="causal (default) or sequence: blocks that are denoised jointly")
    add("--seed", help="seed of everything (default: 0)")
    add("--device", help="torch device (default: cpu)")
    add(
        "--dtype",
        help="dtype of the backbone (default: by preset; bfloat16 on cuda)",
    )
    add("--out", type=Path, help="folder of the run (default: under runs/)")
    add("--include", action="append", metavar="FILE", help=INCLUDE)
    add("--config", metavar="FILE", help="TOML or JSON file with configuration keys")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any configuration key")
    add("--dry-run", action="store_true", help="print the resolved plan and its cost, do nothing")
    add("--for", dest="gpu", metavar="GPU", help=_GPU)
    add("--json", action="store_true", help=JSON)


def place_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that say where a finished run is worked on, and with what lies where."""
    add = parser.add_argument
    add("--backbone", help="where it lies by now (default: where the run was given it)")
    add("--accept-terms", choices=TERMS, help=_TERMS)
    add("--corpus", help="the same of the text")
    add("--device", help="torch device (default: that of the run)")


def places(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return what the flags of ``place_flags`` say."""
    return {name: getattr(arguments, name) for name in ("backbone", "corpus", "device")}


def shard_flag(parser: argparse.ArgumentParser) -> None:
    """Declare the flag of verbs that several processes do together."""
    parser.add_argument("--shard-teacher", action="store_true", help=_SHARD)


def config_of(
    arguments: argparse.Namespace,
    denoiser: str | None = None,
    *,
    sets: Sequence[str] = (),
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    others: Sequence[str] = (),
) -> RunConfig:
    """Return the configuration that the flags of ``common_flags`` mean.

    Args:
        arguments: parsed.
        denoiser: in place of that of the flags.
        sets: further "key=value" strings, which win.
        defaults: preset -> what a verb has other defaults for than ``run``.
        others: denoisers and samplers of other runs of this command, which may have settings too.
    """
    from dihal_bench.config.resolve import resolve

    names = ("interface", "controls", "layer", "from_layer", "backbone", "corpus", "regime", "seed")
    values = {name: getattr(arguments, name, None) for name in (*names, "device", "dtype")}
    values["text.column"] = getattr(arguments, "text_column", None)
    if getattr(arguments, "gpu", None) is not None:
        values["dtype"] = values["dtype"] or "bfloat16"  # as runs there compute
    values["denoiser.name"] = denoiser or arguments.denoiser
    values["include"] = tuple(arguments.include) if arguments.include else None
    return resolve(
        preset=arguments.budget,
        file=arguments.config,
        values=values,
        sets=[*arguments.set, *sets],
        defaults=defaults,
        others=others,
    )


def gpu_of(arguments: argparse.Namespace) -> Accelerator | None:
    """Return the GPU that --for names, if any.

    Raises:
        UserError: it is not known, or nothing is planned.
    """
    from dihal_bench.runs.accelerators import accelerator

    if arguments.gpu is None:
        return None
    if not arguments.dry_run:
        raise UserError(f"--for {arguments.gpu} is an estimate beside a plan; add --dry-run.")
    return accelerator(arguments.gpu)


def print_plan(plan: dict[str, Any], *, as_json: bool) -> int:
    """Print what a dry run found; return the exit status."""
    if as_json:
        print_json(plan)
    else:
        for key, value in plan["summary"].items():
            print(f"{key}: {value}")
    return 0


def print_runs(rows: list[dict[str, Any]], summary: dict[str, str], *, as_json: bool) -> int:
    """Print the runs that a dry run found and what they cost; return the exit status."""
    plan = {"runs": rows, "summary": summary}
    if not as_json:
        from tabulate import tabulate

        print(tabulate(rows, headers="keys"), end="\n\n")
    return print_plan(plan, as_json=as_json)


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    print(json.dumps(value, indent=1, sort_keys=True))


def listed(text: str | None) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def seeds_of(text: str) -> list[int]:
    """Read --seeds.

    Raises:
        UserError: not whole numbers from 0 upwards, or one twice.
    """
    try:
        seeds = [int(part) for part in listed(text)]
    except ValueError as error:
        raise UserError(f"--seeds {text}: give whole numbers, such as 0,1,2.") from error
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: give different numbers from 0 upwards.")
    return seeds


def command_of(arguments: argparse.Namespace) -> str:
    """The command as it can be typed again: the folder it wrote to is left out."""
    words = ["dihal-bench", arguments.verb]
    for name in (*_FLAGS, "include", "set"):
        value = getattr(arguments, name, None)
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                words += [f"--{name.removesuffix('_layer').replace('_', '-')}", str(item)]
    return shlex.join(words)
