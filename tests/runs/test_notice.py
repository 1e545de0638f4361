"""A run on a model that is under terms of use: what it leaves behind says so."""

import json
from pathlib import Path

import pytest

from dihal_bench.config.resolve import resolve
from dihal_bench.models.named import ACCEPTED, TERMS
from dihal_bench.reporting.hub.card import card_of_run
from dihal_bench.reporting.hub.upload import bundle
from dihal_bench.runs.inputs import Inputs
from tests.conftest import Tiny, dihal
from tests.models.tiny_gguf import write_gguf


def test_a_run_begins_with_the_notice(tiny: Tiny, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ACCEPTED, "gemma")
    for licence in ("gemma", "mit"):
        folder = tmp_path / licence
        path = write_gguf(tmp_path / f"{licence}.gguf", facts={"general.license": licence})
        values = {"backbone": str(path), "corpus": str(tiny.corpus)}
        config = resolve(preset="tiny", values=values, sets=["text.window=32"])
        inputs = Inputs(config, lambda text: None)
        inputs.check(folder)
        assert inputs.describe()["backbone"]["source"]["licence"] == licence
        assert (folder / "NOTICE").exists() is (licence == "gemma")
    assert TERMS["gemma"].notice in (tmp_path / "gemma" / "NOTICE").read_text()


@pytest.mark.nightly
def test_the_notice_goes_with_the_weights_the_record_and_the_card(
    tiny: Tiny, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ACCEPTED, "gemma")
    path = write_gguf(tmp_path / "tiny.gguf", facts={"general.license": "gemma"})
    _, _, *rest = tiny.flags()
    status, _, err = dihal(
        *("run", "--backbone", str(path), *rest, "--interface", "hidden", "--layer", "2"),
        *("--out", str(tmp_path / "run")),
    )
    assert status == 0, err
    assert "is Tiny, Q4_1 dequantised" in err
    notice = TERMS["gemma"].notice
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["backbone"]["source"]["notice"] == notice
    assert notice in (tmp_path / "run" / "NOTICE").read_text()
    assert notice in card_of_run(tmp_path / "run")
    assert "license: gemma" in card_of_run(tmp_path / "run")
    (tmp_path / "run" / "NOTICE").unlink()
    assert notice in bundle(tmp_path / "run").files["NOTICE"].decode()
