"""The lake for readers: lake.sql for any DuckDB, and DuckDB sessions of our own over the same file.

Owns the generated lake.sql and the always-present empty files it leans on. Knows the folders of the lake;
what the views mean stands in storage/sql/lake.sql.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from storage.batch import POS_ROW_BITS
from storage.flags import CHECK_BITS, FLAG_NAMES, GOOD
from storage.fsync import fsync_dir
from storage.hashes import replace_kept
from storage.hotlist import LIST_NAME, HotList
from storage.records import STATES
from storage.schema import EMPTY, READINGS, with_metadata
from storage.sealed import ensure_tables

# DuckDB only where a session is opened: an engine writes lake.sql and opens none.
if TYPE_CHECKING:
    import duckdb

DUCKDB_TESTED: Final = "2.0"
"""The version lake.sql is tested with."""
REFRESH: Final = "SET VARIABLE yuzui = (SELECT snapshot FROM yuzui_now);"
"""Moves all views of a session to one and the same instant: now."""
REFRESH_TRIES: Final = 3
"""A refresh that met a commit halfway says so; the next one sees the new state."""
COPY_GRACE_S: Final = 1e10
"""Three hundred years: in a copy nothing is replaced."""
LOGS: Final = ("alerts", "quarantine", "forecasts", "alert_log", "folds", "events")
ROLLUPS: Final = ("rollup_1m", "rollup_1h")
LISTS: Final = {
    **dict.fromkeys(("plain", "touched", "dirty", "latest_file", "latest_main"), "readings"),
    **dict.fromkeys(("late", "latest_late"), "late"),
    **dict.fromkeys(ROLLUPS, "rollup"),
    **{name: name for name in ("points", *LOGS)},
}
"""The lists of files in a snapshot, and which file without rows belongs to each."""
HOUR_0: Final = 5_000_000_000
"""Added to hours in lists: with it all of them, also those before 1970, have ten digits and compare as text."""
EMPTY_LAST: Final = frozenset({"plain", "touched", "dirty", "latest_main", *ROLLUPS})


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
            replace_kept(root, tmp, final)
    fsync_dir(folder.parent)


def write_lake_sql(root: Path, time_zone: str, grace_s: float) -> Path:
    """Write ``root``/lake.sql, and what it needs to stand: empty files, both sealed tables, the list of hot files.

    time_zone  name of the city's zone: decides what a day and an hour mean in a session
    grace_s    age at which a session must be refreshed; replaced files are kept at least as long
    Returns its path. Raises OSError.
    """
    root = root.resolve()
    lake = root / "lake"
    ensure_empty(root)
    ensure_tables(root)
    for name in (*LOGS, *ROLLUPS, "hot"):
        (lake / name).mkdir(exist_ok=True)
    hot_list = HotList(lake / "hot")
    if not hot_list.path.exists():
        hot_list.save()
    final, tmp = root / "lake.sql", root / "lake.sql.tmp"
    tmp.write_text(_filled(lake, lake, root / "lake.sql", time_zone, grace_s), encoding="utf-8")
    replace_kept(root, tmp, final)
    return final


def write_copy_sql(lake: Path, out: Path, time_zone: str) -> Path:
    """Write ``out``: lake.sql over a copied ``lake`` folder that nothing writes to any more, perhaps read-only.

    lake  holds at least readings/ and points.parquet; what else of a lake was copied is used too, but for hot files:
          a copy shows what is sealed
    out   the file to write. What is missing, and the files without rows, go into the folder ``out``.parts
    Such a session never grows too old. Raises OSError, ValueError where readings or points are not there.
    """
    lake, out = lake.resolve(), out.resolve()
    if not (lake / "readings" / "_delta_log").is_dir() or not (lake / "points.parquet").is_file():
        raise ValueError(f"{lake} is no lake: it has no readings/_delta_log or no points.parquet")
    parts = out.with_name(out.name + ".parts")
    side = parts / "lake"
    ensure_empty(parts)
    ensure_tables(parts)
    for name in (*LOGS, *ROLLUPS, "hot", "latest"):
        (side / name).mkdir(exist_ok=True)
    HotList(side / "hot").save()
    _copy_latest(lake, side, _filled(lake, side, out, time_zone, COPY_GRACE_S))
    out.write_text(_filled(lake, side, out, time_zone, COPY_GRACE_S), encoding="utf-8")
    return out


def _copy_latest(lake: Path, side: Path, text: str) -> None:
    """The file of last readings that belongs to this copy: the copied one, or made of all readings."""
    import duckdb

    with duckdb.connect() as con:
        con.execute(text)
        [[seq]] = con.execute("SELECT CAST(getvariable('yuzui').main_seq AS BIGINT)").fetchall()
        name = f"{max(seq, 0):020d}.parquet"
        if (lake / "latest" / name).is_file():
            shutil.copyfile(lake / "latest" / name, side / "latest" / name)
            return
        last = con.sql("SELECT unnest(max_by(r, time)) FROM yuzui_readings r GROUP BY point").to_arrow_table()
        pq.write_table(last.select(READINGS.names).cast(READINGS).sort_by("point"), side / "latest" / name)


def _filled(lake: Path, side: Path, final: Path, time_zone: str, grace_s: float) -> str:
    """The text of lake.sql over ``lake``; what is missing there is looked for in ``side``."""

    def place(name: str) -> Path:
        """Of a copy, hot files and last readings are ours: those of a copy may be from another moment."""
        ours = name.startswith(("hot", "latest")) or not (lake / name).exists()
        return side / name if ours else lake / name

    found: dict[Path, list[str]] = {}
    for name in (*LOGS, *ROLLUPS, "latest"):
        found.setdefault(place(name).parent, []).append(name)
    again = f"run:  {REFRESH}"
    words = {
        "duckdb_tested": DUCKDB_TESTED,
        "file": str(final),
        "file_py": repr(str(final)),
        "refresh": REFRESH,
        "grace_s": f"{grace_s:.15g}",
        "time_zone": _text(time_zone),
        "readings": _path(place("readings")),
        "late": _path(place("late")),
        "hot_main": _path(lake, "/hot/main/"),
        "hot_late": _path(lake, "/hot/late/"),
        "hot_list": _path(place(f"hot/{LIST_NAME}")),
        "latest": _path(place("latest"), "/"),
        "found": "\n          UNION ALL ".join(
            f"SELECT file FROM glob({_pattern(folder, '*/*.parquet')}) WHERE {_in_folders(names)}"
            for folder, names in found.items()
        ),
        "folder_cases": " ".join(f"WHEN '{name}' THEN {_path(place(name), '/')}" for name in LOGS),
        "hour_0": str(HOUR_0),
        "points": _path(place("points.parquet")),
        "no_snapshot": _text(f"this session has no snapshot of the lake yet; {again}"),
        "too_old": _text(
            f"this session's snapshot is older than {grace_s:.15g} s, files it names may be gone; {again}"
        ),
        "good": str(GOOD),
        "pos_row_bits": str(POS_ROW_BITS),
        "pos_max": str(2**63 - 1),
        "always": "TIMESTAMPTZ '1000-01-01 00:00:00+00', TIMESTAMPTZ '9999-12-31 00:00:00+00'",
        "lists": ",\n    ".join(
            _list(name, side / "empty" / f"{empty}.parquet") for name, empty in LISTS.items()
        ),
        "stage_cases": " ".join(f"WHEN {_text(state)} THEN {stage}" for state, stage in STATES.items()),
        "flag_cases": " ".join(f"WHEN {flag} THEN {_text(name)}" for flag, name in FLAG_NAMES.items()),
        "checks": "["
        + ", ".join(f"{{name: {_text(name)}, mask: {1 << bit}}}" for name, bit in CHECK_BITS.items())
        + "]",
    }
    for name in (*LOGS, *ROLLUPS):
        words[name] = _path(place(name), "/")
    text = (files("storage") / "sql" / "lake.sql").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text


def _in_folders(names: Iterable[str]) -> str:
    return f"parse_filename(parse_dirpath(file)) IN ({', '.join(map(_text, names))})"


def _list(name: str, empty: Path) -> str:
    """One list of files in the snapshot: a field of the struct."""
    found = f"max(paths) FILTER (list = '{name}')"
    always = f"'{'0' * 10}{'9' * 10}' || {_path(empty)}"
    parts = (found, always) if name in EMPTY_LAST else (always, found)
    return f"{name}: concat_ws(chr(10), {', '.join(parts)})"


def connect(root: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB session over the data folder, its views at this instant. Needs ``root``/lake.sql.

    A cursor of it shares the views but not the snapshot: refresh the cursor first. Fetch with
    ``execute``: a relation from ``sql()`` runs again at every fetch. Raises OSError, duckdb.Error.
    """
    import duckdb

    con = duckdb.connect()
    con.execute((root / "lake.sql").read_text(encoding="utf-8"))
    return con


def refresh(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Move all views of ``con`` to this instant; define them first where it has none. Raises duckdb.Error."""
    import duckdb

    for tries in range(REFRESH_TRIES):
        try:
            con.execute(REFRESH)
            return
        except duckdb.CatalogException:
            con.execute((root / "lake.sql").read_text(encoding="utf-8"))
            return
        except duckdb.Error as fault:
            if "refresh again" not in str(fault) or tries == REFRESH_TRIES - 1:
                raise
