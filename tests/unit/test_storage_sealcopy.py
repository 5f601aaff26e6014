"""A large hot file is sealed as it is, and only if it is whole."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.transaction import AddAction

from storage.hot import HotTier, list_hot
from storage.latest import load_latest
from storage.schema import META_FORMAT, READINGS
from storage.sealed import Sealer
from storage.settings import SealedSettings
from tests.storage_rows import HOUR, T0, Row, S, batch
from tests.unit.test_storage_sealed import data_files, stored

SETTINGS = SealedSettings(rows_max=10_000)
LARGE, SMALL = 2_500, 2_499
"""A fourth of what a commit may take, and less."""


def write(root: Path, sizes: list[int]) -> list[Row]:
    """A hot file of each size, of five seconds of a fifth as many points; all rows."""
    hot, rng, rows = HotTier(root), np.random.default_rng(3), []
    print("seed 3")
    for k, size in enumerate(sizes):
        points = -(-size // 5)
        mine = [
            (int(p), T0 + (5 * k + s) * S, float(p * k + s))
            for s in range(5)
            for p in rng.permutation(points)
        ]
        hot.write(k * 10, k * 10 + 9, batch(k * 10, mine[:size]), batch(k * 10, []))
        rows += mine[:size]
    return rows


def test_a_large_file_is_a_commit_of_its_own_and_the_same_bytes(tmp_path: Path) -> None:
    rows = write(tmp_path, [LARGE, SMALL, SMALL, LARGE, LARGE])
    report = Sealer(tmp_path, SETTINGS).seal(100)
    assert (report.main_rows, report.commits, report.files) == (len(rows), 4, 4)
    assert stored(tmp_path) == sorted(rows)
    hot = {path.path.name[:41]: path.path for path in list_hot(tmp_path, late=False)}
    same = [
        path.name[:41] in hot and filecmp.cmp(path, hot[path.name[:41]], shallow=False)
        for path in data_files(tmp_path)
    ]
    assert same == [True, False, True, True]
    latest = load_latest(tmp_path)
    assert latest.seq == 49
    newest = {point: time for point, time, _ in sorted(rows)}
    assert latest.columns["time"].tolist() == [newest[point] for point in sorted(newest)]


def test_rows_of_two_hours_and_late_ones_are_sorted_into_theirs(tmp_path: Path) -> None:
    rows = [(p, T0 + HOUR - S + s * S, 1.0) for s in range(2) for p in range(LARGE)]
    lates = [(p, T0, 1.0) for p in range(LARGE)]
    HotTier(tmp_path).write(0, 9, batch(0, rows), batch(0, lates, first_row=len(rows)))
    Sealer(tmp_path, SETTINGS).seal(9)
    assert stored(tmp_path) == sorted(rows)
    assert stored(tmp_path, late=True) == sorted(lates)
    assert len(data_files(tmp_path)) == 2


def drop_a_column(path: Path) -> None:
    table = pq.read_table(path)
    assert META_FORMAT in table.schema.metadata
    pq.write_table(table.drop_columns(["score"]), path)


def test_one_without_a_column_of_today_is_written_again(tmp_path: Path) -> None:
    rows = write(tmp_path, [LARGE])
    drop_a_column(list_hot(tmp_path, late=False)[0].path)
    report = Sealer(tmp_path, SETTINGS).seal(100)
    assert report.main_rows == LARGE
    assert stored(tmp_path) == sorted(rows)
    (path,) = data_files(tmp_path)
    assert pq.read_schema(path).names == READINGS.names


def test_a_flipped_bit_is_found_before_the_commit(tmp_path: Path) -> None:
    write(tmp_path, [LARGE])
    path = list_hot(tmp_path, late=False)[0].path
    column = pq.read_metadata(path).row_group(0).column(READINGS.names.index("value"))
    raw = bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size - 9] ^= 4
    path.write_bytes(raw)
    sealer = Sealer(tmp_path, SETTINGS)
    with pytest.raises((OSError, pa.ArrowException)):
        sealer.seal(100)
    assert sealer.watermarks() == (-1, -1)
    assert data_files(tmp_path) == []


def test_a_copy_without_its_commit_is_gone_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write(tmp_path, [LARGE, LARGE])
    sealer = Sealer(tmp_path, SETTINGS)
    real = Sealer._commit

    def second_fails(self: Sealer, late: bool, seq: int, actions: list[AddAction]) -> None:
        if seq > 9:
            raise OSError("power")
        real(self, late, seq, actions)

    monkeypatch.setattr(Sealer, "_commit", second_fails)
    with pytest.raises(OSError, match="power"):
        sealer.seal(100)
    assert len(data_files(tmp_path)) == 1
    monkeypatch.undo()
    again = Sealer(tmp_path, SETTINGS)
    assert again.seal(100).main_rows == LARGE
    assert stored(tmp_path) == sorted(rows)
    assert load_latest(tmp_path).seq == 19
