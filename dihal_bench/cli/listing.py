"""``dihal-bench list``: what is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.cli.common import INCLUDE, JSON, print_json

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("list", help="what is registered, and where it comes from")
    parser.add_argument("--include", action="append", metavar="FILE", help=INCLUDE)
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.core.registry import REGISTRIES, include
    from dihal_bench.evaluation.tasks import built_in, first_comment
    from dihal_bench.models.named import NAMED

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
    entries += [
        {"kind": "task", "name": path.stem, "origin": path.name, "help": first_comment(path)}
        for path in sorted(built_in().glob("*.yaml"))
    ]
    entries += [
        {
            "kind": "backbone",
            "name": name,
            "origin": model.package,
            "help": f"{model.title}; {model.terms}; {'' if model.installed else 'not '}installed",
        }
        for name, model in NAMED.items()
    ]
    if arguments.json:
        print_json(entries)
        return 0
    from tabulate import tabulate

    print(tabulate(entries, headers="keys", tablefmt="simple"))
    return 0
