"""GGUFs: every token's likelihood is that of a reader that shares no code, or they are refused."""

import contextlib
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone, unpack
from dihal_bench.models.named import ACCEPTED

from .plain_gguf import TYPES, PlainGguf
from .tiny_gguf import TOKENS, tensors, write_gguf

TEXT = "in the  12 then 3\nthe 1212 and  4 the<|end|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(ACCEPTED, raising=False)
    return tmp_path / "cache"


def nll(backbone: Backbone, tokens: list[int]) -> np.ndarray:
    logits = backbone.logits(torch.tensor([tokens]))[0, :-1].double().log_softmax(-1)
    return -logits[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].numpy()


def refusal(path: Path | str, cache: Path) -> str:
    """What is said, when nothing may be left behind."""
    with pytest.raises(UserError) as caught:
        Backbone.load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert not [inner for inner in cache.rglob("*") if inner.is_file()]
    assert not list((cache / "unpacked").glob("*"))
    return message


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_every_token_is_as_likely_as_to_a_reader_of_its_own(tmp_path, kind):
    path = write_gguf(tmp_path / "tiny.gguf", kind)
    backbone = Backbone.load(str(path))
    tokens = [backbone.tokenizer.bos_token_id, *backbone.tokenizer(TEXT).input_ids]
    theirs = PlainGguf.read(path).nll(tokens)
    assert theirs.std() > 0.3
    assert np.abs(nll(backbone, tokens) - theirs).max() < 1e-5
    assert backbone.name == str(path)
    assert backbone.info.source.title == f"Tiny, {kind} dequantised"
    assert backbone.info.to_dict()["source"]["licence"] == "mit"


def test_blocks_are_read_by_the_published_layout():
    rng = np.random.default_rng(0)
    for number, (_, size, read) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        blocks = rng.integers(0, 256, (50, size), dtype=np.uint8)
        with np.errstate(all="ignore"):  # some scales are no numbers
            theirs, own = gguf.quants.dequantize(blocks, kind).astype(float), read(blocks)
        known = np.isfinite(theirs)
        assert known.mean() > 0.5
        np.testing.assert_allclose(own[known], theirs[known], rtol=1e-5, atol=1e-9)


def test_it_is_unpacked_once_and_known_by_its_content(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf")
    before = Backbone.load(str(path)).info
    moved = path.rename(tmp_path / "other.gguf")
    monkeypatch.setattr(unpack, "_make", None)
    again = Backbone.load(str(moved)).info
    assert again.fingerprint == before.fingerprint
    assert again.source == before.source
    (folder,) = (cache / "unpacked").iterdir()
    assert folder.stat().st_mode & 0o777 == (cache / "unpacked").stat().st_mode & 0o777
    monkeypatch.undo()
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(cache))
    write_gguf(moved, arrays={"output_norm.weight": tensors()["output_norm.weight"] * 2})
    assert Backbone.load(str(moved)).info.fingerprint != before.fingerprint


def test_it_stays_as_wide_as_its_weights_need(tmp_path, cache):
    from safetensors.torch import load_file

    norms = {
        name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32)
        for name, value in tensors().items()
        if value.ndim == 1
    }
    for kind, dtype in (("BF16", torch.bfloat16), ("Q4_1", torch.float32)):
        Backbone.load(str(write_gguf(tmp_path / f"{kind}.gguf", kind, arrays=norms)))
        newest = max((cache / "unpacked").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        assert {w.dtype for w in load_file(newest / "model.safetensors").values()} == {dtype}


def test_an_ordinary_backbone_has_no_source():
    info = Backbone.load("bundled").info
    assert info.source is None
    assert "source" not in info.to_dict()


def test_digits_are_cut_apart_before_spaces(tmp_path):
    """As llama.cpp does for rules of this name, and transformers 5.23 by itself does not."""
    tokenizer = Backbone.load(str(write_gguf(tmp_path / "tiny.gguf"))).tokenizer
    assert tokenizer.tokenize("in  12") == ["in", "ĠĠ", "1", "2"]
    other = write_gguf(tmp_path / "gpt2.gguf", facts={"tokenizer.ggml.pre": "gpt-2"})
    assert Backbone.load(str(other)).tokenizer.tokenize("in  12") == ["in", "Ġ", "Ġ", "12"]


def test_special_tokens_are_whole_and_the_begin_is_as_stated(tmp_path):
    facts = {"tokenizer.ggml.add_bos_token": True}
    tokenizer = Backbone.load(str(write_gguf(tmp_path / "tiny.gguf", facts=facts))).tokenizer
    assert tokenizer("a<|end|>").input_ids == [1, TOKENS.index("a"), 2]


@pytest.mark.parametrize("share", [0, 3, 4, 20, 100, 0.2, 0.5, 0.999])
def test_a_truncated_file(tmp_path, cache, share):
    path = write_gguf(tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: share if share >= 1 else int(share * len(whole))])
    assert "no GGUF" in (said := refusal(path, cache)) or "damaged or cut short" in said


