"""One PUBLISH before and after decoding: what the decoders are given, and what became of it.

Owns these shapes. Knows no format.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ingest.codecs.base import Ask
from ingest.decode.refused import Refused
from ingest.routes import Source
from storage.records import RAW_BYTES_MAX, Event, Refusal


@dataclass(slots=True)
class Message:
    """What the decoder knows of one PUBLISH.

    retained   a broker kept it and sends it because we subscribed
    oversized  too large to take in: ``payload`` is only its beginning
    again      it was in quarantine and is sent through once more
    """

    topic: bytes
    payload: bytes
    client: str | None
    received_at: int
    retained: bool = False
    oversized: bool = False
    again: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of one message: rows added, and refusals (readings, or 1 for an unreadable message).

    outside  rows added though outside the time window, because our own clock is suspect
    whole    the bytes that refusals without bytes of their own carry: kept once for all of them
    events, answers, offline, gateways, online, asks  as in ingest.codecs.base.Parsed
    """

    readings: int = 0
    untimed: int = 0
    outside: int = 0
    retained_ignored: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    whole: bytes | None = None
    events: list[Event] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    offline: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    online: list[str] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)


def refusal_of(source: Source, message: Message, refused: Refused, raw: bytes) -> Refusal:
    """What quarantine keeps of a message, or of the part ``raw`` of it."""
    return Refusal(
        received_at=message.received_at,
        source=source.name,
        topic=message.topic.decode(errors="replace"),
        reason=refused.reason,
        detail=refused.detail,
        raw=raw[:RAW_BYTES_MAX],
        point_id=refused.point_id,
        client=message.client,
    )
