"""Tables that a disk has damaged, brought back to what can be read: their logs, and the files these name.

Owns putting a restored file in the place of a damaged one, in one commit. Needs the tables to itself: the sealer's
process at its start, or ``yuzui scrub --repair`` on a folder without an engine. Where rows come from: hot files
still in their grace (all of them), else the row groups that are whole (the rest is lost, and said).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from storage.deltalog import checkpoint
from storage.deltarepair import REPAIR_APP, add_of, data_files, live_on_disk, mend_log, put_log_aside
from storage.deltastate import read_log
from storage.deltatable import TableHandle
from storage.fsync import fsync_dir, fsync_file
from storage.growth import grow
from storage.hashes import keep_hashes
from storage.hot import hours_since_1970, list_hot
from storage.latest import latest_dir
from storage.recovery import Damage
from storage.schema import LATE, READINGS, ROW_GROUP_SEALED, reading_options, with_metadata
from storage.scrub_parquet import READ_FAULTS
from storage.scrub_tables import TABLES, wrong_files
from storage.seal_plan import COMPACT_APP, COMPACTED_NAME, SEALED_NAME, point_time_order
from storage.sealed import APP_ID, ensure_tables, table_dir

_SEQ = re.compile(r"(\d{20})\.parquet")


def mend_tables(root: Path) -> Damage:
    """Make both tables whole, as a start finds them; what was done. Raises OSError, DeltaError.

    Looks at logs, and at the lengths of data files; a flipped bit in one of those is for scrub to find.
    """
    damage = Damage()
    anew = [late for late in (False, True) if not mend_log(root, table_dir(root, late), damage)]
    for late in anew:
        put_log_aside(table_dir(root, late), damage)
    ensure_tables(root)
    for late in (False, True):
        grow(table_dir(root, late), LATE if late else READINGS)
    for late in anew:
        _fill_anew(root, late)
    for late in (False, True):
        folder = table_dir(root, late)
        wrong = [path for path, _ in wrong_files(folder, read_log(folder))]
        if wrong:
            _restore(root, late, wrong, damage)
    return damage


def repair_files(root: Path, paths: Iterable[Path]) -> list[str]:
    """Restore what can be of the damaged ``paths`` that a table names; a sentence each of what was done.

    The caller holds the folder's lock. Raises OSError, DeltaError.
    """
    damage = mend_tables(root)
    wanted = set(paths)
    for name in TABLES:
        late = name == "late"
        folder = table_dir(root, late)
        named = {folder / path for path in read_log(folder).adds}
        if rotten := sorted(wanted & named):
            _restore(root, late, rotten, damage)
    return damage.said


def _fill_anew(root: Path, late: bool) -> None:
    """Put the files on disk into a table that was begun anew."""
    folder = table_dir(root, late)
    watermark = _watermark(root)
    table = TableHandle(folder)
    adds = [_action(add_of(folder, path)) for path in live_on_disk(folder, watermark)]
    numbers = [
        int(m[1]) for p in data_files(table_dir(root, False)) if (m := COMPACTED_NAME.fullmatch(p.name))
    ]
    if numbers:
        table.commit(COMPACT_APP, max(numbers), [])
    if watermark >= 0:
        table.commit(APP_ID, watermark, adds)
    checkpoint(DeltaTable(str(folder)), folder, clean=False)


def _watermark(root: Path) -> int:
    """Up to where the tables are sealed: the last readings are written after each seal. Without them, all is."""
    folder = latest_dir(root)
    names = os.listdir(folder) if folder.exists() else []
    seqs = [int(match[1]) for name in names if (match := _SEQ.fullmatch(name))]
    if seqs:
        return max(seqs)
    sealed = (
        SEALED_NAME.fullmatch(p.name) for late in (False, True) for p in data_files(table_dir(root, late))
    )
    return max((int(name[2]) for name in sealed if name), default=-1)


def _action(json_action: dict[str, Any]) -> AddAction:
    add = json_action["add"]
    return AddAction(
        path=add["path"],
        size=add["size"],
        partition_values=add["partitionValues"],
        modification_time=add["modificationTime"],
        data_change=True,
        stats=add["stats"],
    )


@dataclass(slots=True)
class _Restored:
    """Rows for one damaged file: those that were found, and what they are a part of."""

    rows: pa.Table
    expected: int
    metadata: dict[bytes, bytes]
    source: str


def _restore(root: Path, late: bool, paths: Sequence[Path], damage: Damage) -> None:
    """Take ``paths`` out of the table and put in what can be read of them, in one commit."""
    folder = table_dir(root, late)
    table = TableHandle(folder)
    state = read_log(folder)
    actions: list[AddAction | RemoveAction] = []
    said: list[tuple[Path, str]] = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        add = state.adds[name]
        found = _rows_of(root, late, path, add)
        actions.append(_removal(name, add))
        if found.rows.num_rows:
            new = _write(path, found, late)
            actions.append(_action(add_of(folder, new)))
            keep_hashes(root, [new])
        lost = found.expected - found.rows.num_rows
        damage.lost_rows += max(lost, 0)
        hour = f"{path.parent.parent.name} {path.parent.name}"
        said.append(
            (path, f"{lost} of {found.expected} rows of {hour} are lost; the rest is from {found.source}")
        )
    table.commit(REPAIR_APP, table.version_of(REPAIR_APP) + 1, actions)
    for path, sentence in said:
        if path.exists():
            damage.put_aside(path, f"damaged: {sentence}")
        else:
            damage.say(f"{path}: gone: {sentence}")


def _removal(name: str, add: dict[str, Any]) -> RemoveAction:
    return RemoveAction(
        path=name,
        deletion_timestamp=time.time_ns() // 1_000_000,
        data_change=True,
        partition_values={key: str(value) for key, value in add["partitionValues"].items()},
        size=add["size"],
    )


def _rows_of(root: Path, late: bool, path: Path, add: dict[str, Any]) -> _Restored:
    expected = _expected(add)
    metadata, whole = _whole_groups(path)
    schema = with_metadata(LATE if late else READINGS)
    hot = _from_hot(root, late, path)
    if hot is not None and hot.num_rows == expected:
        return _Restored(hot, expected, metadata, "hot files")
    rows = pa.concat_tables(whole) if whole else schema.empty_table()
    return _Restored(rows, expected, metadata, "its whole row groups" if whole else "nowhere")


def _expected(add: dict[str, Any]) -> int:
    found = re.search(r'"numRecords"\s*:\s*(\d+)', add.get("stats") or "")
    return int(found[1]) if found else 0


def _whole_groups(path: Path) -> tuple[dict[bytes, bytes], list[pa.Table]]:
    """The words in the file's metadata, and its row groups whose pages all fit their checksums."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except READ_FAULTS:
        return {}, []
    with file:
        found = []
        for group in range(file.num_row_groups):
            try:
                found.append(file.read_row_group(group, use_threads=False))
            except READ_FAULTS:
                continue  # its rows are counted as lost by whoever knows how many there were
        return dict(file.schema_arrow.metadata or {}), found


