"""How the lake's shape grows over years without a file being written anew.

Owns bringing the Delta tables' schema up to storage.schema, and the refusal of a lake that a later version wrote. A
column may be added, nullable, anywhere behind the key; a kind or check needs nothing. Old files stay as they are:
they have NULL there. Never: another type or meaning under an old name, or a column taken away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, Transaction
from deltalake.transaction import CommitProperties

from storage.deltalog import sync_entries
from storage.deltastate import LOG_NAME, read_log
from storage.schema import FORMAT_VERSION, LATE, META_FORMAT, PARTITIONS, READINGS
from storage.scrub_parquet import READ_FAULTS

GROWTH_APP: Final = "yuzui-growth"
"""App id under which a table's transactions say how many columns its rows have."""
SHAPES: Final = {"readings": READINGS, "late": LATE}


class LakeNewer(RuntimeError):  # noqa: N818 - says what happened
    """A later version wrote this lake; this one would write files that one does not expect."""


def refuse_newer(root: Path) -> None:
    """Raise LakeNewer if a later version wrote to ``root``: it left its mark in the files without rows, which each
    start writes, and maybe columns in the tables. A folder without a lake, or with a damaged mark, is let through."""
    mark = root / "lake" / "empty" / "readings.parquet"
    found = _format_of(mark)
    if found > FORMAT_VERSION:
        raise LakeNewer(
            f"{root / 'lake'} has format {found}; this version of Yuzui knows {FORMAT_VERSION}. Run the version that "
            "wrote it, or a later one."
        )
    for name, shape in SHAPES.items():
        unknown = sorted(set(_columns(root / "lake" / name)) - {*shape.names, *PARTITIONS.names})
        if unknown:
            raise LakeNewer(
                f"{root / 'lake' / name} has columns this version does not know: {', '.join(unknown)}. Run the "
                "version that wrote it, or a later one."
            )


def grow(folder: Path, shape: pa.Schema) -> list[str]:
    """Add to the table in ``folder`` the columns of ``shape`` it lacks; their names. On disk on return.

    One commit of metadata; no file is touched. Raises ValueError for a column that is not nullable, DeltaError,
    OSError.
    """
    table = DeltaTable(str(folder))
    have = {field.name for field in table.schema().fields}
    lacking = [field for field in shape if field.name not in have]
    if not lacking:
        return []
    for field in lacking:
        if not field.nullable:
            raise ValueError(f"column {field.name} is not nullable: files without it could not be read")
    before = table.version()
    # With a transaction beside it: lake.sql counts entries by actions it knows, and must not see a hole here.
    mark = CommitProperties(app_transactions=[Transaction(GROWTH_APP, len(shape.names))])
    table.alter.add_columns(list(Schema.from_arrow(pa.schema(lacking)).fields), commit_properties=mark)
    table = DeltaTable(str(folder))
    sync_entries(folder, before + 1, table.version())
    return [field.name for field in lacking]


def conform(table: pa.Table, shape: pa.Schema) -> pa.Table:
    """Rows of an older file as ``shape``: columns it lacks are NULL. Raises pyarrow.ArrowInvalid for other types."""
    if table.column_names == shape.names:
        return table
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in shape
    ]
    return pa.table(columns, schema=shape)


def _format_of(path: Path) -> int:
    try:
        words: dict[bytes, bytes] = pq.read_metadata(path).metadata or {}
        return int(words.get(META_FORMAT, b"0"))
    except READ_FAULTS:
        return 0


def _columns(folder: Path) -> list[str]:
    if not (folder / LOG_NAME).exists():
        return []
    metadata = read_log(folder).metadata
    if metadata is None:
        return []
    try:
        return [str(field["name"]) for field in json.loads(metadata["metaData"]["schemaString"])["fields"]]
    except (ValueError, KeyError, TypeError):
        return []  # the log is damaged, which is for storage.deltarepair to mend
