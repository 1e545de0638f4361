"""Candidates that rest on another teacher or another text share nothing that depends on it."""

import json
from pathlib import Path

import pytest
import torch

from ...conftest import Tiny, small_llama, small_tokenizer
from .test_sweep import SHORT, results, run, words


@pytest.fixture
def other_backbone(tiny: Tiny, tmp_path: Path) -> Path:
    """A teacher of the same shape with other weights."""
    texts = [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()]
    model = small_llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(tmp_path / "other")
    small_tokenizer(texts).save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_what_is_fitted_is_of_the_candidates_own_teacher_and_text(
    tiny: Tiny, tmp_path: Path, other_backbone: Path
) -> None:
    for key, values in {
        "backbone": (tiny.backbone, other_backbone),
        "text.train_tokens": (4000, 2000),
    }.items():
        folder = tmp_path / key
        flags = ["--layer", "2", "--seeds", "0", "--interface", "token-mean"]
        run(*words(tiny, folder, *flags, "--over", f"{key}={values[0]},{values[1]}"))
        together = results(folder, f"over-{key}")["losses"]
        out = tmp_path / f"{key}-alone"
        flags = [*flags[:2], *flags[4:], "--set", "controls=", "--set", f"{key}={values[1]}"]
        run("run", *tiny.flags(**SHORT), *flags, "--out", str(out))
        alone = json.loads((out / "record.json").read_text())
        assert together["fvu_mmse"][0][1] == alone["bridge"]["fvu_mmse"]
