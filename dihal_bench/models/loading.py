"""Reading a pretrained model from a folder or the Hugging Face hub, with errors one can act on."""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dihal_bench.core import distributed
from dihal_bench.core.errors import UserError, first_sentence
from dihal_bench.models.cut import TESTED_FAMILIES, path_to_blocks
from dihal_bench.models.folder import adapter_error, check_folder, check_used, check_weights

JUDGE = "bundled-judge"
BUNDLED = {"bundled": "backbone", JUDGE: "judge"}
"""Names of the models inside the package, and their folders under ``bundled/``."""

_LONG = "longrope"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def locate(name: str) -> str:
    """Turns a backbone's name into a folder that looks complete, or a hub id.

    Args:
        name: A name in `BUNDLED`, a folder, or a hub id such as ``Qwen/Qwen3-0.6B``.

    Raises:
        UserError: The folder does not exist, or lacks the configuration or weights.
    """
    if name in BUNDLED:
        folder = Path(__file__).parent / "bundled" / BUNDLED[name]
        if not folder.is_dir():
            raise UserError(
                f"backbone {name!r} is not in this installation: install dihal-bench again"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        check_folder(name, path)
        return str(path)
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"backbone {name!r} does not exist: give an existing folder, a hub id, or 'bundled'"
        )
    return name


def bundled_facts(name: str = "bundled") -> dict[str, Any]:
    """The facts of a bundled model's card: its recipe, its size, the corpus it was trained on."""
    facts = Path(__file__).parent / "bundled" / BUNDLED[name] / "recipe.json"
    return dict(json.loads(facts.read_text(encoding="utf-8")))


def bundled_fingerprint() -> str:
    """The fingerprint of the bundled corpus that the bundled backbone was trained beside."""
    return str(bundled_facts()["corpus_fingerprint"])


def check_device(device: str | torch.device) -> torch.device:
    """The device, if tensors can live on it.

    Raises:
        UserError: There is no such device on this machine.
    """
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {device} is not available here ({first_sentence(error)}); use --device cpu."
        ) from error
    if place.type == "meta":
        raise UserError("--device meta computes nothing; use --device cpu.")
    return place


def check_dtype(device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a device that cannot compute in a dtype, or only by imitation.

    Raises:
        UserError: It cannot.
    """
    imitated = device.type == "cuda" and dtype == torch.bfloat16
    able = not imitated or torch.cuda.is_bf16_supported(including_emulation=False)
    if able:
        try:
            one = torch.ones(1, 1, dtype=dtype, device=device)
            able = bool((one @ one == 1).all())
        except (RuntimeError, TypeError):
            able = False
    if not able:
        name = str(dtype).removeprefix("torch.")
        raise UserError(f"device {device} does not compute in {name}: give --dtype float32")


def read_tokenizer(name: str, source: str, local_files_only: bool | None) -> Any:
    """The tokenizer that belongs to a model.

    Raises:
        UserError: There is none, or an empty one.
    """
    from transformers import AutoTokenizer

    with explained(
        f"the tokenizer of backbone {name!r} cannot be read", "save one into the same folder"
    ):
        tokenizer = AutoTokenizer.from_pretrained(source, **_safely(local_files_only))
    # Without any tokenizer file, transformers 5 makes one that knows special tokens only.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UserError(
            f"backbone {name!r} has no tokenizer: save one into the same folder (tokenizer.json)"
        )
    return tokenizer


def read_config(name: str, source: str, local_files_only: bool | None) -> Any:
    """The configuration of a causal language model.

    Raises:
        UserError: It cannot be found or read, is of an unknown type, or is another kind of model.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    failure = f"backbone {name!r} is no folder here and cannot be fetched from the Hugging Face hub"
    remedy = "give a local folder, or download the model while online"
    if Path(source).is_dir():
        failure = f"the config.json of backbone {name!r} cannot be used"
        remedy = f"repair it or give a supported model (tested: {', '.join(TESTED_FAMILIES)})"
    with explained(failure, remedy):
        config = AutoConfig.from_pretrained(source, **_safely(local_files_only))
    _refuse_adapter(name, source, local_files_only)
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"backbone {name!r} is of type {config.model_type!r}, which is not a causal language "
            "model: give a decoder-only model"
        )
    return config


def read_weights(
    name: str, source: str, config: Any, dtype: torch.dtype, local_files_only: bool | None
) -> tuple[Any, dict[str, Any]]:
    """The model on the CPU with its safetensors weights, and a report of what did not fit.

    Raises:
        UserError: There are no readable safetensors weights.
    """
    from transformers import AutoModelForCausalLM

    check_weights(name, _folder(source), config, dtype)
    failure = f"the weights of backbone {name!r} cannot be read"
    remedy = "give complete safetensors files"
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        way = dict(quantised).get("quant_method", "a method without a name")
        failure = f"the weights of backbone {name!r}, quantised by {way}, cannot be read"
        remedy = "install what that method needs, or give weights that are not quantised"
    with _quiet(source), explained(failure, remedy):
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the report names them, and check_complete refuses
            output_loading_info=True,
            **_safely(local_files_only),
        )
    if quantised and getattr(model, "hf_quantizer", None) is None:
        raise UserError(f"{failure} (transformers does not know the method): {remedy}")
    return model, report


