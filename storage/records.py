"""The journal's records: what each type holds and its bytes.

Owns the types and the encoding of their bodies, both ways. Knows nothing of files (storage.journal).
READINGS, QUARANTINE and EVENT are made for speed; the rare rest is JSON, which grows without a version.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from storage.batch import POS_ROW_BITS, RawBatch
from storage.eventstates import STATES as STATES

Buffer = bytes | memoryview


class RecordType(IntEnum):
    """First byte after the record's length and checksum. A number keeps its meaning for ever."""

    READINGS = 1
    QUARANTINE = 2
    EVENT = 3
    GAP = 4
    TICK = 5
    CONTROL = 6


@dataclass(frozen=True, slots=True)
class Refusal:
    """One message, or one reading of a message, that went to quarantine.

    received_at  µs since 1970 UTC
    raw          its bytes, cut at storage.records.RAW_BYTES_MAX
    """

    received_at: int
    source: str
    topic: str
    reason: str
    detail: str
    raw: bytes
    point_id: str | None = None
    client: str | None = None


REPLAYED: Final = "replayed"
"""Reason of a row that is no refusal but the mark of one that was sent through again: ``detail`` is the number of the
refusal, what was stored of it and how many new refusals it brought, with spaces between."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A span in which we could not have heard: our downtime, a lost link, a lost session.

    begin, end  µs since 1970 UTC; end 0 while it lasts
    source      "" for all sources
    """

    kind: str  # downtime | link | session_lost | untracked
    begin: int
    end: int
    source: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """The receive clock, once a second.

    now      µs since 1970 UTC
    drained  no received bytes were waiting to be read or decoded in the second before
    counts   cumulative counters of Wire since its start, for the conservation identity
    """

    now: int
    drained: bool
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Control:
    """A deed of the engine or a person: start, registry and rules by content hash, acknowledge, silence."""

    type: str
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One step in the life of something that happened, beside what was measured: an appeal, an inspection, a finding.

    id           of its source; the same id again is a later step of the same event
    type         what it is: "appeal", "inspection", … (docs/events.md)
    state        where it stands, one of STATES
    at_us        when it came to stand there, µs since 1970 UTC
    category     of what kind, in the city's words: "waterlogging", "online_catering"
    lon, lat     degrees, WGS 84
    point_id     a point of the registry it is about
    attributes   what else the source says, by name; None where it says nothing
    name         of the place or thing, for people
    due_us       when it should be done, µs since 1970 UTC
    received_at  µs since 1970 UTC
    """

    id: str
    source: str
    type: str
    state: str
    at_us: int
    district: str = ""
    category: str = ""
    lon: float | None = None
    lat: float | None = None
    point_id: str = ""
    attributes: dict[str, str | float | None] = field(default_factory=dict)
    name: str = ""
    due_us: int | None = None
    received_at: int = 0


LEFT: Final = "left"
"""Type of a CONTROL record: ``points`` (their ids) said farewell at ``at``, µs; no readings are to be expected."""


RAW_BYTES_MAX = 64 * 1024
"""Kept of one refused message: enough to see what is wrong and to replay what gateways send in practice."""

ROWS_MAX: Final = 1 << POS_ROW_BITS
"""Readings in one record: the row number must fit its share of ``pos``."""

Body = RawBatch | list[Refusal] | list[Event] | Gap | Tick | Control
"""What a record can hold, decoded."""

# n, then four bytes of zero, so that the eight-byte columns behind it stand on eight-byte borders.
_READINGS_HEAD = struct.Struct("<I4x")

# Widest columns first: with n of any size every column is then aligned to its own width.
_READINGS_COLUMNS: Final = (
    ("time", np.dtype("<i8")),
    ("received_at", np.dtype("<i8")),
    ("value", np.dtype("<f8")),
    ("point", np.dtype("<i4")),
    ("device_flag", np.dtype("u1")),
)
_ROW_BYTES: Final = sum(dtype.itemsize for _, dtype in _READINGS_COLUMNS)

_QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("received_at", pa.int64(), nullable=False),
        pa.field("source", pa.utf8(), nullable=False),
        pa.field("topic", pa.utf8(), nullable=False),
        pa.field("reason", pa.utf8(), nullable=False),
        pa.field("detail", pa.utf8(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
        pa.field("point_id", pa.utf8()),
        pa.field("client", pa.utf8()),
    ]
)
_EVENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.utf8(), nullable=False),
        pa.field("source", pa.utf8(), nullable=False),
        pa.field("type", pa.utf8(), nullable=False),
        pa.field("state", pa.utf8(), nullable=False),
        pa.field("at_us", pa.int64(), nullable=False),
        pa.field("district", pa.utf8(), nullable=False),
        pa.field("category", pa.utf8(), nullable=False),
        pa.field("lon", pa.float64()),
        pa.field("lat", pa.float64()),
        pa.field("point_id", pa.utf8(), nullable=False),
        pa.field("attributes", pa.utf8(), nullable=False),
        pa.field("name", pa.utf8(), nullable=False),
        pa.field("due_us", pa.int64()),
        pa.field("received_at", pa.int64(), nullable=False),
    ]
)
"""``attributes`` is a JSON object. A later version may add nullable columns behind these."""
_ROWS_KEY: Final = b"rows"
_STREAM_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How an Arrow IPC stream ends. Its readers do without; here its absence means a cut body."""


