"""A run refuses, before anything is trained, what its backbone cannot do later."""

import json

import pytest
from transformers import AutoTokenizer

from dihal_bench.cli.main import main

from ..models.families import make_model, save_tokenizer


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.jsonl"
    rows = [{"text": f"w{n % 90 + 2} <more> w3 w4 w5 w{n % 40 + 2} w7"} for n in range(400)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capsys, folder, *more: str) -> str:
    command = ["run", "--backbone", str(folder), "--layer", "2", "--set", "text.window=16", *more]
    assert main(command) == 2
    return capsys.readouterr().err


def test_tasks_that_generate_are_refused_where_the_backbone_cannot(tmp_path, text, capsys):
    folder, out = tmp_path / "model", tmp_path / "out"
    make_model("openai-gpt").save_pretrained(folder)
    save_tokenizer(folder)
    said = run(capsys, folder, "--corpus", str(text), "--tasks", "samples", "--out", str(out))
    assert "is scored, but cannot generate" in said
    assert "'openai-gpt' cannot generate" in said.splitlines()[-1]
    assert not list(out.rglob("*.safetensors"))


def test_added_tokens_in_the_text_are_named_with_their_document(tmp_path, text, capsys):
    folder = tmp_path / "model"
    make_model("llama").save_pretrained(folder)
    save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    said = run(capsys, folder, "--corpus", str(text), "--out", str(tmp_path / "out"))
    assert "document 0 of its set" in said.splitlines()[-1]
    assert "'<more>' has the id 97" in said.splitlines()[-1]
