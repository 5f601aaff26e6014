"""The registry file: what is measured, read from CSV or Parquet, checked as columns, and edited.

Owns the file's format, the lines that bad rows stand in, and the commands that change it. The rules of
a row are ingest.pointrules; dense numbers and the map of the lake are storage's.
"""

from __future__ import annotations

import os
import shutil
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from ingest.config import Config
from ingest.devicepoints import DECLARED, device_points
from ingest.pointcsv import appended, changed, records
from ingest.pointproposal import Seen, propose
from ingest.pointrules import COLUMNS, LIMITS, NUMBERS, REQUIRED, TEXT, TIME_FROM, objections
from ingest.registryfaults import FAULTS_SHOWN_MAX, FoundFaults, RegistryFaults, RowFault
from storage.fsync import replace_durably

__all__ = [
    "SCHEMA",
    "Registry",
    "RegistryFaults",
    "RowFault",
    "Seen",
    "add_points",
    "propose",
    "read_registry",
    "retire_points",
]

# The columns of storage.schema.REGISTRY, which storage.pointmap merges.
SCHEMA: dict[str, type[pl.DataType]] = {
    "point_id": pl.String,
    "name": pl.String,
    "kind": pl.String,
    "unit": pl.String,
    "district": pl.String,
    "source": pl.String,
    "device_id": pl.String,
    "gateway_id": pl.String,
    "topic": pl.String,
    "lon": pl.Float64,
    "lat": pl.Float64,
    "interval_s": pl.Float64,
    "time_from": pl.String,
    **dict.fromkeys(LIMITS, pl.Float64),
    "upstream": pl.String,
}


@dataclass(slots=True)
class Registry(FoundFaults):
    """A registry file as read.

    table         its good, live rows with the columns of SCHEMA. Missing text is "", a missing number, limit
                  or upstream is null, a missing interval 0; kinds of the config have filled empty limits.
                  ``time_from`` is device or receive. ``upstream`` names only points of this table.
    retired       point ids of the good rows marked retired
    faults        the first FAULTS_SHOWN_MAX in the order of the file
    faults_count  all of them
    """

    table: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))
    retired: list[str] = field(default_factory=list)
    rows: int = 0


def read_registry(path: Path, config: Config) -> Registry:
    """The registry in ``path`` (Parquet by its suffix, else CSV), every row checked against ``config``.

    Never raises for what the file holds: what is wrong stands in ``faults``, the good rows in ``table``.
    """
    try:
        if path.suffix == ".parquet":
            return _checked(path, pl.read_parquet(path), config, "row", None)
        table = None
        try:
            table = pl.read_csv(path, infer_schema=False, comment_prefix="#")
            registry = _checked(path, table, config, "line", None)
        except pl.exceptions.PolarsError:
            registry = None
        # polars is fast but neither counts lines nor names ragged ones: a file with faults is read again.
        if registry is None or registry.faults_count:
            registry = _read_exactly(path, config, table)
        return registry
    except FileNotFoundError as error:
        if any(source.devices for source in config.source):
            return _checked(
                path, pl.DataFrame(schema=dict.fromkeys(REQUIRED, pl.String)), config, "line", None
            )
        return _refused(path, [f"cannot be read: {error.strerror or error}"])
    except OSError as error:
        return _refused(path, [f"cannot be read: {error.strerror or error}"])
    except UnicodeDecodeError as error:
        return _refused(path, [f"not UTF-8 (byte {error.start}); from a spreadsheet, save as CSV UTF-8"])
    except pl.exceptions.PolarsError as error:
        return _refused(path, [f"cannot be read: {str(error).splitlines()[0]}"])


def _read_exactly(path: Path, config: Config, table: pl.DataFrame | None) -> Registry:
    """As polars would read it, with the line of each record; ragged and broken records become faults.

    table: what polars did read; it is used where it has a row for each record.
    """
    header: list[str] | None = None
    good: list[list[str]] = []
    lines: list[int] = []
    faults: list[tuple[int, str]] = []
    for record in records(path.read_bytes().decode("utf-8-sig")):
        if record.cells is None:
            continue
        if header is None:
            header = record.cells
        elif record.error or len(record.cells) > len(header):
            message = record.error or f"{len(record.cells)} cells, the header has {len(header)}"
            faults.append((record.line, message))
        else:
            good.append(record.cells)
            lines.append(record.line)
    if header is None:
        return _refused(path, ["empty: expected a header line"])
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        return _refused(path, [f"columns that stand twice: {', '.join(repeated)}"])
    if table is None or faults or table.columns != header or len(table) != len(lines):
        table = pl.DataFrame(
            [cells + [""] * (len(header) - len(cells)) for cells in good],
            schema=dict.fromkeys(header, pl.String),
            orient="row",
        )
    return _checked(path, table, config, "line", lines, faults)