def test_damaged_headers_end_in_one_sentence(tmp_path, cache):
    path = write_gguf(tmp_path / "tiny.gguf")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(4, 1200, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            Backbone.load(str(path))


def test_a_file_that_is_none(tmp_path, cache):
    (tmp_path / "model.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    assert "no GGUF" in refusal(tmp_path / "model.gguf", cache)
    assert "does not exist" in refusal(tmp_path / "absent.gguf", cache)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "nonsense"}, "nonsense"),
        ({"facts": {"llama.rope.scaling.type": "yarn"}}, "rope.scaling.type"),
        ({"facts": {"llama.expert_count": 4}}, "expert_count"),
        ({"facts": {"llama.attention.key_length": 99}}, "attention.key_length"),
        ({"facts": {"tokenizer.ggml.pre": "unheard-of"}}, "unheard-of"),
        ({"facts": {"tokenizer.ggml.model": "none"}}, "tokenizer"),
        ({"facts": {"split.count": 3}}, "one of 3 parts"),
        ({"arrays": {"rope_freqs.weight": np.ones(8, np.float32)}}, "rope_freqs.weight"),
        ({"arrays": {"blk.1.ffn_up.weight": None}}, "missing: model.layers.1.mlp.up_proj"),
        ({"arrays": {"blk.1.attn_q.bias": np.ones(64, np.float32)}}, "109,632 values"),
        ({"arrays": {"blk.1.ffn_norm.weight": np.ones(64, np.int32)}}, "I32"),
        ({"facts": {"llama.block_count": 4}}, "missing"),
    ],
)
def test_what_would_be_another_model(tmp_path, cache, change, reason):
    path = write_gguf(tmp_path / "tiny.gguf", **change)
    assert reason in refusal(path, cache)


def test_stated_facts_that_agree_are_no_fault(tmp_path):
    facts = {
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.scaling.type": "none",
    }
    assert Backbone.load(str(write_gguf(tmp_path / "tiny.gguf", facts=facts))).blocks == 3


def test_the_packages_that_read_it_are_missing(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(unpack, "find_spec", lambda name: None)
    assert "pip install 'dihal-bench[gguf]'" in refusal(path, cache)


def test_a_write_that_fails_leaves_nothing(tmp_path, cache, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(unpack, "write_json", full)
    assert "No space left" in refusal(path, cache)


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"general.license": "gemma"}},
        {"facts": {"general.license": None}, "architecture": "gemma3"},
    ],
)
def test_terms_have_to_be_accepted(tmp_path, cache, change):
    said = refusal(write_gguf(tmp_path / "tiny.gguf", **change), cache)
    assert "ai.google.dev/gemma/terms" in said
    assert "--accept-terms gemma" in said


def test_accepted_terms_go_with_the_model(tmp_path, monkeypatch, capsys):
    path = write_gguf(tmp_path / "tiny.gguf", facts={"general.license": "gemma"})
    monkeypatch.setenv(ACCEPTED, "gemma")
    assert "ai.google.dev/gemma/terms" in Backbone.load(str(path)).info.source.notice
    assert "ai.google.dev/gemma/terms" in capsys.readouterr().err
    monkeypatch.delenv(ACCEPTED)
    assert "ai.google.dev/gemma/terms" in Backbone.load(str(path)).info.source.notice
    assert "terms" not in capsys.readouterr().err  # they are shown once


def test_one_on_the_hub_is_asked_for_there(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf")
    asked = []

    def download(*words: object, **_: object) -> str:
        asked.append(words)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    backbone = Backbone.load("owner/repo:tiny.Q4_1.gguf")
    assert asked == [("owner/repo", "tiny.Q4_1.gguf")]
    assert backbone.name == "owner/repo:tiny.Q4_1.gguf"


def test_one_on_the_hub_that_cannot_be_fetched(cache):
    assert "cannot be fetched" in refusal("owner/repo:tiny.Q4_1.gguf", cache)
