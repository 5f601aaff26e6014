"""The shape of every Parquet file of the lake: columns, types, encodings, and the words in its metadata.

Owns the Arrow schemas and the way a ReadingBatch becomes rows on disk. Knows no paths and opens no file;
storage/FORMAT.md says the same for people.

Types are those that Delta, DuckDB, Polars and Spark read alike: Delta has no unsigned numbers, so flags
are int8 and the check bits int32.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.batch import ReadingBatch

FORMAT_VERSION: Final = 1
META_FORMAT: Final = b"yuzui.format"
META_RULES: Final = b"yuzui.rules"
META_LATE_ROWS: Final = b"yuzui.late_rows"
META_REPLACES: Final = b"yuzui.replaces"
META_FOLDED_POS: Final = b"yuzui.folded_pos"

TIME: Final = pa.timestamp("us", tz="UTC")
SCORE_STEPS: Final = 32
"""Scores are kept to 1/32: full precision would cost 3.5 bytes a reading and nobody reads the difference."""
SCORE_MIN: Final = 0.5
"""Below half of the alarm line a score says nothing and is NULL."""

READINGS: Final = pa.schema(
    [
        pa.field("point", pa.int32(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("lag_ms", pa.int32()),
        pa.field("value", pa.float64()),
        pa.field("device_flag", pa.int8(), nullable=False),
        pa.field("flag", pa.int8(), nullable=False),
        pa.field("checks", pa.int32(), nullable=False),
        pa.field("score", pa.float32()),
    ]
)
LATE: Final = READINGS.append(pa.field("pos", pa.int64(), nullable=False))
PARTITIONS: Final = pa.schema([pa.field("date", pa.date32()), pa.field("hour", pa.int32())])

REGISTRY: Final = pa.schema(
    [
        pa.field("point_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("unit", pa.string()),
        pa.field("district", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("device_id", pa.string()),
        pa.field("gateway_id", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("lon", pa.float64()),
        pa.field("lat", pa.float64()),
        pa.field("interval_s", pa.float64()),
        pa.field("time_from", pa.string()),
        pa.field("range_min", pa.float64()),
        pa.field("range_max", pa.float64()),
        pa.field("level_blue", pa.float64()),
        pa.field("level_yellow", pa.float64()),
        pa.field("level_orange", pa.float64()),
        pa.field("level_red", pa.float64()),
        pa.field("level_gap", pa.float64()),
        pa.field("upstream", pa.string()),
    ]
)
"""What a registry must bring for each point; ``upstream`` is a point_id, ``time_from`` device or receive."""

POINTS: Final = pa.schema(
    [
        pa.field("point", pa.int32(), nullable=False),
        *REGISTRY,
        pa.field("valid_from", TIME, nullable=False),
        pa.field("valid_to", TIME, nullable=False),
        pa.field("retired", pa.bool_(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
    ]
)

QUARANTINE: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("received_at", TIME, nullable=False),
        pa.field("source", pa.string()),
        pa.field("topic", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
        pa.field("raw", pa.binary()),
        pa.field("point_id", pa.string()),
        pa.field("client", pa.string()),
    ]
)
"""``id`` is journal seq << 24 | row: the same refusal has it after every replay."""

ALERTS: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("revision", pa.int32(), nullable=False),
        pa.field("type", pa.string(), nullable=False),  # firing | updated | resolved
        pa.field("rule", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),  # event | fault
        pa.field("severity", pa.int32(), nullable=False),
        pa.field("point_id", pa.string()),
        pa.field("gateway_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("district", pa.string()),
        pa.field("onset", TIME, nullable=False),
        pa.field("at", TIME, nullable=False),  # event time of this revision
        pa.field("recorded_at", TIME, nullable=False),
        pa.field("value", pa.float64()),
        pa.field("level", pa.float64()),
        pa.field("peak", pa.float64()),
        pa.field("unit", pa.string()),
        pa.field("summary_zh", pa.string()),
        pa.field("summary_en", pa.string()),
        pa.field("replay", pa.bool_(), nullable=False),
        pa.field("drill", pa.bool_(), nullable=False),
        pa.field("severity_now", pa.int32()),  # of the level it stands in, 0 once it is over
        pa.field("pos", pa.int64()),
    ]
)
"""``pos`` is journal seq << 24 | row of what caused the step (row 0 of a TICK), NULL of drills: alerts can be counted
as of one place of the journal."""

_ROLLUP = [
    pa.field("point", pa.int32(), nullable=False),
    pa.field("time", TIME, nullable=False),
    pa.field("count", pa.int32(), nullable=False),
    pa.field("good", pa.int32(), nullable=False),
    pa.field("sum", pa.float64()),
    pa.field("min", pa.float64()),
    pa.field("max", pa.float64()),
    pa.field("first", pa.float64()),
    pa.field("last", pa.float64()),
]
ROLLUP: Final = pa.schema(_ROLLUP)
"""One row for each point and minute (or hour) it has readings in. ``time`` is the begin of the span; ``count`` all
readings, ``good`` those with a value whose flag is 1 or 2; the others are of the good ones, NULL where none is."""

FOLDS: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("hour", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("late_new", pa.int64(), nullable=False),
        pa.field("revised", pa.int64(), nullable=False),
        pa.field("repeats", pa.int64(), nullable=False),
        pa.field("folded_at", TIME, nullable=False),
    ]
)
"""What a compaction made of an hour, by source. ``id`` is the compaction's; it counts once that is committed."""