class RecordError(ValueError):
    """A body that does not hold what its type says: cut short, corrupt, or not of this version."""


def encode_readings(batch: RawBatch) -> bytes:
    """The body of a READINGS record: 8 bytes of head, then each column's raw little-endian values.

    n is at most ROWS_MAX; all columns must have n rows. NaN values keep their bits. Raises RecordError.
    """
    n = len(batch)
    if n > ROWS_MAX:
        raise RecordError(f"{n} readings in one record; at most {ROWS_MAX}")
    parts: list[Any] = [_READINGS_HEAD.pack(n)]
    for name, dtype in _READINGS_COLUMNS:
        column: npt.NDArray[Any] = getattr(batch, name)
        if column.shape != (n,):
            raise RecordError(f"column {name} has shape {column.shape}; point has {n} rows")
        parts.append(np.ascontiguousarray(column, dtype=dtype))
    return b"".join(parts)


def decode_readings(body: Buffer) -> RawBatch:
    """The readings of a body. Its columns are read-only views: nothing is copied. Raises RecordError."""
    n = rows_of(body)
    expected = _READINGS_HEAD.size + n * _ROW_BYTES
    if len(body) != expected:
        raise RecordError(f"a READINGS body of {n} rows has {expected} bytes; this one has {len(body)}")
    columns: dict[str, npt.NDArray[Any]] = {}
    at = _READINGS_HEAD.size
    for name, dtype in _READINGS_COLUMNS:
        columns[name] = np.frombuffer(body, dtype, n, at)
        at += n * dtype.itemsize
    return RawBatch(**columns)


def rows_of(body: Buffer) -> int:
    """How many readings a READINGS body says it holds. Raises RecordError where it cannot even say that."""
    if len(body) < _READINGS_HEAD.size:
        raise RecordError(
            f"a READINGS body begins with {_READINGS_HEAD.size} bytes; this one has {len(body)}"
        )
    return int(_READINGS_HEAD.unpack_from(body)[0])


