"""A run's bridge on the Hugging Face hub: what is uploaded, by whose token, and what can go wrong.

Weights, configuration, record and card are uploaded, and nothing else of the run's folder.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench import __version__
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import BUNDLED
from dihal_bench.core.kept import read_json
from dihal_bench.core.markdown import one_line
from dihal_bench.models.named import NOTICE, notice_text
from dihal_bench.reporting.hub.card import CARD, card_of_run, is_here, record_of_run
from dihal_bench.reporting.hub.scores import OWN_NAMES, hub_dataset, hub_model, paths
from dihal_bench.training.checkpoint import check_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dihal_bench.results.record import Record

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")  # what a header can hold
_BESIDE = ("digest", "identity", "score")  # the names of a run, and what may be scored anew
_SAID = 200  # characters of the hub's own words


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What is uploaded of a run.

    Attributes:
        id: of its record.
        files: path in the repository -> the file, or its content.
        warnings: what of a machine can be read in them, and what they need that is not there.
    """

    id: str
    files: Mapping[str, Path | bytes]
    warnings: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Path in the repository -> bytes."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


def bundle(run: Path) -> Bundle:
    """Collect what is uploaded of a run; its card is written anew.

    Args:
        run: folder of a complete run.

    Raises:
        UserError: the run is not complete, its weights are not there, or its configuration is not
            the one that it was run with.
    """
    record = record_of_run(run)
    card = card_of_run(run)
    notice = notice_text(record.data["backbone"].get("source", {}))
    own = record.data["interface"]["name"]
    weights = sorted(path for path in (run / "weights").glob("*.safetensors") if path.is_file())
    for path in (run / "weights" / f"{own}.safetensors", run / "config.json"):
        if not path.is_file():
            raise UserError(f"{run}: there is no {path.relative_to(run)}; run it again.")
    _check_configuration(run / "config.json", record)
    for path in weights:
        check_weights(path, record.data["weights"].get(path.stem))
    return Bundle(
        id=record.data["id"],
        files={
            CARD: card.encode(),
            **({NOTICE: notice.encode()} if notice else {}),
            **{name: run / name for name in ("config.json", "record.json")},
            **{f"weights/{path.name}": path for path in weights},
        },
        warnings=tuple(_warnings(record)),
    )


def _check_configuration(path: Path, record: Record) -> None:
    found, known = (
        {key: value for key, value in content.items() if key not in _BESIDE}
        for content in (read_json(path, remedy="put it back as it was"), record.data["config"])
    )
    if found != known:
        raise UserError(
            f"{path} is not the configuration that record.json was made with; put that one back."
        )


def find_token(file: Path | None = None) -> str:
    """Return the token: of the file, else of $HF_TOKEN, else of the hub library's own login.

    Raises:
        UserError: there is none, or it cannot be one.
    """
    where = "$HF_TOKEN or the login" if file is None else f"--token-file {file}"
    if file is None:
        from huggingface_hub import get_token

        with explained("the hub", ""):
            token = get_token() or ""
    else:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise UserError(
                f"{where} cannot be read ({reason}); give a file that holds a token alone."
            ) from None
        if not token:
            raise UserError(f"{where} is empty; give a file that holds a token alone.")
    if not token:
        raise UserError(
            "there is no token for the hub; give --token-file FILE, set HF_TOKEN, or log in with "
            "`hf auth login`."
        )
    if not _TOKEN.fullmatch(token):
        raise UserError(f"what {where} holds is no token; make one that may write on the hub.")
    return token


