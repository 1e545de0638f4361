"""The recipe of the bundled backbone and judge: ``dihal-bench backbone train``.

Both are small causal language models with one BPE vocabulary, trained on the ``models`` set of the
bundled corpus, which no interface trains on and nothing is evaluated on. They differ in
architecture and seed. Matrices are trained with Muon, everything else with AdamW.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from dihal_bench.core.files import atomic_path, lock, write_json
from dihal_bench.core.progress import progress, say
from dihal_bench.data.bundled import bundled_corpus
from dihal_bench.data.tokens import PackedTokens, Windows, pack, tokenizer_fingerprint
from dihal_bench.models import loading
from dihal_bench.models.cut import path_to_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from dihal_bench.data.documents import Corpus

BUNDLED = Path(loading.__file__).parent / "bundled"
BOUNDARY = "<|endoftext|>"  # begins and ends every document


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights of a bundled model.

    Attributes:
        model_type: transformers' name of the architecture.
        architecture: keyword arguments of its configuration.
        vocab_size: entries of the byte-level BPE vocabulary.
        window: tokens per training window, also the context it is tested at.
        batch: windows per step.
        epochs: passes over the ``models`` set.
        muon_lr: peak learning rate of matrices inside blocks.
        adam_lr: peak learning rate of embeddings, norms and biases.
        weight_decay: decoupled weight decay of both optimisers.
        warmup: share of the steps with a rising rate; afterwards it falls linearly to zero.
        seed: of initialisation and data order.
    """

    model_type: str
    architecture: dict[str, Any]
    vocab_size: int = 4096
    window: int = 512
    batch: int = 4
    epochs: float = 7.0
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    weight_decay: float = 0.05
    warmup: float = 0.02
    seed: int = 0