def _refused(path: Path, messages: Sequence[str]) -> Registry:
    return Registry(path, faults=[RowFault("", m) for m in messages], faults_count=len(messages))


def _checked(
    path: Path,
    table: pl.DataFrame,
    config: Config,
    word: str,
    lines: list[int] | None,
    more: Sequence[tuple[int, str]] = (),
) -> Registry:
    """Type, fill and judge the rows of ``table``. ``more``: faults of records that are not in it."""
    if wrong := list(_column_faults(table.columns, config)):
        return _refused(path, wrong)
    numbers = pl.Series("at", lines or range(1, len(table) + 1), dtype=pl.Int64)
    if word == "line" and lines is None:
        numbers += 1
    placed = table.with_columns(numbers, place=pl.format(f"{word} {{}}", numbers))
    rows = _typed(_with_declared(placed, config), config)
    bad = pl.repeat(False, len(rows), dtype=pl.Boolean, eager=True)
    found = [(at, f"{word} {at}", message) for at, message in more]
    count = len(found)
    for objection in objections(rows, config):
        bad |= objection.mask
        count += int(objection.mask.sum())
        told = rows.with_columns(message=objection.message).filter(objection.mask).head(FAULTS_SHOWN_MAX)
        found += told.select("at", "place", "message").rows()
    found.sort(key=lambda fault: fault[0])
    faults = [RowFault(place, message) for _, place, message in found[:FAULTS_SHOWN_MAX]]
    good = rows.filter(~bad)
    retired = good.filter("retired")["point_id"].to_list()
    live = _shaped(good.filter(~pl.col("retired")))
    return Registry(path, faults, count, table=live, retired=retired, rows=len(rows) + len(more))


def _with_declared(table: pl.DataFrame, config: Config) -> pl.DataFrame:
    """The file's rows and behind them the points of the sources' ``devices``; a row of the file stands for both."""
    made = [row for source in config.source for row in device_points(source)]
    if not made:
        return table
    declared = pl.DataFrame(made, schema=dict.fromkeys((*DECLARED, "place"), pl.String), orient="row")
    declared = declared.filter(~pl.col("point_id").is_in(table["point_id"].cast(pl.String).implode()))
    declared = declared.with_columns(at=pl.lit(len(table) + 2, dtype=pl.Int64))
    return pl.concat([table.with_columns(pl.exclude("at").cast(pl.String)), declared], how="diagonal")


def _column_faults(columns: Sequence[str], config: Config) -> Iterable[str]:
    for name in columns:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, n=1)
            yield f'unknown column "{name}"' + (f' (did you mean "{near[0]}"?)' if near else "")
    given = {
        "kind": any(source.kind for source in config.source),
        "topic": any(source.topics or source.port is not None for source in config.source),
    }
    for name in REQUIRED:
        if name not in columns and not given.get(name):
            yield f'column "{name}" is required'


def _typed(table: pl.DataFrame, config: Config) -> pl.DataFrame:
    """All of COLUMNS in their types, with ``row`` and ``wrong_NAME``; see pointrules.objections."""
    absent = [pl.lit(None, dtype=pl.String).alias(name) for name in COLUMNS if name not in table.columns]
    rows = table.with_columns(absent).with_columns(pl.col(COLUMNS).cast(pl.String)).with_row_index("row")
    rows = rows.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in COLUMNS)
    parsed: list[pl.Expr] = []
    for name in NUMBERS:
        text = pl.col(name).str.strip_chars()
        number = text.cast(pl.Float64, strict=False)
        finite = pl.when(number.is_finite()).then(number)
        parsed += [
            finite.alias(name),
            pl.when(finite.is_null() & (text != "")).then(text).alias(f"wrong_{name}"),
        ]
    truth = pl.col("retired").str.strip_chars().str.to_lowercase()
    known = pl.col("retired").is_null() | truth.is_in(["true", "false", "1", "0", ""])
    parsed += [
        truth.is_in(["true", "1"]).fill_null(False).alias("retired"),
        pl.when(~known).then(pl.col("retired")).alias("wrong_retired"),
        pl.col("row").cast(pl.Int64),
        _from_source("time_from", config).fill_null(TIME_FROM[0]),
        _from_source("kind", config),
    ]
    interval = pl.col("expected_interval_s").fill_null(_from_source("interval_s", config))
    return (
        rows.with_columns(parsed)
        .with_columns(interval)
        .with_columns(_from_kind(name, config) for name in ("unit", *LIMITS))
    )


def _from_source(name: str, config: Config) -> pl.Expr:
    """What the row's source says: of kind and time_from where the row says nothing, of interval_s by itself."""
    said = {s.name: value for s in config.source if (value := getattr(s, name))}
    number = name == "interval_s"
    if not said:
        return pl.lit(None, dtype=pl.Float64) if number else pl.col(name)
    dtype = pl.Float64 if number else pl.String
    of_source = pl.col("source").replace_strict(said, default=None, return_dtype=dtype)
    return of_source if number else pl.col(name).fill_null(of_source)


