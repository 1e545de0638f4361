"""Every causal model type of transformers, as a tiny random model, and what becomes of it at load.

``python tests/models/families.py`` writes the table of docs/backbones.md.
"""

import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone

BLOCKS, VOCABULARY, LENGTH, SECONDS = 4, 97, 40, 60
PIECES, HALVES = [5, 1, 7, 1, 20, 6], (slice(0, 20), slice(20, 40))
PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
KINDS = {
    "exact": "Exact everywhere",
    "scored": "Exact and scored, but they cannot generate",
    "refused": "Refused",
    "not built": "Not built tiny, and so not tried",
    "FAULT": "Faults",
}
TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

# Where a configuration has one of these keys, its value; what depends on the number of blocks,
# such as layer_types, follows from it. Other keys keep the family's own defaults.
_WIDTH = ("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim")
_WIDTH += ("emb_dim", "attention_hidden_size", "lru_width", "index_hidden_size", "embedding_dim")
_MIDDLE = ("intermediate_size", "ffn_dim", "dff", "n_inner", "decoder_ffn_dim", "dim_ff")
_MIDDLE += ("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size")
_MIDDLE += ("intermediate_size_mlp", "expert_ffn_hidden_size", "dense_intermediate_size")
_MIDDLE += ("shared_intermediate_size", "moe_shared_expert_intermediate_size", "d_inner")
_MIDDLE += ("encoder_ffn_dim", "shared_experts_intermediate_size", "feed_forward_size")
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_DEPTH += ("encoder_layers", "num_blocks", "num_encoder_layers", "num_decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_HEADS += ("encoder_attention_heads", "attention_heads", "swa_num_attention_heads")
_HEADS += ("num_encoder_attention_heads", "num_decoder_attention_heads", "mamba_n_heads")
_HEADS += ("linear_num_heads", "linear_num_value_heads", "mamba_num_heads", "n_mamba_heads")
_FEWER = ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "linear_num_key_heads")
_FEWER += ("index_n_heads", "num_query_groups", "n_group", "topk_group", "num_expert_group")
_FEWER += ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "n_groups")
_FEWER += ("mamba_n_groups", "first_k_dense_replace", "num_dense_layers", "o_groups")
_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
_HEAD = ("head_dim", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim", "d_head", "kv_channels")
_HEAD += ("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "index_head_dim")
_HEAD += ("swa_head_dim", "rotary_dim", "mamba_d_state", "state_size", "d_kv", "dim_head")
_HEAD += ("ssm_state_size", "time_step_rank", "mamba_dt_rank", "attention_head_size")
_RANK = ("kv_lora_rank", "q_lora_rank", "o_lora_rank", "laurel_rank", "gated_norm_rank", "d_rel")
_RANK += (
    "adapter_rank",
    "router_hidden_size",
    "hidden_size_per_layer_input",
    "input_embedding_size",
)
_RANK += ("ple_embed_dim", "hc_lowrank", "rank", "output_embedding_size")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length")
_CONTEXT += ("context_length", "max_target_positions", "max_source_positions", "rel_extent")
_CONTEXT += ("keep_window_size", "index_topk")
_WINDOW = ("sliding_window", "sliding_window_size", "local_attention", "window_size")
_WINDOW += ("attention_window_size", "attention_chunk_size")
_VOCABULARY = ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size")
SMALL: dict[str, Any] = {
    **dict.fromkeys(_WIDTH, 32),
    **dict.fromkeys(_MIDDLE, 48),
    **dict.fromkeys(_DEPTH, BLOCKS),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_FEWER, 2),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_HEAD, 8),
    **dict.fromkeys(_RANK, 16),
    **dict.fromkeys(_CONTEXT, 128),
    **dict.fromkeys(_WINDOW, 6),
    **dict.fromkeys(_VOCABULARY, VOCABULARY),
    **dict.fromkeys(("initializer_range", "init_std", "embed_init_std", "initializer_factor"), 0.3),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), 1),
    **{"pad_token_id": 0, "unpadded_vocab_size": VOCABULARY},
    **{"mamba_d_head": 16, "mamba_head_dim": 16, "mamba_headdim": 16, "qk_head_dim": 16},
    **{"mamba_d_ssm": 64, "mamba_chunk_size": 8, "chunk_size": 8, "num_kv_shared_layers": 2},
}
MIXED = ["sliding_attention", "full_attention"] * 2
ROPE = {"rope_type": "default"}
# What one family needs beyond them; None: the key is left to the family.
OWN: dict[str, dict[str, Any]] = {
    **{
        name: {"num_key_value_heads": 4}  # multi-head latent attention: as many as heads
        for name in ("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite")
    },
    **{name: {"num_key_value_heads": 4} for name in ("glm_moe_dsa", "minicpm3", "youtu")},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2, "topk_method": "greedy"},
    "blt": {"encoder_hash_byte_group_vocab": 97, "encoder_hash_byte_group_size": [3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_theta": 1e4, **ROPE}}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 48, "hidden_size": 32},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4, "per_layer_config": {}, "head_dim": 16},
    "gemma3_text": {"layer_types": MIXED},
    "gemma4_text": {"layer_types": MIXED, "num_kv_shared_layers": 0, "global_head_dim": 8},
    "gemma4_unified_text": {"layer_types": MIXED, "num_kv_shared_layers": 0, "global_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"zero_expert_num": 2, "num_key_value_heads": 4},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        **{"indexer_budget": 8, "indexer_compress_ratio": 2, "indexer_n_heads": 2},
        **{"indexer_kv_heads": 1, "indexer_head_dim": 8},
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"] * 2,
    },
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": {
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid"],
        **{"num_key_value_heads": 4, "attention_hidden_size": 64},
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        **{"num_key_value_heads": 4, "n_mamba_heads": 4},
    },
    "zaya": {"num_experts_per_tok": 1},
}
# Settings that make another model of a family: (type, settings) by name.
_SHARED = {"layer_types": MIXED, "num_kv_shared_layers": 2, "global_head_dim": 8}
_LONG = [1.0, 2.0, 3.0, 4.0]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4_text, no inputs per layer": ("gemma4_text", {"hidden_size_per_layer_input": 0}),
    "gemma4_text, shared keys and values": (
        "gemma4_text",
        {**_SHARED, "hidden_size_per_layer_input": 0},
    ),
    **{f"{name}, sparse": (name, {"index_topk": 8}) for name in ("axk2", "deepseek_v32")},
    **{f"{name}, sparse": (name, {"index_topk": 8}) for name in ("dots3_note_text", "glm_moe_dsa")},
    "doge, sparse": ("doge", {"keep_window_size": 6}),
    "llama, dynamic rope": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "phi3, longrope": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": _LONG,
                "original_max_position_embeddings": 16,
            },
            "original_max_position_embeddings": 16,
        },
    ),
    **{
        f"{name}, as a decoder": (name, {"is_decoder": True})
        for name in ("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra")
    },
    **{
        f"{name}, as a decoder": (name, {"is_decoder": True})
        for name in ("ernie", "megatron-bert", "rembert", "roberta", "roberta-prelayernorm")
    },
    **{
        f"{name}, as a decoder": (name, {"is_decoder": True})
        for name in ("roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod")
    },
}


