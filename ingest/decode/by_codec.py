"""A message of a source with a codec: its bytes to columns and refusals.

Owns the order: limits, codec, binding. Knows no format and no registry itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from ingest.codecs.base import Codec, Common, Parsed
from ingest.codecs.binding import admit, store, store_common
from ingest.decode.columns import Columns
from ingest.decode.message import Message, Outcome, refusal_of
from ingest.decode.refused import Refused
from ingest.routes import Route, Source
from storage.records import RAW_BYTES_MAX, Refusal

log = logging.getLogger("yuzui.decode")

_blamed: Final[set[tuple[str, str]]] = set()
"""Codecs and exceptions that were told once already."""


def decode_common(route: Route, payload: bytes, into: Columns) -> Common | None:
    """Add a common message's readings, where the codec knows what that is; None, and nothing added, for any other."""
    source = route.source
    common_of = source.common
    if common_of is None or route.refusal or len(payload) > source.settings.message_bytes_max:
        return None
    assert route.keys is not None
    try:
        common = common_of(payload)
    except Exception as ours:
        _blame(source, ours)
        return None
    return common if common is not None and store_common(route.keys, source, common, into) else None


def decode_by_codec(route: Route, message: Message, into: Columns) -> Outcome:
    """Add the message's good readings to ``into``; every other is a Refusal in the outcome.

    Refusals that have no bytes of their own carry the whole message's: ``Outcome.whole``.
    """
    source = route.source
    assert source.codec is not None
    assert route.keys is not None
    whole = message.payload[:RAW_BYTES_MAX]
    try:
        if source.rate is not None and not message.again and not source.rate.admits(message.received_at):
            raise Refused("rate_limited", f"more than {source.settings.rate_max_per_s:g} readings/s")
        parsed = _parsed(source.codec, source, message)
    except Refused as refused:
        return Outcome(whole=whole, refusals=[refusal_of(source, message, refused, refused.raw or whole)])
    stored = store(route.keys, source, parsed, message.received_at, message.retained, into)
    events = admit(route.keys, source, parsed, message.received_at) if parsed.events else []
    if source.rate is not None and not message.again:
        source.rate.took(len(parsed.keys) + len(events) + len(parsed.refusals))
    return Outcome(
        readings=stored.readings,
        untimed=stored.untimed,
        outside=stored.outside,
        retained_ignored=stored.retained_ignored,
        refusals=list(_in_order(source, message, parsed.refusals, whole)) if parsed.refusals else [],
        whole=whole,
        events=events,
        answers=parsed.answers,
        offline=parsed.offline,
        gateways=parsed.gateways,
        online=parsed.online,
        asks=parsed.asks,
    )


def _parsed(codec: Codec, source: Source, message: Message) -> Parsed:
    """What the codec reads. Raises Refused, whatever the codec does: poison stops nothing."""
    if len(message.payload) > source.settings.message_bytes_max:
        raise Refused(
            "oversized", f"{len(message.payload)} bytes, at most {source.settings.message_bytes_max}"
        )
    try:
        return codec.parse(message.topic.decode(errors="replace"), message.payload)
    except Refused:
        raise
    except Exception as ours:
        _blame(source, ours)
        raise Refused("codec_fault", f"{type(ours).__name__}: {ours}") from None


def _blame(source: Source, ours: Exception) -> None:
    """Tell of a codec's mistake, each kind once."""
    codec, name = source.settings.codec, type(ours).__name__
    if (codec, name) not in _blamed:
        _blamed.add((codec, name))
        # An exception may quote the message.
        quoted = None if source.settings.personal else ours
        log.error(
            "codec %s fell over a message of %s with %s: a mistake of ours", codec, source.name, name,
            exc_info=quoted,
        )  # fmt: skip


def _in_order(
    source: Source, message: Message, refused: Iterable[Refused], whole: bytes
) -> Iterable[Refusal]:
    """Refusals of the message's parts; those that lean on the whole message's bytes first."""
    for one in sorted(refused, key=lambda r: bool(r.raw)):
        yield refusal_of(source, message, one, one.raw[:RAW_BYTES_MAX] or whole)