def _from_kind(name: str, config: Config) -> pl.Expr:
    """A column whose empty cells take what [kinds.NAME] of the config says."""
    said = {
        kind: value for kind, table in config.kinds.items() if (value := getattr(table, name)) is not None
    }
    if not said:
        return pl.col(name)
    dtype = pl.String if name == "unit" else pl.Float64
    return pl.col(name).fill_null(pl.col("kind").replace_strict(said, default=None, return_dtype=dtype))


def _shaped(rows: pl.DataFrame) -> pl.DataFrame:
    """Good rows in the columns of SCHEMA."""
    known = rows["point_id"].implode()
    texts = [pl.col(name).fill_null("") for name in TEXT if name != "upstream"]
    return rows.with_columns(
        *texts,
        interval_s=pl.col("expected_interval_s").fill_null(0.0),
        # A good row may lean on a bad or a retired one.
        upstream=pl.when(pl.col("upstream").is_in(known)).then(pl.col("upstream")),
    ).select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def add_points(path: Path, config: Config, rows: Sequence[Mapping[str, str]]) -> Registry:
    """Append ``rows`` (column to text) to the registry, making the file where there is none.

    The whole result is checked first; the file changes in one rename or not at all.
    Raises RegistryFaults, OSError.
    """
    if path.suffix == ".parquet":
        new = _appended_parquet(path, rows)
        return _replaced(path, config, lambda tmp: new.write_parquet(tmp))
    text = appended(_text(path) if path.exists() else "", rows, COLUMNS)
    return _replaced(path, config, lambda tmp: _write_text(tmp, text, path))


def _appended_parquet(path: Path, rows: Sequence[Mapping[str, str]]) -> pl.DataFrame:
    new = pl.DataFrame([dict(row) for row in rows], infer_schema_length=None)
    if not path.exists():
        return new
    old = pl.read_parquet(path)
    typed = [pl.col(name).cast(old.schema[name]) for name in new.columns if name in old.columns]
    try:
        return pl.concat([old, new.with_columns(typed)], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise RegistryFaults(_refused(path, [f"new rows: {str(error).splitlines()[0]}"])) from None


def retire_points(path: Path, config: Config, point_ids: Collection[str]) -> Registry:
    """Mark points as retired: their rows and numbers stay, their readings are refused.

    Raises RegistryFaults (also where an id is not in the registry), OSError.
    """
    before = read_registry(path, config)
    if before.faults_count and not before.rows:
        raise RegistryFaults(before)
    known = {*before.table["point_id"], *before.retired}
    if unknown := sorted(set(point_ids) - known):
        raise RegistryFaults(_refused(path, [f'no good row for point "{name}"' for name in unknown]))
    ids = set(point_ids)
    if path.suffix == ".parquet":
        table = pl.read_parquet(path)
        said = pl.col("retired").cast(pl.String).str.strip_chars().str.to_lowercase()
        was = said.is_in(["true", "1"]).fill_null(False) if "retired" in table.columns else pl.lit(False)
        marked = table.with_columns(retired=was | pl.col("point_id").cast(pl.String).is_in(list(ids)))
        return _replaced(path, config, lambda tmp: marked.write_parquet(tmp))
    text = changed(_text(path), "retired", "true", lambda row: row.get("point_id") in ids)
    return _replaced(path, config, lambda tmp: _write_text(tmp, text, path))


def _replaced(path: Path, config: Config, write: Callable[[Path], object]) -> Registry:
    """Let ``write`` make the new file beside the old one, check it, and only then give it the name."""
    # The suffix says the format, so the temporary name keeps it.
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(tmp)
        registry = read_registry(tmp, config)
        registry.path = path
        if registry.faults_count:
            raise RegistryFaults(registry)
        if path.exists():
            shutil.copymode(path, tmp)
            if os.geteuid() == 0:
                # Else a file of mode 0640 would be one the engine may not read any more.
                owner = path.stat()
                os.chown(tmp, owner.st_uid, owner.st_gid)
        replace_durably(tmp, path)
        return registry
    finally:
        tmp.unlink(missing_ok=True)


def _text(path: Path) -> str:
    """Raises RegistryFaults where the file is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegistryFaults(_refused(path, [f"not UTF-8 (byte {error.start})"])) from None


def _write_text(tmp: Path, text: str, old: Path) -> None:
    # Spreadsheets know UTF-8 by its mark and would show 成都 as noise without it.
    marked = old.exists() and old.read_bytes()[: len(BOM_UTF8)] == BOM_UTF8
    tmp.write_bytes((BOM_UTF8 if marked else b"") + text.encode())
