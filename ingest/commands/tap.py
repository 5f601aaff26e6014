"""`yuzui tap`: what arrives, as it arrives. Reads the journal; needs no port and slows nothing."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import data_dir, plain
from ingest.decode.reasons import REASONS

if TYPE_CHECKING:
    from storage.journal_reader import JournalReader
    from storage.segment import Record

LOOK_S = 0.1
RAW_CHARS_SHOWN = 120


@click.command()
@config_option
@click.option(
    "--quarantine", is_flag=True, help="Refusals with their reason and what to do, instead of readings."
)
@click.option(
    "--point", "pattern", default="*", show_default=True, help="Only point ids (or topics) like this."
)
@click.option("--count", type=click.IntRange(0), default=0, help="End after this many lines; 0 goes on.")
@click.option("--from-start", is_flag=True, help="Begin at the journal's first record instead of now.")
@json_option
def command(
    config_path: str, quarantine: bool, pattern: str, count: int, from_start: bool, as_json: bool
) -> None:
    """Show readings as they reach the journal, or with --quarantine what was refused and why."""
    root = data_dir(config_path)
    if not (root / "journal").is_dir():
        raise click.ClickException(f"no journal in {root}: is the engine running on this data folder?")
    shown = 0
    for line in _refusals(root, from_start) if quarantine else _readings(root, from_start):
        if not fnmatch.fnmatch(str(line["point_id"] or line.get("topic", "")), pattern):
            continue
        click.echo(orjson.dumps(line).decode() if as_json else _text(line))
        shown += 1
        if count and shown >= count:
            return


def _text(line: dict[str, object]) -> str:
    if "reason" in line:
        reason = str(line["reason"])
        advice = REASONS[reason].advice if reason in REASONS else ""
        raw = str(line["raw"])[:RAW_CHARS_SHOWN]
        return (
            f"{line['received_at']}  {reason:18} {plain(line['topic'])}  {plain(line['detail'])}\n"
            f"    {plain(raw)}\n    {advice}"
        )
    return f"{line['time']}  {line['point_id']:32} {line['value']} {line['unit']}"


def _records(root: Path, from_start: bool) -> Iterator[list[Record]]:
    from storage.journal_reader import JournalReader
    from storage.records import RecordType
    from storage.segment import list_segments

    folder = root / "journal"
    segments = list_segments(folder)
    if not segments:
        raise click.ClickException(f"no journal in {root}: is the engine running on this data folder?")
    begin = segments[0] if from_start else segments[-1]
    reader = JournalReader(folder, begin[0])
    if not from_start:
        while _read(reader):
            pass  # to the end of the newest segment: what arrives from now on is shown
    while True:
        records = _read(reader)
        yield [r for r in records if r.type in (RecordType.READINGS, RecordType.QUARANTINE)]
        if not records:
            time.sleep(LOOK_S)


def _read(reader: JournalReader) -> list[Record]:
    """The next records; over a hole, once it is told, for a slow reader may meet the engine's cut."""
    from storage.journal_reader import JournalCorrupt, JournalCut

    while True:
        try:
            return reader.read()
        except (JournalCut, JournalCorrupt) as hole:
            click.echo(f"going on behind a hole: {hole}", err=True)
            reader.seek(hole.next_seq)


def _at(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds")


def _readings(root: Path, from_start: bool) -> Iterator[dict[str, object]]:
    from storage.records import RecordType, decode_readings

    names = _names(root)
    for records in _records(root, from_start):
        for record in records:
            if record.type is not RecordType.READINGS:
                continue
            batch = decode_readings(record.body)
            if len(batch) and int(batch.point.max()) >= len(names):
                names = _names(root)  # points that a reload brought since
            for point, at, value in zip(
                batch.point.tolist(), batch.time.tolist(), batch.value.tolist(), strict=True
            ):
                point_id, unit = names.get(point, (str(point), ""))
                yield {"time": _at(at), "point_id": point_id, "value": value, "unit": unit}


def _names(root: Path) -> dict[int, tuple[str, str]]:
    """Id and unit by a point's number."""
    from storage import pointmap

    table = pointmap.load(root)
    if table is None:
        raise click.ClickException(f"no points in {root}")
    columns = (table[c].to_pylist() for c in ("point", "point_id", "unit"))
    return {number: (point_id, unit or "") for number, point_id, unit in zip(*columns, strict=True)}


def _refusals(root: Path, from_start: bool) -> Iterator[dict[str, object]]:
    from storage.records import RecordType, decode_quarantine

    for records in _records(root, from_start):
        for record in records:
            if record.type is not RecordType.QUARANTINE:
                continue
            for refusal in decode_quarantine(record.body):
                yield {
                    "received_at": _at(refusal.received_at), "reason": refusal.reason, "source": refusal.source,
                    "topic": refusal.topic, "point_id": refusal.point_id, "client": refusal.client,
                    "detail": refusal.detail, "raw": refusal.raw.decode(errors="backslashreplace"),
                }  # fmt: skip
