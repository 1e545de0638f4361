"""Columns in files and in memory read the same, in every type, up to the end and not beyond."""

from bisect import bisect_right

import numpy as np
import pytest

from dihal_bench.data.columns import ArrayColumn, FileColumn


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64"])
def test_a_file_reads_as_the_array_that_was_written(tmp_path, dtype):
    numbers = np.random.default_rng(0).integers(0, 250, size=100).astype(dtype)
    (tmp_path / "numbers").write_bytes(numbers.tobytes())
    columns = FileColumn(tmp_path / "numbers", dtype), ArrayColumn(numbers.astype(np.int64))
    for column in columns:
        assert len(column) == 100
        assert [column[i] for i in range(100)] == numbers.tolist()
        for first, count in [(0, 100), (7, 5), (98, 9), (100, 3), (0, 0)]:
            piece = column.read(first, count)
            assert piece.dtype == np.int64
            assert piece.tolist() == numbers[first : first + count].tolist()


def test_a_column_can_be_searched(tmp_path):
    numbers = np.cumsum(np.random.default_rng(0).integers(1, 9, size=1000))
    (tmp_path / "numbers").write_bytes(numbers.astype(np.int64).tobytes())
    column = FileColumn(tmp_path / "numbers", np.int64)
    for value in range(0, int(numbers[-1]) + 2, 13):
        assert bisect_right(column, value) == np.searchsorted(numbers, value, side="right")