def _from_hot(root: Path, late: bool, path: Path) -> pa.Table | None:
    """The rows of a sealed file's range and hour from hot files, sorted as sealed; None where some are gone."""
    name = SEALED_NAME.fullmatch(path.name)
    if name is None:
        return None
    first, last = int(name[1]), int(name[2])
    parts = []
    for hot in list_hot(root, late):
        if hot.first >= first and hot.last <= last:
            try:
                parts.append(
                    pq.ParquetFile(hot.path, page_checksum_verification=True).read(use_threads=False)
                )
            except READ_FAULTS:
                return None
    if not parts:
        return None
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts]).combine_chunks()
    hours = hours_since_1970(table["time"].cast(pa.int64()).to_numpy())
    table = table.filter(pa.array(hours == _hour_of(path)))
    order = point_time_order(table["point"].to_numpy(), table["time"].cast(pa.int64()).to_numpy(), late=late)
    return table.take(pa.array(order))


def _hour_of(path: Path) -> int:
    """Event-time hour since 1970 UTC of a file's partition."""
    day = date.fromisoformat(path.parent.parent.name.removeprefix("date="))
    return (day - date(1970, 1, 1)).days * 24 + int(path.parent.name.removeprefix("hour="))


def _write(damaged: Path, found: _Restored, late: bool) -> Path:
    """A file of the rows found beside the damaged one, under the next free number; on disk on return."""
    schema = with_metadata(LATE if late else READINGS, extra=found.metadata)
    path = _free_name(damaged)
    with pq.ParquetWriter(path, schema, **reading_options(schema)) as writer:
        rows = found.rows.select(schema.names).replace_schema_metadata(schema.metadata)
        writer.write_table(rows, row_group_size=ROW_GROUP_SEALED)
    fsync_file(path)
    fsync_dir(path.parent)
    return path


def _free_name(damaged: Path) -> Path:
    stem, _, number = damaged.stem.rpartition("-")
    width = len(number) if COMPACTED_NAME.fullmatch(damaged.name) else 0
    at = int(number)
    while (path := damaged.with_name(f"{stem}-{at:0{width}d}.parquet")).exists() or path == damaged:
        at += 1
    return path
