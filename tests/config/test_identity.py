"""One training is one run: what changes its identity, what does not, and what the past keeps."""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dihal_bench.config import baseline, identity
from dihal_bench.config.identity import differing, evaluated_as, version_3_digest
from dihal_bench.config.identity import identity as identity_of
from dihal_bench.config.resolve import _every_default, kept, resolve
from dihal_bench.config.schema import RunConfig, keys_of
from dihal_bench.core.registry import DENOISERS

GOLDEN = Path(__file__).parents[1] / "golden" / "v3"
CONFIG = RunConfig()
DEFAULTS = {
    key: value
    for name in DENOISERS.names()
    for key, value in _every_default({"denoiser.name": name}).items()
}


def test_every_key_has_a_baseline():
    """Whoever adds one has to say with which value everything is as it was without it."""
    own = {key for key in DEFAULTS if key.split(".")[0] != "mine"}
    assert own - baseline.BASELINE.keys() == set()


def test_the_baseline_of_version_3_is_not_edited():
    text = json.dumps(dict(baseline.VERSION_3), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "48e785469ece0818"


def test_defaults_are_still_the_baseline():
    """A default may change; then this names the key, and only runs that use it move."""
    moved = {k: v for k, v in DEFAULTS.items() if baseline.BASELINE.get(k, v) != v}
    assert moved == {}


@pytest.mark.parametrize(
    ("changed", "training", "evaluation"),
    [
        ({"seed": 1}, True, True),
        ({"train": replace(CONFIG.train, lr=1e-3)}, True, True),
        ({"score": replace(CONFIG.score, chains=16)}, False, True),
        ({"score": replace(CONFIG.score, steps=(1, 4))}, False, True),
        ({"device": "cuda"}, False, False),
        ({"budget": replace(CONFIG.budget, name="custom")}, False, False),
    ],
)
def test_what_changes_an_identity(changed, training, evaluation):
    before, after = identity_of(CONFIG), identity_of(replace(CONFIG, **changed))
    assert (before.training != after.training) == training
    assert (before.evaluation != after.evaluation) == evaluation


def test_a_new_key_changes_no_identity(monkeypatch):
    before = identity_of(CONFIG)
    newer = {**CONFIG.keys(), "score.keep": 0, "train.depth": 3}
    defaults = dict(newer)
    monkeypatch.setattr(RunConfig, "keys", lambda self: newer)
    monkeypatch.setattr(identity, "_defaults", lambda: defaults)
    assert identity_of(CONFIG) == before
    newer["train.depth"] = 4
    assert identity_of(CONFIG).training != before.training


def test_a_changed_default_moves_only_runs_that_use_it(monkeypatch):
    """The identity follows the value, whatever the default is by now."""
    faster = replace(CONFIG, train=replace(CONFIG.train, lr=1e-2))
    before = identity_of(CONFIG), identity_of(faster)
    monkeypatch.setattr(identity, "_defaults", faster.keys)
    assert (identity_of(CONFIG), identity_of(faster)) == before


def test_a_plug_ins_options_all_count():
    assert differing({"mine.width": 3, "latent.dim": 0}) == {"mine.width": 3}


def test_what_lies_here_counts_by_its_content(tmp_path):
    for name in ("one", "other"):
        shutil.copytree(GOLDEN / "backbone", tmp_path / name)
    one, other = (replace(CONFIG, backbone=str(tmp_path / name)) for name in ("one", "other"))
    assert identity_of(one) == identity_of(other)
    weights = tmp_path / "other" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert identity_of(one) != identity_of(other)


def test_included_code_counts_by_its_content(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text("a = 1")
    one, other = (
        replace(CONFIG, include=(str(tmp_path / name / "mine.py"),)) for name in ("one", "other")
    )
    assert identity_of(one) == identity_of(other) != identity_of(CONFIG)
    (tmp_path / "other" / "mine.py").write_text("a = 2")
    assert identity_of(one) != identity_of(other)
    both = replace(one, include=(*one.include, *other.include))  # two files of one name
    assert len(identity_of(both).code) == 2
    assert identity_of(both).training not in {identity_of(c).training for c in (one, other)}


@pytest.mark.parametrize("path", sorted((GOLDEN / "records").glob("*.json")), ids=lambda p: p.stem)
def test_version_3_called_it_so(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    assert version_3_digest(keys_of(data["config"]), []) == data["run"].rpartition("-")[2]
    assert evaluated_as(data["config"], kept(data["config"]))


def test_what_was_kept_has_the_baseline_of_a_newer_key(monkeypatch):
    """Not the default, which is another by now."""
    given = CONFIG.to_dict()
    del given["score"]["bound_draws"]
    monkeypatch.setattr("dihal_bench.config.baseline.BASELINE", {})
    monkeypatch.setattr(identity, "BASELINE", {**baseline.VERSION_3, "score.bound_draws": 3})
    assert kept(given).score.bound_draws == 3
    assert resolve(values={}).score.bound_draws == dataclasses.replace(CONFIG.score).bound_draws
