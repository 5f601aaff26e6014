"""Sorted files of one hour become one sorted stream, in pieces of bounded memory, late readings resolved.

Owns the merge and what a late row means to the row it meets. Knows nothing of Delta, of names or of where the
result goes.

Rows are compared by one int64: point << 32 | µs since the hour began, which fit (an hour has 3.6e9 µs). Every file
gives a piece as large as its share of all rows, so the pieces of all files end near the same point; rows below the
least of these ends are complete and go out, a span of bounded size at a time. So memory does not grow with the hour,
nor with a single point in it. Pieces are larger than spans: a row that only waits takes a fraction of one being
sorted, and calling a decoder costs as much as decoding some ten thousand rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.batch import I32, I64
from storage.hot import US_PER_HOUR
from storage.schema import LATE, META_FOLDED_POS, READINGS

Source = tuple[Path, int]
"""A file and its number of rows."""

ROW_BYTES: Final = 420
"""Memory a row takes at most while its span is merged, all copies of it included. Measured, as the next three; the
rows themselves have about 45."""
AHEAD: Final = 4
"""Rows are decoded so many spans ahead: decoded rows may take as much memory as the span that is merged."""
FILE_BYTES: Final = 300_000
"""Memory of a file while it is open, whatever it holds: the state of a decoder for each column."""
WRITER_BYTES: Final = 60_000_000
"""Memory of what is written, whatever is merged: a row group being encoded, rollups, buffers."""
PIECE_ROWS_MIN: Final = 2_048
"""Smaller pieces cost more calls than they save bytes."""
READ_BUFFER_BYTES: Final = 1 << 14
"""Of each column of each open file; without it whole column chunks are held."""
_MARK_ROWS: Final = 128
"""Where to end a span is found from one key in so many."""
_END: Final = np.iinfo(np.int64).max


class InputDamaged(RuntimeError):  # noqa: N818 - says what happened
    """A file to be merged cannot be read as it was written; names it."""


@dataclass(frozen=True, slots=True)
class _Taken:
    rows: list[pa.RecordBatch]
    key: I64

    def points(self) -> list[I32]:
        """The points of all rows, in arrays as they come."""
        return [batch["point"].to_numpy() for batch in self.rows]


class SortedFile:
    """One file of the hour, read once from front to back by ascending key.

    piece_rows  decoded at a time
    schema      of the rows given out; columns that an older file lacks are NULL
    Raises InputDamaged for a file that is torn, whose pages fail their checksum, or that is not sorted.
    """

    def __init__(self, path: Path, hour: int, piece_rows: int, schema: pa.Schema) -> None:
        self.piece_rows = piece_rows
        self._path = path
        self._schema = schema
        self._begin_us = hour * US_PER_HOUR
        self.key: I64 = np.empty(0, np.int64)
        self._held: list[pa.RecordBatch] = []
        try:
            self._file = pq.ParquetFile(
                path, page_checksum_verification=True, pre_buffer=False, buffer_size=READ_BUFFER_BYTES
            )
        except (pa.ArrowException, OSError) as error:
            raise InputDamaged(f"{path}: {error}") from error
        self.metadata: dict[bytes, bytes] = self._file.metadata.metadata or {}
        self.compacted = META_FOLDED_POS in self.metadata
        self._left: int = self._file.metadata.num_rows
        self._batches = self._file.iter_batches(piece_rows, use_threads=False)

    def load(self) -> None:
        """Decode one piece more, behind what is still held."""
        try:
            piece = _as(self._schema, next(self._batches))
        except StopIteration:
            raise InputDamaged(f"{self._path}: {self._left} rows are missing") from None
        except (pa.ArrowException, OSError) as error:
            raise InputDamaged(f"{self._path}: {error}") from error
        self._left -= piece.num_rows
        if self.whole:
            self.close()
        key = keys_of(piece, self._begin_us)
        last = self.key[-1:] if len(self.key) else key[:1]
        if len(key) and (key[0] < last[0] or bool(np.any(key[1:] < key[:-1])) or key[0] < 0):
            raise InputDamaged(f"{self._path}: not sorted by point and time")
        self.key = np.concatenate([self.key, key]) if len(self.key) else key
        self._held.append(piece)

    @property
    def low(self) -> bool:
        """Little is held, and more is there."""
        return not self.whole and len(self.key) < self.piece_rows // AHEAD

    @property
    def whole(self) -> bool:
        """Nothing is left to be loaded."""
        return not self._left

    @property
    def end(self) -> int:
        """No row still to come has a smaller key."""
        return _END if self.whole else int(self.key[-1]) if len(self.key) else -1

    def take_below(self, key: int) -> _Taken | None:
        """The held rows below ``key``, removed from what is held; None for none."""
        count = len(self.key) if key == _END else int(np.searchsorted(self.key, key))
        if count == 0:
            return None
        taken = _Taken([], self.key[:count])
        self.key = self.key[count:]
        while count:
            batch = self._held.pop(0)
            taken.rows.append(batch.slice(0, count))
            if batch.num_rows > count:
                self._held.insert(0, batch.slice(count))
            count -= taken.rows[-1].num_rows
        return taken

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def keys_of(rows: pa.RecordBatch | pa.Table, begin_us: int) -> I64:
    """int64 [rows]: ascending by point, then time, for rows of the hour that begins at ``begin_us``."""
    keys: I64 = rows["point"].to_numpy().astype(np.int64)
    keys <<= 32
    time = rows["time"]
    # A view costs nothing, a cast starts a kernel.
    keys += (time.view(pa.int64()) if isinstance(time, pa.Array) else time.cast(pa.int64())).to_numpy()
    keys -= begin_us
    return keys


def _as(schema: pa.Schema, piece: pa.RecordBatch) -> pa.RecordBatch:
    if piece.schema.equals(schema):
        return piece
    have = piece.schema.names
    columns = [
        piece[field.name].cast(field.type) if field.name in have else pa.nulls(piece.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def open_sorted(main: Sequence[Source], late: Sequence[Source], hour: int, memory_bytes: int) -> Opened:
    """Open the files, each with a piece in proportion to its rows. Raises InputDamaged."""
    counts = [rows for _, rows in (*main, *late)]
    # Small files are read at once and closed.
    stay_open = sum(rows > PIECE_ROWS_MIN for rows in counts)
    budget = max(memory_bytes - WRITER_BYTES - FILE_BYTES * stay_open, memory_bytes // 4) // ROW_BYTES
    total = max(sum(counts), 1)
    # Half of the memory for the span that is merged, half for what waits.
    span = max(budget // 2, PIECE_ROWS_MIN)
    opened = Opened([], [], span)
    try:
        for sources, files, schema in ((main, opened.main, READINGS), (late, opened.late, LATE)):
            for path, rows in sources:
                piece = max(span * AHEAD * rows // total, PIECE_ROWS_MIN)
                files.append(SortedFile(path, hour, piece, schema))
    except InputDamaged:
        opened.close()
        raise
    return opened


@dataclass(slots=True)
class Opened:
    """The files of one merge; at most ``span_rows`` rows are merged at once."""

    main: list[SortedFile]
    late: list[SortedFile]
    span_rows: int

    def close(self) -> None:
        """Close them all."""
        for file in (*self.main, *self.late):
            file.close()

    def words(self, name: bytes) -> list[bytes]:
        """What the metadata of the main and late files say under ``name``, each saying once."""
        return sorted({f.metadata[name] for f in (*self.main, *self.late) if name in f.metadata})


@dataclass(slots=True)
class Piece:
    """All rows of one span of keys.

    main, late  sorted by key, late ones further by ``pos``
    compacted   points of those main rows that come from compacted files
    """

    main: pa.Table
    late: pa.Table
    compacted: I32


def pieces(opened: Opened) -> Iterator[Piece]:
    """One span of keys after the other, ascending; all rows of a key are in one.

    Raises InputDamaged, and ValueError for a key that stands in main twice: whoever wrote that must be found.
    """
    live = [f for f in (*opened.main, *opened.late) if not f.whole]
    while live:
        for file in live:
            # A rest of a few rows would end the span soon after it began.
            if file.low:
                file.load()
        end = min(f.end for f in live)
        below = _cut(live, end, opened.span_rows)
        taken = {id(f): rows for f in live if (rows := f.take_below(below)) is not None}
        if taken:
            compacted = [
                point
                for f in opened.main
                if f.compacted and id(f) in taken
                for point in taken[id(f)].points()
            ]
            yield Piece(
                _sorted([taken[id(f)] for f in opened.main if id(f) in taken], READINGS),
                _sorted([taken[id(f)] for f in opened.late if id(f) in taken], LATE),
                np.concatenate(compacted) if compacted else np.empty(0, np.int32),
            )
        else:
            # The piece of some file is a single key, of which more rows may follow.
            for file in live:
                if file.end == end:
                    file.load()
        live = [f for f in live if not f.whole or len(f.key)]


def _cut(live: list[SortedFile], end: int, rows: int) -> int:
    """The key below which at most ``rows`` held rows lie, or ``end`` if that comes first."""
    marks = np.concatenate([file.key[::_MARK_ROWS] for file in live])
    marks = marks[marks < end]
    nth = max(rows // _MARK_ROWS, 1)
    if len(marks) <= nth:
        return end
    marks.partition(nth)
    # Rows of a single key are never cut, however many they are.
    return int(marks[nth]) if marks[nth] > marks[:nth].min() else end


def _sorted(parts: list[_Taken], schema: pa.Schema) -> pa.Table:
    if not parts:
        return schema.empty_table()
    batches = [batch for part in parts for batch in part.rows]
    late = schema is LATE
    if len(parts) == 1 and not late:
        return pa.Table.from_batches(batches)
    rows = pa.concat_batches(batches)
    key = np.concatenate([part.key for part in parts])
    order = np.lexsort((rows["pos"].to_numpy(), key)) if late else _order(rows["point"].to_numpy(), key)
    taken = pc.take(rows, pa.array(order), boundscheck=False)
    return pa.Table.from_batches([taken])


def _order(point: I32, key: I64) -> npt.NDArray[np.intp]:
    """Positions that sort ``key``, of which no two may be equal; ``point`` is its upper half."""
    least = int(point.min())
    if int(point.max()) - least < 1 << 16:
        # One file after the other a point's time grows, nearly always: then a counting sort by point does.
        order = np.argsort((point - least).astype(np.uint16), kind="stable")
        ordered = key[order]
        if bool(np.all(ordered[1:] > ordered[:-1])):
            return order
    # numpy's stable sort merges the runs it finds, and each file is one.
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    if bool(np.any(ordered[1:] == ordered[:-1])):
        raise ValueError("the same point and time stand in main twice")
    return order


def _hour_begin(table: pa.Table) -> int:
    first: int = table["time"].cast(pa.int64())[0].as_py()
    return first - first % US_PER_HOUR


@dataclass(slots=True)
class Resolved:
    """The rows that count, sorted by key, as READINGS; and the points of late rows by what they were.

    late_new  a key nobody had sent before
    revised   a key known with another value or device flag; the last received stands
    repeats   the same again
    """

    rows: pa.Table
    late_new: I32
    revised: I32
    repeats: I32


def resolve(main: pa.Table, late: pa.Table, folded_pos: int) -> Resolved:
    """Fold late rows into main rows of the same span, both as ``pieces`` gives them.

    folded_pos  late rows at or below it are in main already: a crash had kept their file. -1 for none
    Values are compared by their bits, NULL equal to NULL.
    """
    nobody = np.empty(0, np.int32)
    if late.num_rows == 0:
        return Resolved(main, nobody, nobody, nobody)
    late = _once(late, folded_pos)
    if late.num_rows == 0:
        return Resolved(main, nobody, nobody, nobody)
    begin = _hour_begin(late)
    key, key_main = keys_of(late, begin), keys_of(main, begin)
    first = np.append(True, key[1:] != key[:-1])
    at = np.searchsorted(key_main, key)
    known = np.zeros(len(key), np.bool_)
    inside = at < len(key_main)
    known[inside] = key_main[at[inside]] == key[inside]

    said, said_main = _said(late), _said(main)
    same = np.append(False, np.all(said[1:] == said[:-1], axis=1))
    meets_main = first & known
    same[meets_main] = np.all(said[meets_main] == said_main[at[meets_main]], axis=1)
    new = first & ~known

    point = late["point"].to_numpy()
    keep = np.ones(main.num_rows, np.bool_)
    keep[at[meets_main]] = False
    last = np.flatnonzero(np.append(first[1:], True))
    rows = pa.concat_tables([main.filter(pa.array(keep)), late.take(pa.array(last)).select(READINGS.names)])
    order = np.argsort(np.concatenate([key_main[keep], key[last]]), kind="stable")
    return Resolved(
        rows.combine_chunks().take(pa.array(order)), point[new], point[~new & ~same], point[~new & same]
    )


def _once(late: pa.Table, folded_pos: int) -> pa.Table:
    """Without rows folded before and without second copies (a power cut has them sealed twice; same ``pos``)."""
    pos = late["pos"].to_numpy()
    keep = (pos > folded_pos) & np.append(True, pos[1:] != pos[:-1])
    return late if bool(keep.all()) else late.filter(pa.array(keep))


def _said(table: pa.Table) -> I64:
    """int64 [rows, 2]: value bits and device flag, what a sender says of a reading."""
    value = table["value"].to_numpy().astype(np.float64, copy=False).view(np.int64)
    return np.stack([value, table["device_flag"].to_numpy().astype(np.int64)], axis=1)
