"""`yuzui backtest`: checks, rules and the score over recorded readings, into a file of their own.

Owns the shapes of the files it reads and writes. What is judged, and how, is anomaly.backtest's; stored readings
are never scored again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ingest.cli import json_option
from ingest.commands.common import load_or_fail

if TYPE_CHECKING:
    import polars as pl

    from anomaly.alerts.event import AlertEvent
    from ingest.config import Config
    from storage.points import PointTable

UNITS_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
AUTO_UNITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
"""Numeric times below the first number are seconds, and so on: each bound lies beyond the year 5000 in its unit and
before 1974 in the next."""
TIME_US_MAX = float(1 << 62)
"""µs beyond which int64 would turn round."""
SOURCE = "backtest"

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--readings", required=True, type=FILE, help="Parquet or CSV with point_id, time and value.")
@click.option("--points", "points_file", type=FILE, help="Registry of the points; others have no limits.")
@click.option(
    "--rules", "rules_file", type=FILE, help="Config whose kinds, checks and rules hold; else defaults."
)
@click.option("--out", required=True, type=NEW_FILE, help="Judged readings: .parquet, else CSV.")
@click.option("--alerts", "alerts_file", type=NEW_FILE, help="Alert events: .parquet, .csv, else JSON lines.")
@click.option("--time-zone", help="What an hour and a day mean. Default: the config's, else UTC.")
@click.option(
    "--time-unit",
    type=click.Choice(["auto", *UNITS_US]),
    default="auto",
    show_default=True,
    help="Of numeric times; auto goes by their size.",
)
@json_option
def command(
    readings: Path,
    points_file: Path | None,
    rules_file: Path | None,
    out: Path,
    alerts_file: Path | None,
    time_zone: str | None,
    time_unit: str,
    as_json: bool,
) -> None:
    """Judge recorded readings with the same checks and rules the engine runs.

    Times are ISO 8601 (without an offset: UTC), timestamps or numbers since 1970. The rows come out in the order
    they went in, with flag, checks (a bit a check) and score (1.0 is the alarm line). The same files give the same
    result on any machine.
    """
    from zoneinfo import ZoneInfo

    import numpy as np
    import orjson
    import polars as pl

    from anomaly.backtest import backtest
    from ingest.config import Config

    given = [file.resolve() for file in (readings, points_file, rules_file) if file]
    if any(file.resolve() in given for file in (out, alerts_file) if file):
        raise click.ClickException(
            "--out and --alerts are files of their own: what is read is never written over"
        )
    config = load_or_fail(str(rules_file)) if rules_file else Config()
    zone = time_zone or config.city.time_zone
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise click.ClickException(f'unknown time zone "{zone}" (a name such as "Asia/Shanghai")') from None
    table = _read(readings)
    time = _times(table["time"], time_unit)
    table_of = _points(points_file, config, table["point_id"])
    number = {point_id: at for at, point_id in enumerate(table_of.point_id)}
    point = table["point_id"].replace_strict(number, return_dtype=pl.Int32).to_numpy()
    value = table["value"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    found = backtest(
        table_of, point, time, value,
        kinds=config.kinds, checks=config.checks, rules=config.rules.model_dump(), time_zone=zone,
        alerts=alerts_file is not None,
    )  # fmt: skip
    flag, bits, score = (pl.Series(a) for a in (found.flag, found.checks, found.score))
    _write(table.select("point_id", "time", "value").with_columns(flag=flag, checks=bits, score=score), out)
    if alerts_file is not None:
        _write(_alert_rows(found.events), alerts_file, lines=True)
    said = {
        "readings": len(table),
        "points": table["point_id"].n_unique(),
        "flagged": int((found.flag > 2).sum()),
        "over_the_line": int((found.score >= 1).sum()),
        "alert_events": len(found.events) if alerts_file else None,
    }
    if as_json:
        click.echo(orjson.dumps(said).decode())
    else:
        alerts = f", {said['alert_events']:,} alert events" if alerts_file else ""
        click.echo(
            f"{said['readings']:,} readings of {said['points']:,} points: {said['flagged']:,} flagged, "
            f"{said['over_the_line']:,} at or over the alarm line{alerts}; written to {out}"
        )


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pl.exceptions.PolarsError, OSError) as fault:
        raise click.ClickException(f"{path}: {fault}") from None
    if missing := [name for name in ("point_id", "time", "value") if name not in table.columns]:
        raise click.ClickException(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
    table = table.with_columns(pl.col("point_id").cast(pl.String).fill_null(""))
    try:
        return table.with_columns(pl.col("value").cast(pl.Float64))
    except pl.exceptions.PolarsError as fault:
        raise click.ClickException(f"{path}: column value: {fault}") from None


def _read_csv(path: Path) -> pl.DataFrame:
    import polars as pl

    # An id that looks like a number is still a name: 007 is not 7.
    return pl.read_csv(path, infer_schema_length=None, schema_overrides={"point_id": pl.String})


def _times(column: pl.Series, unit: str) -> Any:
    """int64[n] µs since 1970 UTC of a column of timestamps, numbers or ISO texts."""
    import polars as pl

    if column.null_count():
        raise click.ClickException(f"time: {column.null_count():,} rows have none")
    if column.dtype == pl.String:
        column = _parsed(column)
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.cast_time_unit("us").to_physical().to_numpy()
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us")).to_physical().to_numpy()
    if not column.dtype.is_numeric():
        raise click.ClickException(f"time: cannot be read as a time: {column.dtype}")
    numbers = column.cast(pl.Float64)
    if not numbers.is_finite().all():
        raise click.ClickException("time: a number that is none (NaN or infinity)")
    largest = float(numbers.abs().max() or 0)  # type: ignore[arg-type]
    if unit == "auto":
        unit = next(name for below, name in AUTO_UNITS if largest < below)
    if largest * UNITS_US[unit] >= TIME_US_MAX:
        raise click.ClickException(f"time: {largest:g} is no time in {unit}: --time-unit says another")
    if column.dtype.is_integer():
        whole = column.cast(pl.Int64)
        return (whole // 1_000 if unit == "ns" else whole * int(UNITS_US[unit])).to_numpy()
    return (column.cast(pl.Float64) * UNITS_US[unit]).round().cast(pl.Int64).to_numpy()


def _parsed(column: pl.Series) -> pl.Series:
    """ISO 8601 texts as UTC; without an offset they are UTC already."""
    import polars as pl

    try:
        return column.str.to_datetime(time_unit="us", time_zone="UTC")
    except pl.exceptions.PolarsError:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        if not numbers.null_count():
            return numbers
    texts = column.unique()
    try:
        # Mixed forms, and those polars does not know: one by one, each text once.
        known = {text: _instant(text) for text in texts.to_list()}
    except ValueError as fault:
        raise click.ClickException(f"time: {fault}") from None
    return column.replace_strict(known, return_dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))


def _instant(text: str) -> int:
    at = datetime.fromisoformat(text.strip())
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _points(path: Path | None, config: Config, ids: pl.Series) -> PointTable:
    """The registry's points, and those of the readings it does not know, of kind "unknown"."""
    import polars as pl

    from anomaly.backtest import UNKNOWN_KIND, unknown_points
    from ingest.config import SourceSettings
    from ingest.points import read_registry
    from storage import pointmap

    present = sorted(set(ids.to_list()))
    if path is None:
        return unknown_points(present)
    try:
        given = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as fault:
        raise click.ClickException(f"{path}: {fault}") from None
    if "point_id" not in given.columns:
        raise click.ClickException(f"{path}: no column point_id")
    # What only the wire needs may be left out here.
    stand_in = {"source": pl.lit(SOURCE), "kind": pl.lit(UNKNOWN_KIND), "topic": pl.format("{}", "point_id")}
    given = given.with_columns(pl.col("point_id").cast(pl.String))
    given = given.with_columns(**{k: v for k, v in stand_in.items() if k not in given.columns})
    strangers = [one for one in present if one not in set(given["point_id"].to_list())]
    if strangers:
        click.echo(f"{len(strangers):,} points are not in {path.name}: judged without limits", err=True)
        more = pl.DataFrame({"point_id": strangers}).with_columns(**stand_in)
        given = pl.concat([given.with_columns(pl.all().cast(pl.String)), more], how="diagonal")
    known = {source.name for source in config.source}
    sources = [SourceSettings(name=name) for name in sorted(set(given["source"].drop_nulls()) - known)]
    config = config.model_copy(update={"source": [*config.source, *sources]})
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "points.parquet"
        given.write_parquet(whole)
        registry = read_registry(whole, config)
        if registry.faults_count:
            raise click.ClickException("\n".join([f"{path}:", *registry.report()]))
        return pointmap.merge(Path(folder), registry.table.to_arrow(), 0)


