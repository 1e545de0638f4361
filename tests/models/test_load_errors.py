"""What cannot be loaded is refused in one sentence that names the value and the remedy."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone, loading

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(["<unk>", "</s>", *"abcdefgh"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    )
    wrapped.save_pretrained(folder)


def save(folder: Path, auto: type, model_type: str, **settings: object) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **TINY | settings)
    auto.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete tiny Llama."""
    return save(tmp_path / "tiny", AutoModelForCausalLM, "llama")


def refusal(name: object, **kwargs: object) -> str:
    with pytest.raises(UserError) as caught:
        Backbone.load(str(name), **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_config(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_weights(folder: Path, change: object) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_a_complete_folder_loads(folder):
    backbone = Backbone.load(str(folder))
    direct = LlamaForCausalLM.from_pretrained(folder)
    tokens = torch.arange(12).view(1, 12)
    assert torch.equal(backbone.logits(tokens), direct(tokens).logits)
    assert backbone.tokenizer("a b zebra").input_ids == [2, 3, 0]
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert (backbone.blocks, backbone.device.type) == (2, "cpu")
    again = Backbone.load(str(folder), dtype=torch.bfloat16)
    assert again.lower(tokens, 1).dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_counts_as_present(tmp_path, tied):
    folder = save(tmp_path, AutoModelForCausalLM, "llama", tie_word_embeddings=tied)
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) is not tied
    assert Backbone.load(str(folder)).blocks == 2


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no/such", "a/b/c"])
def test_no_such_path(name):
    assert "does not exist" in refusal(name)


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
def test_a_hub_id_that_cannot_be_fetched(name):
    message = refusal(name, local_files_only=True)
    assert repr(name) in message
    assert "local folder" in message
    assert "online" in message


def test_a_file_is_not_a_folder(folder):
    assert "is a file, but no GGUF" in refusal(folder / "config.json")


def test_no_config(folder):
    (folder / "config.json").unlink()
    assert "no config.json" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "llama", "hidden_size": "wide"}'])
def test_a_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no *.safetensors weights" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"garbage" * 20])
def test_broken_weights(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert "weights" in refusal(folder)


def test_a_missing_shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weights" in refusal(folder)


def test_missing_weights(folder):
    def drop(weights: dict) -> dict:
        return {key: value for key, value in weights.items() if "layers.1.mlp" not in key}

    change_weights(folder, drop)
    message = refusal(folder)
    assert "missing: model.layers.1.mlp.down_proj.weight" in message
    assert "and 1 more" in message


def test_more_blocks_than_weights(folder):
    change_config(folder, num_hidden_layers=3)
    assert "missing: model.layers.2" in refusal(folder)


def test_weights_of_another_shape(folder):
    change_config(folder, intermediate_size=32)
    assert "of another shape: model.layers.0.mlp" in refusal(folder)


def test_weights_of_another_model(folder):
    def rename(weights: dict) -> dict:
        return {f"other.{key}": value for key, value in weights.items()}

    change_weights(folder, rename)
    message = refusal(folder)
    assert "missing: " in message
    assert "unknown: other." in message


def test_no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refusal(folder)


def test_an_empty_tokenizer_is_none(tmp_path):
    """For some families transformers makes up a tokenizer that knows nothing."""
    folder = save(tmp_path, AutoModelForCausalLM, "gpt2")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in refusal(folder)


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("garbage")
    assert "tokenizer" in refusal(folder)


def test_an_unknown_architecture(folder):
    change_config(folder, model_type="nonsense")
    message = refusal(folder)
    assert "nonsense" in message
    assert "llama" in message


def test_an_architecture_without_one_list_of_blocks(folder):
    backbone = Backbone.load(str(folder))
    backbone.model.model.more = torch.nn.ModuleList(torch.nn.Identity() for _ in range(2))
    with pytest.raises(UserError, match=r"unsupported architecture 'llama'.*qwen3"):
        Backbone.from_model(backbone.model, None, name="two lists")


def test_an_architecture_that_does_not_rejoin(folder):
    """A model with a way around the blocks cannot be cut, and is refused."""
    model = Backbone.load(str(folder)).model

    def bypass(decoder, args, kwargs, output):
        if kwargs["input_ids"] is not None:
            output.last_hidden_state = output.last_hidden_state + decoder.embed_tokens(
                kwargs["input_ids"]
            )

    model.model.register_forward_hook(bypass, with_kwargs=True)
    with pytest.raises(UserError, match="unsupported architecture 'llama'"):
        Backbone.from_model(model, None, name="bypass")


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModel])
def test_an_encoder(tmp_path, auto):
    folder = save(tmp_path, auto, "bert")
    assert "encoder-only" in refusal(folder)


def test_an_encoder_with_a_decoder(tmp_path):
    settings = {"num_layers": 2, "num_heads": 2, "d_model": 16, "d_kv": 8, "d_ff": 24}
    folder = save(tmp_path, AutoModelForSeq2SeqLM, "t5", **settings)
    message = refusal(folder)
    assert "'t5'" in message
    assert "not a causal language model" in message


def test_logits_that_are_not_finite(folder):
    change_weights(folder, lambda weights: {key: value * 1e30 for key, value in weights.items()})
    assert "not finite" in refusal(folder, dtype=torch.float16)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_no_such_device(folder, device):
    assert f"--device {device}" in refusal(folder, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(folder):
    message = refusal(folder, device="cuda")
    assert "--device cuda" in message
    assert "--device cpu" in message


def test_a_bundled_model_that_is_not_there(monkeypatch):
    monkeypatch.setitem(loading.BUNDLED, "bundled", "absent")
    assert "not in this installation" in refusal("bundled")