def check_complete(name: str, report: dict[str, Any]) -> None:
    """Refuses a model that is not what the files hold; tied parameters count as present.

    Raises:
        UserError: A parameter is missing, has another shape, or is not in the model.
    """
    missing, unknown = report["missing_keys"], report["unexpected_keys"]
    misshapen = [key for key, *_ in report["mismatched_keys"]]
    if missing or misshapen:
        raise UserError(
            f"the weights of backbone {name!r} do not fit its config.json "
            f"(missing: {_some(missing)}; of another shape: {_some(misshapen)}; "
            f"unknown: {_some(unknown)}): give the config.json that belongs to the weights"
        )
    check_used(name, unknown)


def check_vocabulary(name: str, tokenizer: Any, size: int) -> None:
    """Refuses a tokenizer whose text has no place in the embeddings.

    Tokens that were added to it may lie beyond them: most of those never occur, and those that do
    are refused where text is packed or a prompt is read.

    Raises:
        UserError: A token of text, or the one in front of it, has an id of ``size`` or more.
    """
    if not tokenizer.is_fast:
        return
    text = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values()
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    highest = max([*text, *(mark for mark in marks if mark is not None)], default=0)
    if highest >= size:
        raise UserError(
            f"the tokenizer of backbone {name!r} gives ids up to {highest}, but the model has "
            f"{size} embeddings: give the tokenizer that belongs to the weights"
        )


def context_of(config: Any, tokenizer: Any) -> int | None:
    """Longest sequence that a model was made for, in tokens; None where nothing says it.

    Under longrope the rotary table of every place changes once a sequence exceeds the original
    context, so that first logits depend on what follows: such a model is used up to there.
    """
    from transformers.tokenization_utils_base import LARGE_INTEGER

    own = config.get_text_config(decoder=True)
    ropes = [own.rope_parameters or {}] if hasattr(own, "rope_parameters") else []
    ropes += [rope for rope in ropes[0].values() if isinstance(rope, dict)] if ropes else []
    originals = [
        r["original_max_position_embeddings"] for r in ropes if r.get("rope_type") == _LONG
    ]
    stated = [getattr(own, key, None) for key in ("max_position_embeddings", "max_seq_len")]
    stated.append(getattr(tokenizer, "model_max_length", None))
    first = next((int(n) for n in stated if n and n < LARGE_INTEGER), None)
    return min([*originals, *([first] if first else [])], default=None)


def _folder(source: str) -> Path:
    """Where a model's files lie, those of a hub id as far as they were fetched before."""
    if Path(source).is_dir():
        return Path(source)
    from transformers.utils import cached_file

    return Path(cached_file(source, "config.json", local_files_only=True) or "").parent


def _refuse_adapter(name: str, source: str, local_files_only: bool | None) -> None:
    """Refuse a repository with an adapter, which transformers would apply if peft is installed."""
    if Path(source).is_dir():
        return  # looked at by `check_folder`
    from transformers.utils import cached_file

    file = "adapter_config.json"
    if cached_file(
        source,
        file,
        local_files_only=bool(local_files_only),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    ):
        raise adapter_error(name, file)


def _safely(local_files_only: bool | None) -> dict[str, bool]:
    """Arguments of every from_pretrained: no foreign code, and the network only where allowed."""
    return {"trust_remote_code": False, "local_files_only": bool(local_files_only)}


@contextmanager
def _quiet(source: str) -> Iterator[None]:
    """Keeps the library's long report away, which is ours to give, and the bar of a local folder.

    A download shows its progress.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bar = Path(source).is_dir() and logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bar:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def explained(failure: str, remedy: str) -> Iterator[None]:
    """Puts what the libraries raise over unusable files into one sentence."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    mishaps = (OSError, ValueError, LookupError, ImportError, RuntimeError)
    try:
        yield
    except (*mishaps, StrictDataclassError, SafetensorError) as error:
        raise UserError(f"{failure} ({first_sentence(error)}): {remedy}") from error


def _some(names: Collection[str]) -> str:
    """The first few of many names."""
    few = sorted(names)[:2]
    return ", ".join(few) + f" and {len(names) - 2} more" * (len(names) > 2) if few else "none"


def shard_blocks(model: Any, device: torch.device) -> None:
    """Freezes a model and spreads the weights of its blocks over all processes, by FSDP2.

    A process holds its share of every block; a block's pass gathers the rest and lets it go again,
    backwards too where a gradient flows through. Embeddings, final norm and head stay whole.

    Args:
        model: A transformers causal language model, on the CPU, where all of it has to fit.
        device: Where this process computes; its shares are placed there block by block.

    Raises:
        UserError: The model has no single list of blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.requires_grad_(False)
    mesh = init_device_mesh(device.type, (distributed.size(),))
    for block in model.get_submodule(".".join(path_to_blocks(model))):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def is_sharded(model: Any) -> bool:
    """Whether `shard_blocks` has spread a model."""
    if distributed.size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())
