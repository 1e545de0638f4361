"""``dihal-bench push``: a trained bridge for the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dihal_bench.cli.common import JSON, print_json
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs
    from dihal_bench.reporting.hub.upload import Bundle

_TOKEN = "file that holds a token of the hub (default: $HF_TOKEN, then the login of `hf auth`)"  # noqa: S105


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("push", help="upload a run's bridge to the Hugging Face hub")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run")
    add("--repo", required=True, metavar="NAME/MODEL", help="repository, made if there is none")
    add("--private", action="store_true", help="only you may see the repository")
    add("--token-file", type=Path, metavar="FILE", help=_TOKEN)
    add("--yes", action="store_true", help="do not ask before anything is uploaded")
    add("--dry-run", action="store_true", help="list what would be uploaded, do nothing")
    add("--json", action="store_true", help=JSON)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.reporting.hub.upload import bundle, check_repository, find_token, upload

    check_repository(arguments.repo)
    if arguments.token_file is not None:  # before anything is listed, also by a dry run
        find_token(arguments.token_file)
    own = bundle(arguments.run)
    show = say if arguments.json else print
    for line in _listing(own, arguments.repo, private=arguments.private):
        show(line)
    for warning in own.warnings:
        say(f"warning: {warning}")
    address = None
    if not arguments.dry_run:
        token = find_token(arguments.token_file)
        if not (arguments.yes or _agreed()):
            say("nothing was uploaded")
            return 1
        address = upload(own, arguments.repo, token, private=arguments.private)
        show(f"uploaded: {address}")
    if arguments.json:
        print_json(_said(own, arguments, address))
    return 0


def _listing(own: Bundle, repository: str, *, private: bool) -> list[str]:
    sizes = own.sizes
    wide = max(len(f"{size:,}") for size in sizes.values())
    files = [f"{size:>{wide},}  {name}" for name, size in sizes.items()]
    seen = (
        "private" if private else "as visible as the account makes its repositories: mostly public"
    )
    return [*files, f"{sum(sizes.values()):,} bytes to {_endpoint()}/{repository} ({seen})"]


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _agreed() -> bool:
    """Ask a person.

    Raises:
        UserError: there is none.
    """
    if not sys.stdin.isatty():
        raise UserError(
            "push uploads nothing unless somebody agrees, and this is no terminal; add --yes."
        )
    print("upload this? Type yes: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _said(own: Bundle, arguments: argparse.Namespace, address: str | None) -> dict[str, object]:
    return {
        "repository": arguments.repo,
        "endpoint": _endpoint(),
        "private": arguments.private,
        "record": own.id,
        "files": [{"path": name, "bytes": size} for name, size in own.sizes.items()],
        "warnings": list(own.warnings),
        "uploaded": address is not None,
        "commit": address,
    }
