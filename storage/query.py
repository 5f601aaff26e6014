"""The lake for readers: lake.sql for any DuckDB, and DuckDB sessions of our own over the same file.

Owns the generated lake.sql and the always-present empty files it leans on. Knows the folders of the lake;
what the views mean stands in storage/sql/lake.sql.
"""

from __future__ import annotations

import glob
from importlib.resources import files
from pathlib import Path
from typing import Final

import duckdb
import pyarrow.parquet as pq

from storage.batch import POS_ROW_BITS
from storage.flags import CHECK_BITS, FLAG_NAMES, GOOD
from storage.fsync import fsync_dir, replace_durably
from storage.hot import hot_dir
from storage.latest import latest_dir
from storage.schema import EMPTY, with_metadata
from storage.sealed import ensure_tables, table_dir

DUCKDB_TESTED: Final = "2.0"
"""The version lake.sql is tested with."""
REFRESH: Final = "SET VARIABLE yuzui = (SELECT snapshot FROM yuzui_now);"
"""Moves all views of a session to one and the same instant: now."""


def _text(value: str) -> str:
    """``value`` as an SQL string."""
    return "'" + value.replace("'", "''") + "'"


def _path(*parts: str | Path) -> str:
    """A path as an SQL string in which no character of ours acts as a wildcard; a last '/' is kept."""
    return _text(glob.escape("".join(str(p) for p in parts)))


def _pattern(folder: Path, pattern: str) -> str:
    return _text(glob.escape(str(folder)) + "/" + pattern)


def ensure_empty(root: Path) -> None:
    """Write the file without rows of each schema where it is missing or of another format. Raises OSError."""
    folder = root / "lake" / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in EMPTY.items():
        final = folder / f"{name}.parquet"
        tmp = folder / f"{name}.tmp"
        pq.write_table(with_metadata(schema).empty_table(), tmp)
        if final.exists() and final.read_bytes() == tmp.read_bytes():
            tmp.unlink()
        else:
            replace_durably(tmp, final)
    fsync_dir(folder.parent)


def write_lake_sql(root: Path, time_zone: str, grace_s: float) -> Path:
    """Write ``root``/lake.sql, and what it needs to stand: empty files and both sealed tables.

    time_zone  name of the city's zone: decides what a day and an hour mean in a session
    grace_s    age at which a session must be refreshed; replaced files are kept at least as long
    Returns its path. Raises OSError.
    """
    root = root.resolve()
    ensure_empty(root)
    ensure_tables(root)
    for name in ("alerts", "quarantine"):
        (root / "lake" / name).mkdir(exist_ok=True)
    final, tmp = root / "lake.sql", root / "lake.sql.tmp"
    tmp.write_text(_filled(root, time_zone, grace_s), encoding="utf-8")
    replace_durably(tmp, final)
    return final


def _filled(root: Path, time_zone: str, grace_s: float) -> str:
    lake = root / "lake"
    main, late = hot_dir(root, late=False), hot_dir(root, late=True)
    again = f"run:  {REFRESH}"
    words = {
        "duckdb_tested": DUCKDB_TESTED,
        "file": str(root / "lake.sql"),
        "file_py": repr(str(root / "lake.sql")),
        "refresh": REFRESH,
        "grace_s": f"{grace_s:g}",
        "time_zone": _text(time_zone),
        "readings": _path(table_dir(root, late=False)),
        "late": _path(table_dir(root, late=True)),
        "hot_main": _path(main, "/"),
        "hot_late": _path(late, "/"),
        "hot_main_glob": _pattern(main, "*.parquet"),
        "hot_late_glob": _pattern(late, "*.parquet"),
        "latest": _path(latest_dir(root), "/"),
        "latest_glob": _pattern(latest_dir(root), "????????????????????.parquet"),
        "points": _path(lake / "points.parquet"),
        "no_snapshot": _text(f"this session has no snapshot of the lake yet; {again}"),
        "too_old": _text(
            f"this session's snapshot is older than {grace_s:g} s, files it names may be gone; {again}"
        ),
        "good": str(GOOD),
        "pos_row_bits": str(POS_ROW_BITS),
        "flag_cases": " ".join(f"WHEN {flag} THEN {_text(name)}" for flag, name in FLAG_NAMES.items()),
        "checks": "["
        + ", ".join(f"{{name: {_text(name)}, mask: {1 << bit}}}" for name, bit in CHECK_BITS.items())
        + "]",
    }
    for name in ("alerts", "quarantine"):
        words[name] = _path(lake / name, "/")
        words[name + "_glob"] = _pattern(lake / name, "*.parquet")
    for name in EMPTY:
        words["empty_" + name] = _path(lake / "empty" / f"{name}.parquet")
    text = (files("storage") / "sql" / "lake.sql").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text


def connect(root: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB session over the data folder, its views at this instant. Needs ``root``/lake.sql.

    A cursor of it shares the views but not the snapshot: refresh the cursor first. Fetch with
    ``execute``: a relation from ``sql()`` runs again at every fetch. Raises OSError, duckdb.Error.
    """
    con = duckdb.connect()
    con.execute((root / "lake.sql").read_text(encoding="utf-8"))
    return con


def refresh(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Move all views of ``con`` to this instant; define them first where it has none. Raises duckdb.Error."""
    try:
        con.execute(REFRESH)
    except duckdb.CatalogException:
        con.execute((root / "lake.sql").read_text(encoding="utf-8"))
