"""Model cards: the record's numbers come back, and nothing in a record is more than text."""

import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from dihal_bench.core.errors import UserError
from dihal_bench.reporting.hub.card import card_of, write_card
from dihal_bench.results.record import Record

from .finished import (
    CORPUS,
    PRIVATE_TEXT,
    ROWS,
    SCORES,
    content,
    finished,
    gain,
    local_changes,
)


def card(**changes) -> str:
    return card_of(Record.of(content(**changes)))


def rows_of(text: str, subject: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {subject} ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_hub_reads_the_numbers_of_the_record():
    data = ModelCard(card()).data
    compared = ("nll", "ppl", "bits_per_byte", "brier1", "kl", "gen_ppl", "entropy")
    own = [
        s
        for s in SCORES
        if s["subject"] == "hidden" and s["metric"] in compared and s["signal"] != "shuffled"
    ]
    found = data.eval_results
    assert len(found) == len(own) == 8
    for result, kept in zip(found, own, strict=True):
        assert (result.metric_type, result.metric_value) == (kept["metric"], kept["value"])
        args = result.metric_args
        assert [args[k] for k in ("kind", "steps", "chains", "nfe", "n", "unit")] == [
            kept[k] for k in ("kind", "steps", "chains", "nfe", "n", "unit")
        ]
        assert (args.get("lo"), args.get("hi")) == (kept["lo"], kept["hi"])
    assert data.model_name == "hidden-0123456789ab"
    assert found[1].metric_name == "NLL (ensemble(8), S=16, K=8)"
    assert found[4].metric_name == "Brier-1 (estimate, S=16, K=8)"
    assert found[6].metric_args["judge"] == "bundled-judge"
    assert {r.dataset_type for r in found[:6]} == {"allenai/dolma"}
    assert (found[0].dataset_config, found[0].dataset_revision) == ("v1_7", "abc")
    assert {r.dataset_name for r in found[6:]} == {"samples"}


def test_metadata_say_what_the_bridge_belongs_to():
    data = ModelCard(card()).data
    assert data.library_name == "dihal-bench"
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen3-0.6B", "adapter")
    assert data.datasets == ["allenai/dolma"]
    assert data.license is None
    assert data.tags == ["dihal-bench", "diffusion", "hidden", "causal"]


@pytest.mark.parametrize("name", ["bundled", "/models/small", "./small", "zoo/a/b", "~/small"])
def test_what_is_not_on_the_hub_is_not_looked_for_there(name):
    text = card(backbone={"name": name}, corpus={"name": "bundled", "notes": {}})
    data = ModelCard(text).data
    assert data.base_model is None
    assert "base_model_relation" not in data
    assert data.datasets is None
    assert "not named by a hub id" in text


def test_a_folder_that_is_spelled_like_a_hub_id_is_none(tmp_path, monkeypatch):
    (tmp_path / "zoo" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    run = finished(tmp_path / "run", backbone={"name": "zoo/llama"})
    (run / "README.md").unlink()
    assert ModelCard(write_card(run).read_text()).data.base_model is None
    (tmp_path / "zoo" / "llama").rmdir()
    assert ModelCard(write_card(run).read_text()).data.base_model == "zoo/llama"


def test_the_table_has_every_row_with_interval_kind_and_cost():
    text = card()
    first, second = rows_of(text, "hidden")[:2]
    assert first[:7] == [
        "hidden",
        "16",
        "1",
        "16",
        "ensemble(1)",
        "1,000",
        "3.250 [3.240, 3.260]",
    ]
    assert second[:6] == ["hidden", "16", "8", "128", "ensemble(8)", "1,000"]
    assert second[6:] == [
        "3.241 [3.231, 3.251] ~",  # not converged
        "25.5 [25.5, 25.5]",
        "1.250 [1.240, 1.260]",
        "0.0020",  # without an interval
        "0.980 [0.970, 0.990]",
        "0.2600 [0.2500, 0.2700]",
        "–",
    ]
    assert first[-1] == "-0.0123 [-0.0200, -0.0040]"
    assert [row[4] for row in rows_of(text, "regress")][:1] == ["exact"]
    assert rows_of(text, "hidden, signal shuffled")[0][6] == "9.900 [9.890, 9.910]"
    assert "On samples:" in text
    assert rows_of(text, "hidden")[2][-2:] == ["41.5 [41.5, 41.5]", "4.100 [4.090, 4.110]"]
    assert "arc" not in text


def test_the_body_says_what_it_is_what_it_cost_and_what_it_is_not():
    text = card()
    for said in (
        "stands in for 3 of the 28 blocks of Qwen/Qwen3-0.6B, those above layer 1 up to layer 4",
        "costs 1.06 times the FLOPs of the replaced blocks",
        "dihal-bench run --backbone Qwen/Qwen3-0.6B --layer middle",
        "run.interface('hidden')",
        "Budget tiny, matched by diffusion; within it.",
        "It is no model by itself",
        "the law of the row's own generator",
        "seed 7",
        "commit 18c2fb1ecdf4+ (+: with changes that are not committed)",
        f"text of {CORPUS}".replace("_", r"\_"),
    ):
        assert said in text
    assert rows_of(text, "hidden")[-1][1:] == ["pass", "0", "1e-10", "float64"]
    assert "device cpu." in text
    assert "device cpu, Xeon AVX512." in card(environment={"processor": "Xeon AVX512"})
    assert "OUTSIDE" in card(budget={"within": False})


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (gain(-0.0123, -0.02, -0.004), "diffusion LOSES to regress: -0.0123 [-0.0200, -0.0040]"),
        (gain(0.0123, 0.004, 0.02), "diffusion gains over regress: +0.0123 [+0.0040, +0.0200]"),
        (gain(0.001, -0.01, 0.02), "undecided, the estimate is ahead of regress: +0.0010"),
        (gain(-0.001, -0.01, 0.02), "undecided, the estimate is behind regress: -0.0010"),
        (gain(-0.001, None, None), "no interval, and the NLL is not below that of regress"),
    ],
)
def test_a_gain_is_said_in_words_whatever_its_sign(own, said):
    assert said in card(scores=[*ROWS, own])


