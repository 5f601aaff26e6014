"""A table's log stays short however long it is written to, and forgets no application's position."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake.transaction import AddAction, RemoveAction

from storage import deltatable
from storage.deltalog import log_dir
from storage.deltatable import TableHandle, Vanished
from storage.seal_plan import COMPACT_APP
from storage.sealed import APP_ID, ensure_tables, table_dir

HOUR_S = 3600


@pytest.fixture
def handle(tmp_path: Path) -> TableHandle:
    ensure_tables(tmp_path)
    return TableHandle(table_dir(tmp_path, late=False))


def name_of(number: int) -> str:
    return f"date=2026-01-01/hour=05/{number}.parquet"


def add(number: int) -> AddAction:
    return AddAction(name_of(number), 1, {"date": "2026-01-01", "hour": "5"}, 1, True, '{"numRecords": 1}')


def remove(number: int, hours_ago: float) -> RemoveAction:
    when_ms = int((time.time() - hours_ago * HOUR_S) * 1000)
    return RemoveAction(name_of(number), False, when_ms, 1, {"date": "2026-01-01", "hour": "5"})


def test_entries_and_names_of_removed_files_older_than_hours_go(
    handle: TableHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltatable, "CHECKPOINT_EVERY", 10)
    log = log_dir(handle.folder)
    for number in range(1, 150):
        handle.commit(APP_ID, number, [add(number)])
        if number > 1:
            handle.commit(COMPACT_APP, number, [remove(number - 1, hours_ago=0 if number > 140 else 4)])
        for path in log.glob("0*"):
            if int(path.name[:20]) < 2 * number - 30:
                os.utime(path, (time.time() - 3 * HOUR_S,) * 2)
    entries = sorted(log.glob("*.json"))
    assert len(entries) <= 30 + 2 * 10, "two hours, and what the last two checkpoints are apart"
    newest = max(log.glob("*.checkpoint.parquet"))
    removed = [row for row in pq.read_table(newest)["remove"].to_pylist() if row is not None]
    assert 1 <= len(removed) <= 9
    again = TableHandle(handle.folder)
    assert (again.version_of(APP_ID), again.version_of(COMPACT_APP)) == (149, 149)
    assert again.live()["path"].to_pylist() == [name_of(149)]


def test_a_file_that_is_gone_cannot_be_replaced(handle: TableHandle) -> None:
    handle.commit(APP_ID, 1, [add(1), add(2)])
    other = TableHandle(handle.folder)
    other.commit(COMPACT_APP, 1, [remove(1, 0), add(3)])
    with pytest.raises(Vanished):
        handle.commit(COMPACT_APP, 2, [remove(1, 0), add(4)])
    handle.version_of(APP_ID)
    assert sorted(handle.live()["path"].to_pylist()) == [name_of(2), name_of(3)]
    assert not handle.commit(COMPACT_APP, 1, [remove(2, 0)]), "this number was committed"
