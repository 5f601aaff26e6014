"""JSON payloads to readings or refusals: an object, an array of objects, or a bare number.

Owns what a payload means under its route. A refusal never stops the good readings of its message.
Knows nothing of sockets, files or acknowledgements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from ingest.codecs.json_mapping import json_body
from ingest.decode.by_codec import decode_by_codec
from ingest.decode.columns import Columns
from ingest.decode.message import Message, Outcome, refusal_of
from ingest.decode.refused import DETAIL_CHARS_MAX, Refused
from ingest.decode.times import BadTime, to_us
from ingest.routes import Route, Source, at_path
from storage.flags import DEVICE_FLAGS, DEVICE_SILENT, MISSING, NOT_EVALUATED
from storage.points import TIME_FROM_RECEIVE, PointTable

NAN = float("nan")


class RetainedError(Exception):
    """A retained message without a time of its own: the past, not a reading."""


class JsonReadings:
    """The general decoder: every form a source may declare, one message at a time.

    A source with a codec is ingest.decode.by_codec's; the rest of this is the plain JSON form.
    The common message (one flat object on a point's own topic) is taken by ``fast`` without it.
    """

    def __init__(self, points: PointTable, number_of: Mapping[str, int]) -> None:
        self._points = points
        self._number_of = number_of

    def decode(self, route: Route, message: Message, into: Columns) -> Outcome:
        """Add the message's good readings to ``into``; every other is a Refusal in the outcome."""
        if route.refusal:
            return Outcome(
                refusals=[refusal_of(route.source, message, Refused(route.refusal), message.payload)]
            )
        if route.source.codec is not None and not message.oversized:
            return decode_by_codec(route, message, into)
        try:
            if message.oversized:
                raise Refused("oversized", "only its beginning is kept")
            rate = route.source.rate
            if rate is not None and not message.again and not rate.admits(message.received_at):
                raise Refused(
                    "rate_limited", f"more than {route.source.settings.rate_max_per_s:g} readings/s"
                )
            body = self._parse(route.source, message.payload)
            elements = list(self._elements(route.source, body))
        except Refused as refused:
            return Outcome(refusals=[refusal_of(route.source, message, refused, message.payload)])
        outcome = Outcome()
        whole = message.payload if len(elements) == 1 or route.source.readings_path else None
        outcome.whole = whole
        if route.source.rate is not None and not message.again:
            route.source.rate.took(len(elements))
        for element in elements:
            try:
                outcome.untimed += self._reading(route, element, message, into, outcome)
                outcome.readings += 1
            except RetainedError:
                outcome.retained_ignored += 1
            except Refused as refused:
                raw = _raw(element, message) if whole is None else whole
                outcome.refusals.append(refusal_of(route.source, message, refused, raw))
        return outcome

    @staticmethod
    def _parse(source: Source, payload: bytes) -> object:
        if len(payload) > source.settings.message_bytes_max:
            raise Refused("oversized", f"{len(payload)} bytes, at most {source.settings.message_bytes_max}")
        return json_body(payload, source.settings.depth_max)

    @staticmethod
    def _elements(source: Source, body: object) -> Iterator[object]:
        if source.readings_path and isinstance(body, dict):
            found, body = at_path(body, source.readings_path)
            if not found:
                raise Refused("wrong_shape", f'no "{source.settings.readings_field}" in the object')
        if isinstance(body, list):
            if not body:
                raise Refused("wrong_shape", "an empty array holds no reading")
            if len(body) > source.settings.readings_per_message_max:
                raise Refused(
                    "too_many_readings", f"{len(body)}, at most {source.settings.readings_per_message_max}"
                )
            return iter(body)
        return iter((body,))

    def _reading(
        self, route: Route, element: object, message: Message, into: Columns, outcome: Outcome
    ) -> int:
        """Add one reading; returns 1 if it was timed on receipt."""
        source = route.source
        if isinstance(element, dict):
            point = self._identify(route, element)
            time_us = self._time(source, element, point, message)
            value, flag = self._value(source, element, self._points.point_id[point])
            untimed = time_us is None
            if time_us is None:
                time_us = into.time_on_receipt(point, message.received_at)
            elif source.lenient and not source.oldest_us <= time_us <= source.newest_us:
                flag = flag or NOT_EVALUATED
                outcome.outside += 1
            into.add(point, time_us, value, flag)
            return int(untimed)
        if type(element) in (int, float) and route.point >= 0 and source.settings.bare_numbers:
            if not route.timed_on_receipt:
                raise Refused(
                    "no_time", "a bare number needs time_from = receive", self._points.point_id[route.point]
                )
            if message.retained:
                raise RetainedError
            value, flag = _missing_code(source, float(element))  # type: ignore[arg-type]
            into.add(route.point, into.time_on_receipt(route.point, message.received_at), value, flag)
            return 1
        kind = "a bare number on a gateway topic" if type(element) in (int, float) else type(element).__name__
        raise Refused("wrong_shape", f"expected an object, got {kind}")

    def _identify(self, route: Route, element: Mapping[str, object]) -> int:
        found, named = at_path(element, route.source.id_path)
        if not found:
            if route.point >= 0:
                return route.point
            raise Refused("no_id", f'no "{route.source.settings.id_field}"')
        if not isinstance(named, str):
            raise Refused(
                "wrong_type", f'"{route.source.settings.id_field}" is {type(named).__name__}, expected text'
            )
        if route.point >= 0:
            if named != self._points.point_id[route.point]:
                raise Refused(
                    "identity_mismatch",
                    f'the topic is of "{self._points.point_id[route.point]}"',
                    named[:DETAIL_CHARS_MAX],
                )
            return route.point
        point = self._number_of.get(named)
        if point is None:
            raise Refused("unknown_point", f'"{named}" is not in the registry', named[:DETAIL_CHARS_MAX])
        if int(self._points.gateway[point]) != route.gateway:
            raise Refused("identity_mismatch", "the point belongs to another gateway", named)
        if self._points.retired[point]:
            raise Refused("retired_point", "", named)
        return point

    def _time(
        self, source: Source, element: Mapping[str, object], point: int, message: Message
    ) -> int | None:
        """µs since 1970 UTC; None where the reading brings no time and needs none."""
        found, given = at_path(element, source.time_path)
        point_id = self._points.point_id[point]
        if not found:
            if int(self._points.time_from[point]) == TIME_FROM_RECEIVE:
                if message.retained:
                    raise RetainedError
                return None
            raise Refused("no_time", f'no "{source.settings.time_field}"', point_id)
        try:
            time_us = to_us(given, source.settings.time_unit, source.zone)
        except BadTime as bad:
            raise Refused("bad_time", str(bad), point_id) from None
        if not source.lenient and not source.oldest_us <= time_us <= source.newest_us:
            age_s = (message.received_at - time_us) / 1e6
            raise Refused("time_window", f"{abs(age_s):.0f} s {'old' if age_s > 0 else 'ahead'}", point_id)
        return time_us

    @staticmethod
    def _value(source: Source, element: Mapping[str, object], point_id: str) -> tuple[float, int]:
        found, given = at_path(element, source.value_path)
        if not found:
            raise Refused("no_value", f'no "{source.settings.value_field}"', point_id)
        _, flag = at_path(element, source.flag_path)
        device_flag = DEVICE_SILENT if flag is None else flag
        if (
            isinstance(device_flag, bool)
            or not isinstance(device_flag, int)
            or device_flag not in DEVICE_FLAGS
        ):
            raise Refused("wrong_type", f'"{source.settings.flag_field}" is no QARTOD flag', point_id)
        if given is None:
            return NAN, device_flag or MISSING
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise Refused(
                "wrong_type",
                f'"{source.settings.value_field}" is {type(given).__name__}, expected a number',
                point_id,
            )
        value, missing = _missing_code(source, float(given))
        return value, device_flag or missing


def _missing_code(source: Source, value: float) -> tuple[float, int]:
    """NaN and flag 9 for a code that means "no value", else the value."""
    return (NAN, MISSING) if value in source.settings.missing_values else (value, DEVICE_SILENT)


def _raw(element: object, message: Message) -> bytes:
    """The bytes of one element; of the whole message where it is nested too deeply to be written again."""
    try:
        return orjson.dumps(element)
    except orjson.JSONEncodeError:
        return message.payload