@dataclass(frozen=True)
class Outcome:
    """What became of a family.

    Attributes:
        kind: "exact", "scored" (exact, but not cached), "refused", "not built" or "FAULT".
        why: the sentence, where there is one.
    """

    kind: str
    why: str = ""


def small_config(model_type: str, **settings: Any) -> Any:
    """Return a family's configuration with every size made small."""
    make = CONFIG_MAPPING[model_type]
    own = OWN.get(model_type, {}) | settings
    try:
        known = make().to_dict()
    except Exception:  # noqa: BLE001 - no valid default: the family's own settings say all
        known = dict.fromkeys((*SMALL, *own), 0)
    return make(**_shrunken(known, own))


def _shrunken(known: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that are made small, those of its parts too."""
    small = {key: SMALL[key] for key, value in known.items() if key in SMALL and value is not None}
    for key, value in known.items():
        if isinstance(value, dict) and (part := value.get("model_type")):
            small[key] = {"model_type": part, **_shrunken(value, OWN.get(part, {}))}
    return small | own


def make_model(model_type: str, **settings: Any) -> Any:
    """Return a random model of a family, whose norms and biases are no ones and zeros."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small_config(model_type, **settings))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer of two-letter words whose ids fill the vocabulary."""
    words = {"<unk>": 0, "</s>": 1, **{f"w{index}": index for index in range(2, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)


def differences(backbone: Backbone, *, cached: bool) -> dict[str, float]:
    """Largest relative error of every way to read 24 tokens, at every layer, by its name."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, backbone.vocab_size, (2, LENGTH), generator=generator)
    with torch.no_grad():
        whole = backbone.model(input_ids=tokens, use_cache=False).logits
        halves = [backbone.model(input_ids=tokens[:, h], use_cache=False).logits for h in HALVES]
    apart, positions = torch.cat(halves, 1), torch.arange(LENGTH // 2).repeat(2, 2)
    found = {
        "uncut": _error(backbone.logits(tokens), whole),
        "causal": _error(halves[0], whole[:, HALVES[0]]),
    }
    found["packed"] = _error(backbone.logits(tokens, positions), apart)
    pieces = tokens.split(PIECES, dim=1)
    if cached:
        cache = backbone.new_cache()
        read = [backbone.logits(piece, cache=cache) for piece in pieces]
        found["cached"] = _error(torch.cat(read, 1), whole)
    for layer in range(backbone.blocks + 1):
        found[f"cut at {layer}"] = _error(
            backbone.upper(backbone.lower(tokens, layer), layer), whole
        )
        below = backbone.lower(tokens, layer, positions)
        found[f"packed at {layer}"] = _error(backbone.upper(below, layer, positions), apart)
        if cached:
            lower, upper = backbone.new_cache(), backbone.new_cache()
            states = [backbone.lower(piece, layer, cache=lower) for piece in pieces]
            read = [backbone.upper(state, layer, cache=upper) for state in states]
            found[f"cached at {layer}"] = _error(torch.cat(read, 1), whole)
    return found


def _error(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max())


def outcome(name: str) -> Outcome:
    """Make a tiny model of a type or variant, save it, load it, and try everything."""
    model_type, settings = VARIANTS.get(name, (name, {}))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        try:
            model = make_model(model_type, **settings)
        except Exception as error:  # noqa: BLE001 - the library's own: there is nothing to load
            return Outcome("not built", f"{type(error).__name__}: {str(error).splitlines()[0]}")
        model.save_pretrained(folder)
        save_tokenizer(folder)
        try:
            backbone = Backbone.load(text)
            backbone.check_window(LENGTH)
        except UserError as error:
            return Outcome("refused", str(error).replace(text, "FOLDER"))
        worst = max(
            differences(backbone, cached=not backbone.only_scored).items(), key=lambda x: x[1]
        )
    if worst[1] > 1e-4:
        return Outcome("FAULT", f"{worst[0]}: {worst[1]:.2g}")
    return Outcome("scored" if backbone.only_scored else "exact", backbone.only_scored)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcomes(names: Iterable[str]) -> Iterator[tuple[str, Outcome]]:
    """What becomes of each."""
    for name in names:
        try:
            with at_most(SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield name, outcome(name)
        except Exception as error:  # noqa: BLE001 - that none gets here is what the test asserts
            yield name, Outcome("FAULT", f"{type(error).__name__}: {error}")


def table(found: Mapping[str, Outcome]) -> str:
    """The part of docs/backbones.md that is measured."""
    lines = [f"Measured with transformers {transformers.__version__}:"]
    for kind, title in KINDS.items():
        own = {name: one.why for name, one in found.items() if one.kind == kind}
        lines += ["", f"### {title} ({len(own)})", ""]
        if not any(own.values()):
            lines.append(" ".join(f"`{name}`" for name in own) or "none")
            continue
        lines += ["| type | why |", "|---|---|"]
        lines += [f"| `{name}` | {_shortened(why)} |" for name, why in own.items()]
    return "\n".join(lines) + "\n"


def _shortened(sentence: str) -> str:
    """A refusal without what every one of its kind says."""
    reason = re.sub(r"^unsupported architecture '.*?': ", "", sentence)
    reason = re.sub(r"; use a decoder-only .*|: give a .*|; give a .*", "", reason)
    return re.sub(r"^a model of type '.*?' whose", "its", reason).replace("|", "/")


def page(found: Mapping[str, Outcome]) -> str:
    """docs/backbones.md with a table of what was found."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table(found)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    result = {}
    for name, result[name] in outcomes(sys.argv[1:] or [*TYPES, *VARIANTS]):
        print(name, result[name].kind, result[name].why, flush=True)
    if not sys.argv[1:]:
        PAGE.write_text(page(result), encoding="utf-8")