def test_without_a_control_nothing_is_said_to_be_gained():
    assert "nothing is known of it" in card(scores=ROWS)


def test_scores_of_first_tokens_are_called_so():
    changed = [{**s, "metric": "first_token_nll", "regime": "sequence"} for s in ROWS]
    text = card(scores=changed, regime="sequence", config={"regime": "sequence"})
    assert ModelCard(text).data.eval_results[0].metric_name.startswith("first-token NLL")
    assert re.search(r"\| +first-token NLL", text)


HOSTILE = 'a|b `c` <script>x</script> --- # "d": [e](http://f) [31m \u202e &lt; **g**'


def test_what_a_record_says_stays_text():
    usual = card()
    changes = {
        "run": HOSTILE,
        "command": "dihal-bench run " + HOSTILE + "\r\x1b\n```\n<script>",
        "interface": {"origin": HOSTILE},
        "backbone": {"name": HOSTILE, "architecture": HOSTILE, "fingerprint": HOSTILE},
        "corpus": {"name": HOSTILE, "fingerprint": HOSTILE, "notes": {"repository": HOSTILE}},
        "budget": {"name": HOSTILE},
        "environment": {
            **{"git": HOSTILE, "processor": HOSTILE},
            "versions": {HOSTILE: HOSTILE, "dihal-bench": HOSTILE},
        },
        "config": {"corpus": HOSTILE},
        "scores": [
            {**s, "task": f"{HOSTILE}:validation", "unit": HOSTILE}
            for s in (*SCORES[:8], *ROWS[2:], gain(1.0, 0.5, 1.5))
        ],
    }
    text = card_of(Record.of(content(**changes)))
    read = ModelCard(text)
    assert len(read.data.eval_results) == 6
    body = read.text
    fenced = re.compile(r"^(`{3,})(\w+)\n(.*?)\n\1$", re.MULTILINE | re.DOTALL)
    code = {language: (fence, inner) for fence, language, inner in fenced.findall(body)}
    assert code["bash"][0] == "````"
    assert "\n" not in code["bash"][1]
    body = fenced.sub("", body)
    body, _, mark = body.rpartition("<!-- dihal-bench card ")
    assert re.fullmatch(r"[0-9a-f]{12} -->\s*", mark)
    assert not {"<", ">"} & set(body)
    assert not {"\r", "\x1b", "\u202e"} & set(text)
    lines = body.splitlines()
    assert "---" not in lines
    assert [x for x in lines if x.startswith("#")][1:] == [
        x for x in usual.splitlines() if x.startswith("## ")
    ]
    assert "[e](" not in body
    table = [x for x in lines if x.startswith("|")]
    for head in (i for i, x in enumerate(table) if x.startswith("|--")):
        columns = table[head].count("|")
        for row in table[head - 1 : head + 2]:
            assert row.replace(r"\|", "").count("|") == columns


