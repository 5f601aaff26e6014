"""The journal's records: what each type holds and its bytes.

Owns the types and the encoding of their bodies, both ways. Knows nothing of files (storage.journal).
READINGS and QUARANTINE are made for speed; the rare rest is JSON, which grows without a version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


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
    """A deed of the engine or of a person: start, registry and rules by content hash, acknowledge, silence."""

    type: str
    body: dict[str, Any] = field(default_factory=dict)


RAW_BYTES_MAX = 64 * 1024
"""Kept of one refused message: enough to see what is wrong and to replay anything a gateway sends in practice."""
