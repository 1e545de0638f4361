"""Sums per document survive the disk, and a record."""

import json

import numpy as np
import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.document_sums import from_plain, read_sums, to_plain, write_sums
from dihal_bench.evaluation.likelihood import ZEROED, Row, Totals

TOKENS = np.array([3.0, 5.0])
ROWS = {
    Row(subject="teacher"): Totals(TOKENS, TOKENS, 3 * TOKENS, {"nll@1": 2 * TOKENS}),
    Row(subject="c2d", steps=4, chains=2, signal=ZEROED): Totals(
        TOKENS, TOKENS, 3 * TOKENS, {"nll@1": TOKENS / 3, "nll@2": TOKENS / 7}
    ),
}


def test_what_is_written_is_read(tmp_path) -> None:
    write_sums(tmp_path / "sums", ROWS)
    found = read_sums(tmp_path / "sums")
    assert list(found) == list(ROWS)
    for row, totals in ROWS.items():
        for name in ("tokens", "words", "bytes"):
            np.testing.assert_array_equal(getattr(found[row], name), getattr(totals, name))
        assert found[row].sums.keys() == totals.sums.keys()
        for name, values in totals.sums.items():
            np.testing.assert_array_equal(found[row].sums[name], values)


def test_a_damaged_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match="sums cannot be read"):
        read_sums(tmp_path / "sums")
    write_sums(tmp_path / "sums", ROWS)
    (tmp_path / "sums").write_bytes((tmp_path / "sums").read_bytes()[:-8])
    with pytest.raises(UserError, match="sums does not match"):
        read_sums(tmp_path / "sums")


def test_a_record_keeps_them_to_ten_digits() -> None:
    found = from_plain(json.loads(json.dumps(to_plain(ROWS))))
    assert list(found) == list(ROWS)
    for row, totals in ROWS.items():
        for name in ("tokens", "words", "bytes"):
            np.testing.assert_array_equal(getattr(found[row], name), getattr(totals, name))
        for name, values in totals.sums.items():
            np.testing.assert_allclose(found[row].sums[name], values, rtol=1e-9)


def test_many_documents_become_parts_with_the_same_sums() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, 2500).astype(float)
    values = rng.normal(size=2500)
    row = Row(subject="teacher")
    kept = to_plain({row: Totals(counts, counts, counts, {"nll@1": values})})
    assert kept["documents"] == 2500
    found = from_plain(kept)[row]
    assert len(found.tokens) == len(found.sums["nll@1"]) == 1024
    assert found.tokens.sum() == counts.sum()
    np.testing.assert_allclose(found.sums["nll@1"].sum(), values.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.sums["nll@1"][0], values[:2].sum(), rtol=1e-9)