def check_repository(name: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        UserError: it is no NAME/MODEL that the hub accepts.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        valid = _REPOSITORY.fullmatch(name) is not None
        validate_repo_id(name)
    except HFValidationError:
        valid = False
    if not valid:
        raise UserError(
            f"--repo {one_line(name)} is no name of a repository; give NAME/MODEL, NAME being your "
            "user or organisation on the hub."
        )


def upload(own: Bundle, repository: str, token: str, *, private: bool = False) -> str:
    """Create the repository if there is none, and upload everything in one commit.

    Args:
        own: what is uploaded.
        repository: ``NAME/MODEL``.
        token: of a user who may write there.
        private: nobody else may see the repository.

    Returns:
        The address of the commit.

    Raises:
        UserError: the hub cannot be reached or refuses, or ``private`` is asked of a repository
            that is public already.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with explained(repository, token):
        api = HfApi(token=token, library_name="dihal-bench", library_version=__version__)
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(
                f"{repository} is there already and public, so --private cannot hold; make it "
                "private on the hub, or choose another name."
            )
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, content) for name, content in own.files.items()],
            commit_message=f"dihal-bench {__version__}: {one_line(own.id)}",
        )
    return str(commit.commit_url)


@contextmanager
def explained(repository: str, token: str) -> Iterator[None]:
    """Put what goes wrong between here and the hub into one sentence, without the token.

    Raises:
        UserError: something went wrong.
    """
    from huggingface_hub.utils import logging as hub_logging

    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)  # every retry has a warning
    try:
        yield
    except UserError:
        raise
    except _failures() as error:
        said = _sentence(error, repository)
        raise UserError(said.replace(token, "***") if token else said) from None
    finally:
        hub_logging.set_verbosity(before)


_REFUSED = {
    401: "does not accept the token (401); make one that may write at its settings, under Access "
    "Tokens",
    403: "does not let this token write there (403); give one of a user who may",
    404: "knows no such place (404); check --repo, and that the token may see it",
    409: "is being changed by somebody else, or has something else of that name (409); try again, "
    "or choose another name",
    413: "takes no files of that size (413); upload them with a plan that has room for them",
    429: "has had too many requests (429); wait some minutes and try again",
}


def _failures() -> tuple[type[BaseException], ...]:
    from huggingface_hub.errors import HfHubHTTPError, OIDCError

    client = HfHubHTTPError.__bases__  # the HTTP client's own error, whichever client that is
    return (OSError, ValueError, RuntimeError, OIDCError, *client)


def _sentence(error: BaseException, repository: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    chain = list(_chain(error))
    answered = next((e for e in chain if isinstance(e, HfHubHTTPError)), None)
    if answered is not None:
        status = answered.response.status_code
        if status in _REFUSED:
            return f"{repository}: the hub {_REFUSED[status]}."
        if status >= 500:
            return f"{repository}: the hub has a fault of its own ({status}); try again later."
        said = answered.server_message if error is answered else error
        return f"{repository}: the hub refused ({status}{_words(said)})."
    if any(isinstance(e, OfflineModeIsEnabled) for e in chain):
        return f"{repository}: HF_HUB_OFFLINE forbids to ask the hub; unset it."
    files = [e for e in chain if isinstance(e, OSError) and e.filename is not None]
    if files:
        return f"{files[0].filename} cannot be read ({files[0].strerror}); nothing was committed."
    if isinstance(error, (*HfHubHTTPError.__bases__[:1], ConnectionError)):
        return f"{repository}: the hub cannot be reached; check the connection and try again."
    return f"{repository}: the upload failed ({_words(error).removeprefix(': ')}); try again."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _words(said: object) -> str:
    """Return what was said as a part of a sentence; nothing for None."""
    text = one_line(said or "")[:_SAID].rstrip(". ")
    return f": {text}" if text else ""


def _warnings(record: Record) -> Iterator[str]:
    data: dict[str, Any] = record.data
    backbone, corpus = data["backbone"]["name"], data["corpus"]["name"]
    local = {
        "backbone": backbone not in OWN_NAMES and (is_here(backbone) or not hub_model(data)),
        "corpus": corpus != BUNDLED and not hub_dataset(data),
    }
    for what, name in (("backbone", backbone), ("corpus", corpus)):
        if local[what]:
            yield f"config.json and record.json name the local {what} {one_line(name)}"
    for path in paths(data):
        if path not in (backbone, corpus):
            yield f"config.json and record.json hold the local path {one_line(path)}"
    for path in data["config"]["include"]:
        yield f"others need the code in {one_line(path)}, which is not uploaded"
