"""The cache of activations: checked, resumed, refused, and read as if the backbone had run."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.data.sources import load_corpus
from dihal_bench.data.tokens import pack
from dihal_bench.geometry import cache as cache_module
from dihal_bench.geometry.cache import PASS, ActivationCache
from dihal_bench.models.model import Backbone

WINDOWS = np.array([3, 0, 7, 12, 5, *range(20, 41)])  # three whole passes and two windows


@pytest.fixture
def backbone(tiny):
    return Backbone.load(str(tiny.backbone))


@pytest.fixture
def text(tiny, backbone):
    return pack(load_corpus(str(tiny.corpus)), "train", backbone.tokenizer, window=32)


@pytest.fixture
def small_shards(monkeypatch):
    """One pass of three layers to a shard: 8 windows x 32 tokens x 3 layers x 32 floats."""
    monkeypatch.setattr(cache_module, "_SHARD", PASS * 32 * 3 * 32 * 4)


def opened(folder, backbone, text, layers=(1, 2, 3), said=None, windows=WINDOWS):
    say = (lambda line: None) if said is None else said.append
    return ActivationCache(folder, backbone, text, windows, layers, say=say)


def of_backbone(backbone, text, first, layers):
    batch = text.batch(WINDOWS[first : first + PASS])
    tokens, positions = torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)
    with torch.no_grad():
        return batch, backbone.states(tokens, positions, layers).hidden


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def forbid(monkeypatch):
    def states(*arguments, **options):
        raise AssertionError("the backbone ran")

    monkeypatch.setattr(Backbone, "states", states)


@pytest.mark.parametrize("shard", [2**27, PASS * 32 * 3 * 32 * 4, PASS * 32 * 32 * 4, 1], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_states_and_places_are_those_of_the_backbone(
    tiny, text, tmp_path, monkeypatch, shard, dtype
):
    monkeypatch.setattr(cache_module, "_SHARD", shard)
    backbone = Backbone.load(str(tiny.backbone), dtype=dtype)
    cache = opened(tmp_path / "kept", backbone, text)
    cache.fill()
    assert cache.complete
    for first in range(0, len(WINDOWS), PASS):
        batch, expected = of_backbone(backbone, text, first, [1, 2, 3])
        found = cache.states(first, len(batch.tokens), [1, 3])
        assert sorted(found) == [1, 3]
        for layer, state in found.items():
            assert state.dtype == dtype
            assert torch.equal(state, expected[layer])
        for name, place in cache.places(first, len(batch.tokens)).items():
            assert place.tolist() == getattr(batch, name).tolist()


def test_shards_are_bounded_and_their_size_is_known_beforehand(
    backbone, text, tmp_path, small_shards
):
    cache = opened(tmp_path / "kept", backbone, text)
    planned = cache.bytes
    cache.fill()
    files = sorted((tmp_path / "kept").glob("*.safetensors"))
    assert len(files) == len(cache.shards) == 4
    sizes = [file.stat().st_size for file in files]
    places = PASS * 32 * 3 * 8
    assert max(sizes) <= cache_module._SHARD + places + 4096
    assert planned <= sum(sizes) <= planned + 4096 * len(files)


def test_locate_reads_a_complete_cache_and_finds_the_same(tiny, tmp_path, monkeypatch, capsys):
    kept = ["--cache-activations", str(tmp_path / "kept")]
    assert main(["locate", *tiny.flags(), "--out", str(tmp_path / "without")]) == 0
    assert main(["locate", *tiny.flags(), "--out", str(tmp_path / "fills"), *kept]) == 0
    said = capsys.readouterr().err
    assert re.search(r"activations: [\d.]+ KiB to .* free there", said)
    with monkeypatch.context() as patch:
        forbid(patch)
        assert main(["locate", *tiny.flags(), "--out", str(tmp_path / "reads"), *kept]) == 0
    found = [(tmp_path / n / "locate.json").read_bytes() for n in ("without", "fills", "reads")]
    assert found[0] == found[1] == found[2]


def test_layers_that_are_not_kept_are_computed(tiny, tmp_path):
    kept = ["--cache-activations", str(tmp_path / "kept"), "--cache-layers", "0,2"]
    assert main(["locate", *tiny.flags(), "--out", str(tmp_path / "without")]) == 0
    for name in ("fills", "reads"):
        assert main(["locate", *tiny.flags(), "--out", str(tmp_path / name), *kept]) == 0
    found = [(tmp_path / n / "locate.json").read_bytes() for n in ("without", "fills", "reads")]
    assert found[0] == found[1] == found[2]
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text())
    assert manifest["holds"]["layers"] == [0, 2]


def test_a_dry_run_says_the_size_and_writes_nothing(tiny, tmp_path, capsys):
    folder = tmp_path / "kept"
    flags = [*tiny.flags(), "--dry-run", "--cache-activations", str(folder)]
    assert main(["locate", *flags]) == 0
    out = capsys.readouterr().out
    assert (
        f"activations: about 510.0 KiB in {folder} (layers: 3)" in out
    )  # 40 x 32 x (3 x 32 x 4 + 24)
    assert main(["locate", *flags, "--cache-layers", "2"]) == 0
    assert "activations: about 190.0 KiB" in capsys.readouterr().out
    assert not folder.exists()


def test_a_located_folder_still_gets_its_cache(tiny, tmp_path):
    command = ["locate", *tiny.flags(), "--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert main([*command, "--cache-activations", str(tmp_path / "kept")]) == 0
    assert list((tmp_path / "kept").glob("*.safetensors"))


def test_a_cache_of_more_layers_serves_fewer(backbone, text, tmp_path, monkeypatch):
    opened(tmp_path, backbone, text, (0, 1, 2, 3)).fill()
    forbid(monkeypatch)
    cache = opened(tmp_path, backbone, text, (2,))
    cache.fill()
    assert sorted(cache.states(0, 4, [2])) == [2]


def test_a_damaged_or_missing_shard_is_said_and_computed_again(
    backbone, text, tmp_path, small_shards
):
    opened(tmp_path, backbone, text).fill()
    files = sorted(tmp_path.glob("*.safetensors"))
    before = [file.read_bytes() for file in files]
    damage(files[1])
    files[2].unlink()
    times = [file.stat().st_mtime_ns for file in (files[0], files[3])]
    said = []
    opened(tmp_path, backbone, text, said=said).fill()
    assert [file.read_bytes() for file in files] == before
    assert [file.stat().st_mtime_ns for file in (files[0], files[3])] == times
    wrong = [line for line in said if "does not match its checksum" in line]
    assert len(wrong) == 2
    assert files[1].name in "".join(wrong)
    assert files[2].name in "".join(wrong)


KILLED = """
import os, signal, sys
import numpy as np
from dihal_bench.models.model import Backbone
from dihal_bench.geometry import cache
from dihal_bench.data.sources import load_corpus
from dihal_bench.data.tokens import pack