RECIPES = {
    "backbone": Recipe(
        model_type="llama",
        architecture={
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
    ),
    "judge": Recipe(
        model_type="gpt_neox",
        architecture={
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
        seed=1,
    ),
}


def train_bundled(role: str, out: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """Train one small model from scratch on the bundled corpus and write its folder.

    Args:
        role: "backbone", "judge", or what else the recipe is for; the model card calls it so.
        out: folder that receives config, bf16 weights, tokenizer, and the model card.
        recipe: another recipe than the role's own.

    Returns:
        The facts of the model card (recipe, data fingerprint, perplexity).
    """
    recipe = recipe or RECIPES[role]
    corpus = bundled_corpus()
    tokenizer = train_tokenizer(corpus, recipe.vocab_size)
    data = pack(corpus, "models", tokenizer, window=recipe.window, end_of_document=True)
    held_out = pack(corpus, "validation", tokenizer, window=recipe.window)
    model = _new_model(recipe, tokenizer)
    steps = _fit(model, data, recipe)
    model = model.to(torch.bfloat16)
    nll, tokens = evaluate(model.float(), held_out)
    facts = {
        "role": role,
        "recipe": asdict(recipe),
        "corpus_fingerprint": corpus.fingerprint,
        "corpus": corpus.notes,
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
        "training_tokens": len(data) * recipe.window,
        "tokens_seen": steps * recipe.batch * recipe.window,
        "parameters": sum(p.numel() for p in model.parameters()),
        "validation": {
            "nll": nll,
            "perplexity": math.exp(nll),
            "tokens": tokens,
            "window": recipe.window,
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    _save(model.to(torch.bfloat16), tokenizer, facts, out)
    return facts


def train_tokenizer(corpus: Corpus, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE tokenizer on the ``models`` set; only the text decides it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOUNDARY],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(corpus.splits["models"](), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=BOUNDARY, eos_token=BOUNDARY)


def _new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(recipe.seed)
    config = AutoConfig.for_model(
        recipe.model_type,
        vocab_size=recipe.vocab_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **recipe.architecture,
    )
    return AutoModelForCausalLM.from_config(config)


def _fit(model: PreTrainedModel, data: PackedTokens, recipe: Recipe) -> int:
    steps = int(len(data) * recipe.epochs) // recipe.batch
    optimizers = _optimizers(model, recipe)
    rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    model.train()
    with progress("train", steps * recipe.batch * recipe.window, unit="tokens") as bar:
        for step in range(steps):
            windows = data.draw(recipe.seed, step * recipe.batch, recipe.batch)
            loss = token_nll(model, windows, autocast=True).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scale = min(
                (step + 1) / (recipe.warmup * steps), (steps - step) / ((1 - recipe.warmup) * steps)
            )
            for optimizer, base in zip(optimizers, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * scale
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            bar.update(recipe.batch * recipe.window)
            bar.note(f"step {step} loss {loss.item():.3f}")
    return steps


def _optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    blocks = ".".join(path_to_blocks(model))
    matrices = [
        p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith(f"{blocks}.")
    ]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def token_nll(model: PreTrainedModel, windows: Windows, *, autocast: bool) -> torch.Tensor:
    """Return the NLL of every scored token, shape [scored]; documents are kept apart."""
    tokens = torch.from_numpy(windows.tokens)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(tokens, position_ids=torch.from_numpy(windows.positions), use_cache=False)
    logits = output.logits[:, :-1].float().flatten(0, 1)
    scored = torch.from_numpy(windows.scored)[:, 1:].flatten()
    return F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")[scored]


@torch.no_grad()
def evaluate(model: PreTrainedModel, data: PackedTokens, batch: int = 8) -> tuple[float, int]:
    """Return the mean NLL in nats per scored token over all windows, and the number of tokens."""
    model.eval()
    total, count = 0.0, 0
    for lo in range(0, len(data), batch):
        windows = data.batch(range(lo, min(lo + batch, len(data))))
        losses = token_nll(model, windows, autocast=False)
        total += losses.double().sum().item()
        count += losses.numel()
    return total / count, count


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, facts: dict[str, Any], out: Path
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    with atomic_path(out / "README.md") as path:
        path.write_text(_card(facts), encoding="utf-8")
    write_json(out / "recipe.json", facts)  # last: a folder that has it is complete


def _card(facts: dict[str, Any]) -> str:
    from tabulate import tabulate

    recipe, validation = facts["recipe"], facts["validation"]
    rates = (
        f"lr {recipe['muon_lr']} for block matrices), AdamW (lr {recipe['adam_lr']} for the rest"
    )
    rows = {
        "command": f"`dihal-bench backbone train --role {facts['role']} --out FOLDER`",
        "architecture": f"`{recipe['model_type']} {json.dumps(recipe['architecture'])}`",
        "corpus fingerprint": f"`{facts['corpus_fingerprint']}`",
        "tokenizer": f"byte-level BPE, {recipe['vocab_size']} entries, "
        f"fingerprint `{facts['tokenizer_fingerprint']}`",
        "tokens seen": f"{facts['tokens_seen']:,} ({recipe['epochs']} epochs of "
        f"{facts['training_tokens']:,})",
        "optimisers": f"Muon ({rates}), weight decay {recipe['weight_decay']}",
        "schedule": f"{recipe['warmup']:.0%} warm-up, then linear to zero; "
        f"{recipe['batch']} windows of {recipe['window']} tokens per step",
        "seed, threads, torch": f"{recipe['seed']}, {facts['threads']}, {facts['torch']}",
        "validation perplexity": f"**{validation['perplexity']:.2f}** per token "
        f"({validation['nll']:.4f} nats) on {validation['tokens']:,} tokens of the `validation` "
        f"set, windows of {validation['window']}",
    }
    table = tabulate(rows.items(), headers=["", ""], tablefmt="github")
    return f"""# Bundled {facts["role"]}

A {recipe["model_type"]} causal language model of {facts["parameters"]:,} parameters, trained from
scratch on English prose from the docstrings of this package's dependencies (documents of the
`models` set only).

{table}

The weights are bfloat16. The model knows how library documentation is written, and little else; it
exists so that the benchmark can be run and tested without a network or a GPU.
"""


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