FORECASTS: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("point_id", pa.string(), nullable=False),
        pa.field("made_at", TIME, nullable=False),
        pa.field("at", TIME, nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("limit", pa.float64()),
        pa.field("eta_s", pa.float64()),
        pa.field("replay", pa.bool_(), nullable=False),
    ]
)
"""``id`` is the journal seq of the TICK that made it << 24 | row. ``value`` is expected at ``at``; ``eta_s`` seconds
from ``made_at`` until ``limit`` is reached, NULL where it is not in sight."""

ALERT_LOG: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("at", TIME, nullable=False),
        pa.field("alert_id", pa.string()),
        pa.field("step", pa.string(), nullable=False),
        pa.field("who", pa.string()),
        pa.field("target", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""Every step in the life of alerts: fired, sent, answered, escalated, silenced, resolved … ``id`` grows."""

EVENTS: Final = pa.schema(
    [
        pa.field("pos", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("received_at", TIME, nullable=False),
        pa.field("due", TIME),
        pa.field("district", pa.string()),
        pa.field("category", pa.string()),
        pa.field("name", pa.string()),
        pa.field("lon", pa.float64()),
        pa.field("lat", pa.float64()),
        pa.field("point_id", pa.string()),
        pa.field("attributes", pa.string()),  # a JSON object of texts and numbers
    ]
)
"""A step in the life of an event. ``pos`` is journal seq << 24 | row: the order of receipt, the same after a replay. A
step is (source, id, state, time); of the same step twice the one received last counts."""

EMPTY: Final = {
    "readings": READINGS,
    "late": LATE,
    "points": POINTS,
    "alerts": ALERTS,
    "quarantine": QUARANTINE,
    "rollup": ROLLUP,
    "folds": FOLDS,
    "forecasts": FORECASTS,
    "alert_log": ALERT_LOG,
    "events": EVENTS,
}
"""One file without rows of each: a list of files for a query is then never empty."""

ROW_GROUP_SEALED: Final = 122_880
"""DuckDB's own vector block: one of its threads takes one row group."""
ROW_GROUP_HOT: Final = 32_768
LARGE_ROWS: Final = 8 * ROW_GROUP_SEALED
"""From here on a hot file has the row groups of a sealed one, which it may become as it is."""
PAGE_ROWS_MAX: Final = ROW_GROUP_SEALED // 6
"""Measured against 4,096: half as many rows more encoded a second, 4 % smaller, single points found as fast. Against
61,440: ten points found a third faster, for a reader skips whole pages."""
_LEVEL: Final = 1
_LEVEL_TIME_LASTING: Final = 4
"""zstd's level for ``time`` in files that stay: clocks that jitter leave it three quarters of all bytes, and level 4
takes an eighth off (levels 2 and 3 nearly nothing) for 10 ns a row. What is written anew within the hour is not
worth that."""
_DICTIONARY: Final = ("value", "score")
"""Neither the flags nor the checks, which are PLAIN: a hash look-up a row is four times dearer than zstd over a column
that hardly changes (75 to 19 instructions a row), for the same bytes."""
_DELTA: Final = ("time", "pos", "point", "lag_ms")
_DICTIONARY_LASTING: Final = ("value", "score", "lag_ms")
"""``lag_ms`` of a city: 0.74 B a row and 142 instructions, as deltas 0.95 and 95."""
_DELTA_LASTING: Final = ("time", "pos")
"""An hour has many rows of each point, one behind the other: zstd makes less of ``point`` than deltas do (0.007 B a row
against 0.009 at 1 Hz) for a third of the work (18 instructions against 58)."""
_HAS_PAGE_ROWS: Final = "max_rows_per_page" in inspect.signature(pq.ParquetWriter.__init__).parameters


def reading_options(schema: pa.Schema, *, lasting: bool = False) -> dict[str, Any]:
    """How readings are encoded, as arguments for ``pyarrow.parquet.ParquetWriter``.

    ``lasting``: the file is not meant to be written anew (a compacted hour); takes more CPU, fewer bytes.
    Real sensors are quantised, so a dictionary halves ``value`` against byte-stream-split. Page checksums
    are on because neither DuckDB nor Polars would otherwise notice a flipped bit.
    """
    dictionary, delta = (_DICTIONARY_LASTING, _DELTA_LASTING) if lasting else (_DICTIONARY, _DELTA)
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": {
            n: _LEVEL_TIME_LASTING if lasting and n == "time" else _LEVEL for n in schema.names
        },
        "use_dictionary": [n for n in dictionary if n in schema.names],
        "column_encoding": {n: "DELTA_BINARY_PACKED" for n in delta if n in schema.names},
        "write_page_checksum": True,
    }
    if _HAS_PAGE_ROWS:
        options["max_rows_per_page"] = PAGE_ROWS_MAX
    return options


