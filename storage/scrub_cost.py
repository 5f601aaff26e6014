"""What a damaged file costs: which hours and rows, where they stand once more, what to do.

Owns the words about consequences, and what must be known of the rest of the folder to say them. Changes nothing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from storage import snapshot
from storage.deltastate import read_log
from storage.hot import list_hot
from storage.scrub_parquet import BadRows
from storage.segment import list_segments

_RANGE = re.compile(r"(\d{20})-(\d{20})-.*\.parquet")
_PARTITION = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Words = tuple[str, str, str]
"""What is affected, where it stands once more ("" for nowhere), what to do."""

RESTART: Final = "restart the engine"
REPAIR: Final = "stop the engine and run: yuzui scrub --repair"
NOTHING: Final = "nothing"


class Cost:
    """What a data folder holds, looked up once when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def watermark(self) -> int:
        """Journal records up to this are sealed; -1 for none."""
        return read_log(self.root / "lake" / "readings").txns.get("yuzui", -1)

    @cached_property
    def journal_first(self) -> int | None:
        """The first record the journal still holds; None where there is no journal."""
        segments = list_segments(self.root / "journal")
        return segments[0][0] if segments else None

    @cached_property
    def snapshots(self) -> list[int]:
        """Their journal positions, oldest first."""
        return [seq for seq, _ in snapshot.list_snapshots(self.root / "snapshot")]

    def of_records(self, first: int, last: int) -> Words:
        """Of damage to journal records first … last; none where last < first."""
        if last < first:
            return (
                NOTHING,
                "",
                "nothing to do: the engine's next start, or the cut of this segment, removes it",
            )
        what = f"journal records {first} to {last}"
        if self.snapshots and last <= min(self.watermark, self.snapshots[0]):
            return what, "all their rows are sealed in the lake", "nothing to do: the journal is cut soon"
        if last <= max(self.watermark, *(f.last for f in list_hot(self.root, False)), -1):
            source = "their rows stand in hot or sealed files"
            return what, source, "let the engine run until it has sealed and saved a snapshot"
        return f"{what}, not in the lake yet", "", "readings in them are lost; publishers may send them again"

    def covers(self, first: int, last: int, *, late: bool) -> bool:
        """Whether hot files in their grace, or not sealed yet, hold all records first … last."""
        spans = [(f.first, f.last) for f in list_hot(self.root, late) if f.last >= first and f.first <= last]
        return bool(spans) and spans[0][0] <= first and spans[-1][1] >= last

    def in_journal(self, first: int) -> bool:
        """Whether the journal reaches back to ``first``."""
        return self.journal_first is not None and self.journal_first <= first


def cost_of(cost: Cost, path: Path, bad: tuple[BadRows, ...]) -> Words:
    """(affected, source, advice) of a damaged file."""
    parts = path.relative_to(cost.root).parts
    room = parts[1] if parts[0] == "lake" and len(parts) > 1 else parts[0]
    if "_delta_log" in parts:
        advice = f"{RESTART}: it is set aside and the log made whole from the files it speaks of"
        return f"the table {room}: readers refuse it", "the names and contents of the table's files", advice
    if room == "hot":
        return _of_hot(cost, path, bad)
    if room in ("readings", "late"):
        return _of_sealed(cost, path, bad)
    return _PLAIN.get(room, (f"queries of {room}", "", "restore it from a backup"))


_PLAIN: Final[dict[str, Words]] = {
    "snapshot": (
        "a quick restart",
        "the other snapshot and the journal",
        f"{RESTART}, or wait for the next one",
    ),
    "journal": (NOTHING, "", "nothing to do: this room holds no record yet"),
    "lake.sql": ("queries", "the engine writes it at each start", RESTART),
    "empty": ("queries", "the engine writes it at each start", RESTART),
    "latest": ("the view latest", "the sealed tables", f"delete it and {RESTART}"),
    "points.parquet": ("which number is which point", "lake/points.backup.parquet", RESTART),
    "points.backup.parquet": ("the second copy of the map of points", "lake/points.parquet", RESTART),
    "hashes": ("some files have no hash now", "page checksums", "nothing to do: they were hashed anew"),
    "rollup_1m": ("rollups of its hours", "the readings of those hours", REPAIR),
    "rollup_1h": ("rollups of its day", "the readings of that day", REPAIR),
    "alerts": ("alerts of the lake", "the outbox, for 30 days", RESTART),
    "quarantine": ("refused messages", "the journal, if it still reaches back", RESTART),
    "audit.jsonl": ("who did what, from there on", "", "restore it from a backup"),
    "outbox.db": ("alerts not delivered yet, and their state", "lake/alerts has what was exported", RESTART),
}


def rows_in_words(bad: tuple[BadRows, ...]) -> str:
    """Which rows, points, times and columns; "" where nothing is known."""
    said = []
    for one in bad:
        if one.row_group < 0:
            said.append("all its rows")
            continue
        text = f"row group {one.row_group}: {one.rows} rows"
        if one.points:
            text += f", points {one.points[0]} to {one.points[1]}"
        if one.times:
            text += f", {one.times[0].isoformat()} to {one.times[1].isoformat()}"
        if one.columns:
            text += f", in {', '.join(one.columns)}"
        said.append(text)
    return "; ".join(said)


def _hour_word(hour: int) -> str:
    return (_EPOCH + timedelta(hours=hour)).strftime("%Y-%m-%d %H:00")


def _of_hot(cost: Cost, path: Path, bad: tuple[BadRows, ...]) -> Words:
    late = path.parent.name == "late"
    file = next((f for f in list_hot(cost.root, late) if f.path == path), None)
    if file is None:
        return "which hot files a query looks at", "the names in the folders", RESTART
    hours = f"hours {_hour_word(file.hour_min)} to {_hour_word(file.hour_max)} UTC"
    what = f"journal records {file.first} to {file.last}, {hours}. {rows_in_words(bad)}".rstrip(". ")
    if file.last <= cost.watermark:
        return what, "all its rows are sealed", "nothing to do: it goes at the end of the grace"
    if cost.in_journal(file.first):
        return what, "the journal still holds them", f"{RESTART}: its rows are derived again"
    return what, "", f"{RESTART}: it is set aside, its rows are lost"


def _of_sealed(cost: Cost, path: Path, bad: tuple[BadRows, ...]) -> Words:
    late = path.relative_to(cost.root).parts[1] == "late"
    partition = _PARTITION.search(path.as_posix())
    hour = f"{partition[1]} {partition[2]}:00 UTC" if partition else "an unknown hour"
    what = f"the hour {hour}. {rows_in_words(bad)}".rstrip(". ")
    name = _RANGE.fullmatch(path.name)
    if name and cost.covers(int(name[1]), int(name[2]), late=late):
        return what, "hot files in their grace hold the same rows", REPAIR
    source = "its whole row groups; rollups still have the minutes" if bad else "all its pages"
    return what, source, f"{REPAIR}, or restore the file from a backup"