folder, model, corpus = sys.argv[1:]
backbone = Backbone.load(model)
text = pack(load_corpus(corpus), "train", backbone.tokenizer, window=32)
cache._SHARD = {shard}
calls, states = [], Backbone.states


def until_killed(*arguments, **options):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return states(*arguments, **options)


Backbone.states = until_killed
cache.ActivationCache(folder := __import__("pathlib").Path(folder), backbone, text,
                      np.array({windows}), (1, 2, 3)).fill()
"""


def test_a_killed_fill_goes_on_where_it_was(
    tiny, backbone, text, tmp_path, small_shards, monkeypatch
):
    program = KILLED.format(shard=cache_module._SHARD, windows=WINDOWS.tolist())
    words = [sys.executable, "-c", program, tmp_path, tiny.backbone, tiny.corpus]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    first = sorted(tmp_path.glob("*.safetensors"))
    assert len(first) == 2
    times = [file.stat().st_mtime_ns for file in first]
    calls, states = [], Backbone.states
    monkeypatch.setattr(Backbone, "states", lambda *a, **o: calls.append(1) or states(*a, **o))
    cache = opened(tmp_path, backbone, text)
    assert not cache.complete
    cache.fill()
    assert len(calls) == 2
    assert [file.stat().st_mtime_ns for file in first] == times
    whole = opened(tmp_path.with_name("whole"), backbone, text)
    whole.fill()
    for shard in whole.shards:
        assert (whole.folder / shard.name).read_bytes() == (tmp_path / shard.name).read_bytes()


def test_what_a_killed_process_was_writing_is_removed(backbone, text, tmp_path):
    rest = tmp_path / ".windows-0-layers-1-3.safetensors.x1y2"
    rest.write_bytes(b"half")
    opened(tmp_path, backbone, text).fill()
    assert not rest.exists()


def test_a_disk_that_fills_up_costs_nothing_finished(
    backbone, text, tmp_path, small_shards, monkeypatch
):
    write, calls = Path.write_bytes, []

    def full(self, content):
        calls.append(self)
        if len(calls) == 3:
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            UserError, match="No space left on device after 2 of 4 shards"
        ) as caught:
            opened(tmp_path, backbone, text).fill()
    assert "\n" not in str(caught.value)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert not list(tmp_path.glob(".*.safetensors.*"))
    said = []
    opened(tmp_path, backbone, text, said=said).fill()
    assert "shards: 2 to write, 2 kept" in said[0]


def test_a_manifest_that_cannot_be_written_is_the_same_sentence(
    backbone, text, tmp_path, small_shards, monkeypatch
):
    real, calls = cache_module.write_json, []

    def full(path, value):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, value)

    monkeypatch.setattr(cache_module, "write_json", full)
    with pytest.raises(UserError, match="No space left on device after 1 of 4 shards"):
        opened(tmp_path, backbone, text).fill()


def test_too_small_a_disk_is_refused_before_anything_runs(tiny, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    forbid(monkeypatch)
    folder = tmp_path / "kept"
    flags = [*tiny.flags(), "--out", str(tmp_path / "run"), "--cache-activations", str(folder)]
    assert main(["locate", *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"--cache-activations .*: [\d.]+ KiB are needed and 1000 B are free;", error)
    assert not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize("change", ["backbone", "dtype", "text", "windows", "layers"])
def test_a_cache_of_something_else_is_refused_by_a_sentence_that_names_both(
    tiny, backbone, text, tmp_path, change
):
    opened(tmp_path, backbone, text).fill()
    layers, windows = (1, 2, 3), WINDOWS
    if change == "backbone":
        with torch.no_grad():
            next(backbone.model.parameters()).add_(1)
        other = Backbone.from_model(backbone.model, backbone.tokenizer, name="another")
        pattern = rf"of backbone {re.escape(str(tiny.backbone))} \(.*\), not of another \("
        backbone = other
    elif change == "dtype":
        backbone = Backbone.load(str(tiny.backbone), dtype=torch.bfloat16)
        pattern = r"float32\), not of .*bfloat16\)"
    elif change == "text":
        text = pack(load_corpus(str(tiny.corpus)), "validation", backbone.tokenizer, window=32)
        windows = np.arange(len(WINDOWS)) % len(text)
        pattern = r"of text \w+, not of \w+"
    elif change == "windows":
        windows, pattern = WINDOWS[::-1].copy(), r"of windows 26 \(\w+\), not of 26 \(\w+\)"
    else:
        layers, pattern = (0, 1), r"of layers \[1, 2, 3\], not of \[0, 1\]"
    with pytest.raises(UserError, match=pattern) as caught:
        opened(tmp_path, backbone, text, layers, windows=windows)
    assert "\n" not in str(caught.value)
    assert "give another folder" in str(caught.value)


def test_other_files_a_broken_manifest_and_unknown_layers_are_refused(backbone, text, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds files that are no activations"):
        opened(tmp_path, backbone, text)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json cannot be read"):
        opened(tmp_path, backbone, text)
    with pytest.raises(UserError, match="it is a file"):
        opened(tmp_path / "letter.txt", backbone, text)
    with pytest.raises(UserError, match=r"--cache-layers 9: .* has layers 0 to 4"):
        opened(tmp_path / "new", backbone, text, (1, 9))


def test_two_processes_do_not_fill_one_cache(backbone, text, tmp_path):
    cache = opened(tmp_path, backbone, text)
    with (
        cache_module.lock(tmp_path / "manifest.json", wait=False),
        pytest.raises(UserError, match="another process fills it"),
    ):
        cache.fill()
    cache.fill()
    assert cache.complete


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--cache-layers", "1"], "keeps nothing without --cache-activations DIR"),
        (["--cache-activations", "kept", "--cache-layers", "1,x"], "no list of layers"),
        (["--cache-activations", "kept", "--cache-layers", "1,7"], "--cache-layers 7: "),
    ],
)
def test_wrong_flags_are_one_sentence(tiny, tmp_path, monkeypatch, capsys, flags, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["locate", *tiny.flags(), *flags]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "kept").exists()