def with_metadata(
    schema: pa.Schema, rules_hash: str = "", extra: dict[bytes, bytes] | None = None
) -> pa.Schema:
    """``schema`` whose files will carry the format version, the rules hash and ``extra``."""
    words = {META_FORMAT: str(FORMAT_VERSION).encode(), META_RULES: rules_hash.encode()}
    return schema.with_metadata(words | (extra or {}))


def to_arrow(batch: ReadingBatch, late: bool) -> pa.Table:
    """The rows of ``batch`` in their order as READINGS, or as LATE (with ``pos``).

    NaN becomes NULL. ``lag_ms`` is received_at − time rounded down; beyond int32 (24.8 days) it is NULL,
    and so is ``received_at`` in queries. A score below 0.5 or NaN is NULL, others are rounded to 1/32.
    """
    lag = (batch.received_at - batch.time) // 1000
    limits = np.iinfo(np.int32)
    lag_off = (lag < limits.min) | (lag > limits.max)
    lag_ms = np.clip(lag, limits.min, limits.max).astype(np.int32)
    missing = np.isnan(batch.value)
    columns = [
        pa.array(batch.point, pa.int32()),
        pa.array(batch.time, TIME),
        pa.array(lag_ms, mask=lag_off if lag_off.any() else None),
        pa.array(batch.value, mask=missing if missing.any() else None),
        pa.array(batch.device_flag.astype(np.int8)),
        pa.array(batch.flag.astype(np.int8)),
        pa.array(batch.checks.astype(np.int32)),
        pa.array(
            (np.rint(batch.score * np.float32(SCORE_STEPS)) / np.float32(SCORE_STEPS)).astype(np.float32),
            mask=~(batch.score >= SCORE_MIN),
        ),
    ]
    if late:
        columns.append(pa.array(batch.pos, pa.int64()))
    return pa.Table.from_arrays(columns, schema=LATE if late else READINGS)
