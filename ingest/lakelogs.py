"""Refusals, alert events, forecasts and events beside readings as rows of the lake's small logs.

Owns the mapping of columns; the schemas are storage.schema's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from anomaly.rules.base import Forecast
from storage.records import Event, Refusal
from storage.schema import ALERT_LOG, ALERTS, EVENTS, FORECASTS, QUARANTINE


def quarantine_table(refusals: Sequence[tuple[int, Refusal]]) -> pa.Table:
    """(id, refusal) pairs as QUARANTINE rows; id is journal seq << 24 | row."""
    return pa.table(
        {
            "id": pa.array([number for number, _ in refusals], pa.int64()),
            "received_at": pa.array([r.received_at for _, r in refusals], pa.timestamp("us", tz="UTC")),
            "source": [r.source for _, r in refusals],
            "topic": [r.topic for _, r in refusals],
            "reason": [r.reason for _, r in refusals],
            "detail": [r.detail for _, r in refusals],
            "raw": pa.array([r.raw for _, r in refusals], pa.binary()),
            "point_id": pa.array([r.point_id for _, r in refusals], pa.string()),
            "client": pa.array([r.client for _, r in refusals], pa.string()),
        },
        schema=QUARANTINE,
    )


def alerts_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the outbox's alert_event as ALERTS rows; times are µs since 1970 UTC in both."""
    columns = {field.name: pa.array([row[field.name] for row in rows], field.type) for field in ALERTS}
    return pa.table(columns, schema=ALERTS)


def alert_log_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the outbox's alert_log as ALERT_LOG rows; times are µs since 1970 UTC in both."""
    columns = {field.name: pa.array([row[field.name] for row in rows], field.type) for field in ALERT_LOG}
    return pa.table(columns, schema=ALERT_LOG)


def forecasts_table(
    forecasts: Sequence[tuple[int, Forecast]], point_id: Sequence[str], replay: bool
) -> pa.Table:
    """(id, forecast) pairs as FORECASTS rows; id is journal seq << 24 | row; NaN becomes NULL.

    ``point_id`` by dense number; ``replay`` where the engine's clock is that of recorded events.
    """
    made = [f for _, f in forecasts]
    columns = {
        "id": [number for number, _ in forecasts],
        "point_id": [point_id[f.point] for f in made],
        "made_at": [f.made_at for f in made],
        "at": [f.at for f in made],
        "value": [f.value for f in made],
        "method": [f.method for f in made],
        "limit": [f.limit for f in made],
        "eta_s": [f.eta_s for f in made],
        "replay": [replay] * len(made),
    }
    return pa.table(
        {field.name: pa.array(columns[field.name], field.type, from_pandas=True) for field in FORECASTS},
        schema=FORECASTS,
    )


def events_table(steps: Sequence[tuple[int, Event]]) -> pa.Table:
    """(pos, event) pairs as EVENTS rows; pos is journal seq << 24 | row; text that says nothing becomes NULL."""
    events = [event for _, event in steps]
    columns = {
        "pos": [pos for pos, _ in steps],
        "time": [e.at_us for e in events],
        "due": [e.due_us for e in events],
        "attributes": [orjson.dumps(e.attributes).decode() for e in events],
    }
    for name in ("id", "source", "type", "state", "received_at", "lon", "lat"):
        columns[name] = [getattr(e, name) for e in events]
    for name in ("district", "category", "name", "point_id"):
        columns[name] = [getattr(e, name) or None for e in events]
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in EVENTS}, schema=EVENTS)
