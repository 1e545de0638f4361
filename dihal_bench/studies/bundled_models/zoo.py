"""Six small backbones, three architectures with two seeds each: what holds over all is no accident.

Layers of one backbone are no sample of anything, so a claim about layers is replicated over
backbones. These differ from each other in norm, positions, activation and the order of attention
and feed-forward; text, tokenizer, size and recipe are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.core.files import lock
from dihal_bench.core.progress import say
from dihal_bench.studies.bundled_models.recipe import Recipe, train_bundled

if TYPE_CHECKING:
    from pathlib import Path

_WIDTH, _BLOCKS, _HEADS, _CONTEXT, _EPOCHS = 128, 8, 4, 1024, 1.0
_COMMON: dict[str, Any] = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _BLOCKS,
    "num_attention_heads": _HEADS,
    "max_position_embeddings": _CONTEXT,
    "tie_word_embeddings": True,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "intermediate_size": 352, "num_key_value_heads": _HEADS},
    "gpt_neox": {**_COMMON, "intermediate_size": 512},
    "gpt2": {
        "n_embd": _WIDTH,
        "n_layer": _BLOCKS,
        "n_head": _HEADS,
        "n_positions": _CONTEXT,
        "tie_word_embeddings": True,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}
SEEDS = (10, 11)  # no bundled model has them

ZOO: dict[str, Recipe] = {
    f"{model_type}-{seed}": Recipe(
        model_type=model_type, architecture=architecture, epochs=_EPOCHS, seed=seed
    )
    for seed in SEEDS
    for model_type, architecture in ARCHITECTURES.items()
}


def train_zoo(out: Path) -> list[Path]:
    """Train every member that is not there yet, and return the folders of all.

    Several processes may do this at once, also on several machines that share the folder: each
    takes what no other is at. A member is complete when its facts are written.

    Args:
        out: folder that receives a folder per member.
    """
    folders = {name: out / name for name in ZOO}
    for wait in (False, True):  # what others are at is waited for at the end
        for name, folder in folders.items():
            with lock(folder, wait=wait) as held:
                if held and not (folder / "recipe.json").exists():
                    say(f"zoo: {name}")
                    train_bundled(name, folder, ZOO[name])
    return list(folders.values())