def _well_formed(text: str) -> str:
    """``text``, or a spelling of it that UTF-8 can hold: a peer's text may carry half a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def encode_quarantine(refusals: Sequence[Refusal]) -> bytes:
    """The body of a QUARANTINE record: an Arrow IPC stream of one row a refusal, in their order.

    ``raw`` is cut at RAW_BYTES_MAX. Text that UTF-8 cannot hold (lone surrogates) is escaped with
    backslashes.
    """
    columns: list[list[Any]] = [
        [r.received_at for r in refusals],
        [_well_formed(r.source) for r in refusals],
        [_well_formed(r.topic) for r in refusals],
        [_well_formed(r.reason) for r in refusals],
        [_well_formed(r.detail) for r in refusals],
        [r.raw[:RAW_BYTES_MAX] for r in refusals],
        [None if r.point_id is None else _well_formed(r.point_id) for r in refusals],
        [None if r.client is None else _well_formed(r.client) for r in refusals],
    ]
    return _encode_rows(_QUARANTINE_SCHEMA, columns)


def decode_quarantine(body: Buffer) -> list[Refusal]:
    """The refusals of a body, in their order. Raises RecordError."""
    return [Refusal(*row) for row in _decode_rows("QUARANTINE", _QUARANTINE_SCHEMA, body)]


def encode_events(events: Sequence[Event]) -> bytes:
    """The body of an EVENT record: an Arrow IPC stream of one row an event, in their order, as for QUARANTINE.

    Raises RecordError for attributes that are no text, number or None.
    """
    text = ("id", "source", "type", "state", "district", "category", "point_id", "name")
    columns: list[list[Any]] = []
    for field_ in _EVENT_SCHEMA:
        column = [getattr(event, field_.name) for event in events]
        if field_.name in text:
            column = [_well_formed(value) for value in column]
        elif field_.name == "attributes":
            column = [_encode_attributes(value) for value in column]
        columns.append(column)
    return _encode_rows(_EVENT_SCHEMA, columns)


def decode_events(body: Buffer) -> list[Event]:
    """The events of a body, in their order. Raises RecordError."""
    events = []
    at = _EVENT_SCHEMA.get_field_index("attributes")
    for row in _decode_rows("EVENT", _EVENT_SCHEMA, body):
        try:
            attributes = orjson.loads(row[at])
        except orjson.JSONDecodeError as error:
            raise RecordError(f"an EVENT body's attributes are not JSON: {error}") from error
        if not isinstance(attributes, dict):
            raise RecordError("an EVENT body's attributes are not a JSON object")
        known = dict(zip(_EVENT_SCHEMA.names, row, strict=True))
        events.append(Event(**{**known, "attributes": attributes}))
    return events


def _encode_attributes(attributes: Mapping[str, str | float | None]) -> str:
    whole = {
        _well_formed(name): _well_formed(value) if isinstance(value, str) else value
        for name, value in attributes.items()
    }
    return _encode_json("an event's attributes", whole).decode()


def _encode_rows(schema: pa.Schema, columns: Sequence[list[Any]]) -> bytes:
    """An Arrow IPC stream; the number of rows stands in the metadata, so that a cut one is not taken for a shorter."""
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    counted = schema.with_metadata({_ROWS_KEY: str(len(columns[0])).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, counted) as stream:
        stream.write_batch(pa.record_batch(arrays, schema=counted))
    return bytes(sink.getvalue().to_pybytes())


def _decode_rows(what: str, schema: pa.Schema, body: Buffer) -> list[tuple[Any, ...]]:
    """The rows of such a stream, columns in the order of ``schema``. Raises RecordError."""
    if bytes(body[-len(_STREAM_END) :]) != _STREAM_END:
        raise RecordError(f"a {what} body of {len(body)} bytes is cut short: its end mark is missing")
    try:
        table = pa.ipc.open_stream(pa.py_buffer(body)).read_all()
        # Offsets of a corrupt stream may point anywhere: they are checked before anything follows them.
        table.validate(full=True)
        for name in schema.names:
            if table.schema.field(name).type != schema.field(name).type:
                raise RecordError(f"a {what} body's column {name} is {table.schema.field(name).type}")
        expected = int((table.schema.metadata or {}).get(_ROWS_KEY, b"-1"))
        rows = list(zip(*(table.column(name).to_pylist() for name in schema.names), strict=True))
    except RecordError:
        raise
    except (pa.ArrowException, ValueError, KeyError, OSError, MemoryError) as error:
        raise RecordError(f"a {what} body cannot be read: {error}") from error
    if len(rows) != expected:
        raise RecordError(f"a {what} body of {expected} rows; {len(rows)} could be read")
    return rows


def _encode_json(what: str, fields: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields)
    except TypeError as error:
        raise RecordError(f"{what} cannot be written as JSON: {error}") from error


def _decode_json(
    what: str, body: Buffer, types: Mapping[str, type], required: frozenset[str]
) -> dict[str, Any]:
    """The known fields of a JSON body. Unknown ones are of a later version, and left out."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"a {what} body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RecordError(f"a {what} body is not a JSON object")
    missing = sorted(required - fields.keys())
    if missing:
        raise RecordError(f"a {what} body lacks {', '.join(missing)}")
    known = {name: value for name, value in fields.items() if name in types}
    for name, value in known.items():
        # type() and not isinstance(): True is an int to isinstance.
        if type(value) is not types[name]:
            raise RecordError(f"a {what} body's {name}: expected {types[name].__name__}, got {value!r:.40}")
    return known


def encode(body: Body) -> tuple[RecordType, bytes]:
    """Type and bytes of a record that holds ``body``. Raises RecordError where it cannot be written."""
    if isinstance(body, RawBatch):
        return RecordType.READINGS, encode_readings(body)
    if isinstance(body, list):
        if body and isinstance(body[0], Event):
            return RecordType.EVENT, encode_events(body)
        return RecordType.QUARANTINE, encode_quarantine(cast("list[Refusal]", body))
    if isinstance(body, Gap):
        text = {"kind": body.kind, "source": body.source, "detail": body.detail}
        whole = {name: _well_formed(value) for name, value in text.items()}
        return RecordType.GAP, _encode_json("a gap", {"begin": body.begin, "end": body.end, **whole})
    if isinstance(body, Tick):
        return RecordType.TICK, _encode_json("a tick", asdict(body))
    return RecordType.CONTROL, _encode_json("a control", {"type": body.type, "body": body.body})


_GAP_TYPES = {"kind": str, "begin": int, "end": int, "source": str, "detail": str}
_TICK_TYPES = {"now": int, "drained": bool, "counts": dict}
_CONTROL_TYPES = {"type": str, "body": dict}


def decode(record_type: RecordType, body: Buffer) -> Body:
    """What a record holds. Raises RecordError for a body that is cut short, corrupt or of no known type."""
    if record_type == RecordType.READINGS:
        return decode_readings(body)
    if record_type == RecordType.QUARANTINE:
        return decode_quarantine(body)
    if record_type == RecordType.EVENT:
        return decode_events(body)
    if record_type == RecordType.GAP:
        return Gap(**_decode_json("GAP", body, _GAP_TYPES, frozenset({"kind", "begin", "end"})))
    if record_type == RecordType.TICK:
        return Tick(**_decode_json("TICK", body, _TICK_TYPES, frozenset({"now", "drained"})))
    if record_type == RecordType.CONTROL:
        return Control(**_decode_json("CONTROL", body, _CONTROL_TYPES, frozenset({"type"})))
    raise RecordError(f"no body is defined for {record_type.name} records in this version")