def _alert_rows(events: list[AlertEvent]) -> pl.DataFrame:
    """Alert events as flat rows; times UTC, missing numbers null."""
    import polars as pl

    from anomaly.alerts.words import summaries

    rows = []
    for event in events:
        zh, en = summaries(event)
        subject = event.subject
        rows.append(
            {
                "id": event.id,
                "revision": event.revision,
                "type": event.type.removeprefix("alert."),
                "rule": event.rule,
                "class": event.alert_class,
                "severity": event.severity,
                "severity_now": event.severity_now,
                "point_id": subject.point_id or None,
                "subject": subject.name or subject.gateway_id,
                "kind": subject.kind or None,
                "onset": event.onset,
                "at": event.at,
                "value": event.value,
                "limit": event.limit,
                "peak": event.peak,
                "unit": subject.unit or None,
                "summary_zh": zh,
                "summary_en": en,
            }
        )
    schema = {
        "id": pl.String, "revision": pl.Int32, "type": pl.String, "rule": pl.String, "class": pl.String,
        "severity": pl.Int32, "severity_now": pl.Int32, "point_id": pl.String, "subject": pl.String,
        "kind": pl.String, "onset": pl.Int64, "at": pl.Int64, "value": pl.Float64, "limit": pl.Float64,
        "peak": pl.Float64, "unit": pl.String, "summary_zh": pl.String, "summary_en": pl.String,
    }  # fmt: skip
    stamp = pl.Datetime("us", "UTC")
    table = pl.DataFrame(rows, schema=schema)
    return table.with_columns(
        pl.col("onset", "at").cast(stamp), pl.col("value", "limit", "peak").fill_nan(None)
    )


def _write(table: pl.DataFrame, path: Path, *, lines: bool = False) -> None:
    """Parquet or CSV by the suffix; what has another is CSV, or JSON lines where ``lines``."""
    try:
        if path.suffix == ".parquet":
            table.write_parquet(path)
        elif path.suffix == ".csv" or not lines:
            table.write_csv(path)
        else:
            table.write_ndjson(path)
    except OSError as fault:
        raise click.ClickException(f"{path}: {fault}") from None
