"""What lies in a model's folder is used, or refused by its name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dihal_bench.core.errors import UserError
from dihal_bench.data.documents import Corpus
from dihal_bench.data.tokens import pack
from dihal_bench.models import Backbone, loading
from dihal_bench.models import folder as folders

from .families import save_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete tiny Llama."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 97}
    LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **sizes)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


def refusal(folder: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        Backbone.load(str(folder), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder: Path, **more: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | more, path, metadata={"format": "pt"})


def configure(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter(folder, file):
    (folder / file).write_text("{}")
    assert f"adapter ({file})" in refusal(folder)


def test_a_second_set_of_weights(folder):
    one = {"lm_head.weight": torch.zeros(2, 2)}
    save_file(one, folder / "consolidated.safetensors")
    assert Backbone.load(str(folder)).blocks == 2
    save_file(one, folder / "model-00001-of-00002.safetensors")
    assert "holds model-00001-of-00002.safetensors" in refusal(folder)


@pytest.mark.parametrize(
    "key", ["model.layers.0.self_attn.q_proj.bias", "v_head.summary.weight", "model.extra_scale"]
)
def test_weights_that_no_parameter_takes(folder, key):
    change(folder, **{key: torch.zeros(16)})
    assert key in refusal(folder)


def test_buffers_of_older_versions(folder):
    change(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    assert Backbone.load(str(folder)).blocks == 2


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_without_their_configuration(folder, dtype):
    key = "model.layers.0.mlp.up_proj.weight"
    change(folder, **{key: load_file(folder / "model.safetensors")[key].to(dtype)})
    message = refusal(folder)
    assert key in message
    assert "quantization_config" in message


@pytest.mark.parametrize("method", ["gptq", "nobody-knows-it"])
def test_a_quantisation_that_cannot_be_read_here(folder, method):
    configure(folder, quantization_config={"quant_method": method, "bits": 4})
    assert f"quantised by {method}" in refusal(folder)


def test_memory_is_predicted_before_weights_are_read(folder, monkeypatch):
    bytes_needed = sum(p.numel() * 4 for p in load_file(folder / "model.safetensors").values())
    monkeypatch.setattr(folders, "free_memory", lambda: bytes_needed)
    assert Backbone.load(str(folder)).blocks == 2
    monkeypatch.setattr(folders, "free_memory", lambda: bytes_needed - 1)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    assert "give --dtype bfloat16, a smaller backbone" in refusal(folder)


def test_memory_that_is_free_is_less_than_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(folders, "_CGROUP", tmp_path)
    assert folders.free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 90 kB\nMemAvailable:   50 kB\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("30000\n")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 5000\n")
    assert folders.free_memory() == 50 * 1024
    (tmp_path / "memory.max").write_text("40000\n")
    assert folders.free_memory() == 40000 - 30000 + 5000


def test_a_gpu_that_imitates_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UserError, match="cuda does not compute in bfloat16: give --dtype float32"):
        loading.check_dtype(torch.device("cuda"), torch.bfloat16)
    loading.check_dtype(torch.device("cpu"), torch.bfloat16)


def test_a_tokenizer_of_added_tokens_only(folder):
    tokenizer = Tokenizer(models.WordLevel({}))
    tokenizer.add_tokens(list("abc "))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    assert Backbone.load(str(folder)).tokenizer("a").input_ids == [0]


def test_added_tokens_that_text_holds_are_found_with_their_document(folder):
    tokenizer = Backbone.load(str(folder)).tokenizer
    tokenizer.add_tokens(["<more>"])
    texts = ["w2 w3", "w4 w5 w6", "w7 <more> w8", "<more> w9"]
    splits = {"train": lambda: iter(texts)}
    corpus = Corpus(name="mine", fingerprint="own", splits=splits, notes={})
    data = pack(corpus, "train", tokenizer, window=2)
    assert data.first_of(97) == (97, 2)
    assert data.first_of(98) is None