def test_the_code_of_the_card_imports_what_there_is():
    code = card().split("```python\n")[1].split("```")[0]
    imports = [line for line in code.splitlines() if line.startswith(("from ", "import "))]
    assert len(imports) == 3
    exec("\n".join(imports), {})


def test_a_run_of_a_sweep_has_a_command_of_its_own():
    alone = "It is one of several runs of that command. It alone:"
    assert alone not in card(command="dihal-bench run --layer 1")
    text = card(command="dihal-bench sweep --span 2").partition(f"{alone}\n\n```bash\n")[2]
    assert text.startswith("dihal-bench run --budget tiny ")
    assert " --seed 7 " in text.partition("\n")[0]


def test_a_card_is_the_same_for_the_same_record():
    assert card() == card()
    code = (
        "import sys; from pathlib import Path; from dihal_bench.reporting.hub.card import *\n"
        "sys.exit(bool({'torch', 'numpy', 'jinja2', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_paths_of_a_machine_are_cut():
    text = card(**local_changes())
    assert PRIVATE_TEXT not in text
    assert "--backbone path/to/small --config path/to/my.toml" in text
    assert "denoiser.sd-unet.vae=path/to/vae" in text
    assert "It needs the code in own.py, which is not here: " in text
    assert "start the commands where it lies" in text
    assert "It needs the code" not in card()
    assert ModelCard(text).data.eval_results[0].dataset_name == "path/to/my text.jsonl:validation"


def test_a_likelihood_without_its_gate_makes_no_card():
    data = content(gates={"leak": {}})
    with pytest.raises(UserError, match="hidden has a score but no passed leak gate"):
        card_of(Record.of(data))
    changed = Record.of(content())
    changed.data["scores"][1]["value"] += 0.001
    with pytest.raises(UserError, match=r"scores\[1\] was changed after"):
        card_of(changed)


def test_a_record_that_no_run_wrote_is_refused_in_a_sentence():
    data = content()
    del data["interface"]["replaced"]
    with pytest.raises(UserError, match=r"interface: the field replaced is missing"):
        card_of(Record.of(data))


def test_a_card_is_written_into_the_folder_or_elsewhere(tmp_path):
    run = finished(tmp_path / "run")
    (run / "README.md").unlink()
    assert write_card(run) == run / "README.md"
    assert (run / "README.md").read_text() == card()
    assert write_card(run, tmp_path / "deep" / "card.md").read_text() == card()
    with pytest.raises(UserError, match=r"nowhere holds no complete run .*; give the folder"):
        write_card(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_card_takes_the_place_of_a_card_alone(tmp_path):
    run, other = finished(tmp_path / "run"), tmp_path / "other.md"
    place = run / "README.md"
    (run / "README.md").unlink()
    write_card(finished(tmp_path / "later", created="2027-01-01T00:00:00+00:00"), place)
    assert write_card(run).read_text() == card()  # of another record
    edited = card().replace("No licence is stated.", "Licence: MIT.")
    for text in ("# Notes\n", edited, f"{card()}more\n", ""):
        place.write_text(text)
        with pytest.raises(UserError, match=r"README\.md was not written by this .*; move it away"):
            write_card(run)
        assert place.read_text() == text
    other.write_text(card())
    place.unlink()
    place.symlink_to(other)
    with pytest.raises(UserError, match="was not written by this command"):
        write_card(run)
    assert place.is_symlink()
