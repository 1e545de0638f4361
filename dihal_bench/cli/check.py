"""``dihal-bench check``: the conformance kit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.cli.common import INCLUDE, JSON, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from dihal_bench.cli.common import Verbs
    from dihal_bench.config.schema import RunConfig

_SET = "a setting of the interface or denoiser, or of the process: embedding.rounding=nearest"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "check", help="hold an interface against the contract, on a tiny model, in seconds"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="interfaces (default: those of --include)"
    )
    parser.add_argument("--include", action="append", metavar="FILE", help=INCLUDE)
    parser.add_argument(
        "--denoiser", default="transformer", help="registered denoiser (default: transformer)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=_SET)
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.check.kit import examine, render, subjects
    from dihal_bench.check.subject import FAIL
    from dihal_bench.core.registry import include

    files = arguments.include or []
    for path in files:
        include(path)
    names = arguments.names or _registered_by(files)
    config = _settings(arguments, files, names)
    chosen = subjects(
        names,
        arguments.denoiser,
        denoiser_options=config.denoiser.options,
        diffusion=config.diffusion,
        options=config.options,
    )
    findings = examine(chosen)
    if arguments.json:
        print_json([finding.to_dict() for finding in findings])
    else:
        print(render(findings))
    return int(any(finding.verdict == FAIL for finding in findings))


def _settings(
    arguments: argparse.Namespace, files: Sequence[str], names: Sequence[str]
) -> RunConfig:
    """Return the configuration that holds the given settings.

    Raises:
        UserError: one of them is unknown, or has no effect on what is checked.
    """
    from dihal_bench.config.resolve import resolve
    from dihal_bench.core.errors import UserError
    from dihal_bench.core.registry import DENOISERS, INTERFACES

    sections = {INTERFACES.get(name).section or name for name in names}
    sections.add("diffusion")
    if DENOISERS.get(arguments.denoiser).Options:
        sections.add(f"denoiser.{arguments.denoiser}")
    for item in arguments.set:
        if not item.strip().startswith(tuple(f"{section}." for section in sections)):
            raise UserError(
                f"--set {item}: check reads settings of {', '.join(sorted(sections))} alone."
            )
    values = {"include": tuple(files), "denoiser.name": arguments.denoiser}
    return resolve(values=values, sets=arguments.set)


def _registered_by(files: Sequence[str]) -> list[str]:
    """Return the interfaces that come from the included files.

    Raises:
        UserError: there are none.
    """
    from pathlib import Path

    from dihal_bench.core.errors import UserError
    from dihal_bench.core.registry import INTERFACES

    places = tuple(f"{Path(file).resolve()}:" for file in files)
    found = [name for name in INTERFACES.names() if INTERFACES.origin(name).startswith(places)]
    if not found:
        raise UserError(
            "check: nothing says which interface; give its NAME, or --include a file that "
            "registers one."
        )
    return found
