"""Events of one source: a decoded body to steps of events, by the source's [source.event] table.

Owns the meaning of that table. Works on what a decoder returned, as ingest.codecs.mapping does; knows no bytes, no
registry and no clock. Text is masked here, before anything is written; what persons wrote is never quoted in a refusal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from ingest.codecs.base import Parsed
from ingest.codecs.masking import MASK, masked, somebodys_number
from ingest.codecs.paths import Path, one_at, parse_path
from ingest.decode.refused import Refused
from ingest.decode.times import BadTime, from_text, to_us
from ingest.eventsettings import CONSTANT, EventSettings
from ingest.sourcesettings import SourceSettings
from storage.records import STATES, Event

ID_CHARS_MAX: Final = 200
COLUMN_CHARS_MAX: Final = 200
"""Of category, district and name: words, not texts."""
TEXT_CHARS_MAX: Final = 4_000
"""Of an attribute: what a citizen writes fits; a longer one is cut there."""
CUT: Final = "…"

Look = Callable[[object, object], tuple[bool, Any]]
"""(payload, event) to (found, value)."""


class EventBody:
    """Bodies of one source to events. Raises ValueError where a path makes no sense.

    ``read`` raises Refused for a body of which nothing can be read.
    """

    def __init__(self, settings: SourceSettings, event: EventSettings, zone: ZoneInfo) -> None:
        self._settings = settings
        self._event = event
        self._zone = zone
        self._strict = settings.personal
        self._states = {state: state for state in STATES} | event.states
        self._at = parse_path(event.events) if event.events else ()
        self._look = {key: _look(text) for key, text in event.paths() if key != ("events",)}

    def read(self, body: object) -> Parsed:
        """Every event of one body; each that cannot be read is a refusal."""
        found, where = one_at(body, self._at)
        if not found:
            raise Refused("wrong_shape", f'nothing stands at "{self._event.events}"')
        elements = where if isinstance(where, list) else [where]
        most = self._settings.readings_per_message_max
        if not elements:
            raise Refused("wrong_shape", "an empty array holds no event")
        if len(elements) > most:
            raise Refused("too_many_readings", f"{len(elements)} events, at most {most}")
        parsed = Parsed()
        for element in elements:
            try:
                parsed.events.append(self._one(body, element))
            except Refused as refused:
                parsed.refusals.append(refused)
        return parsed

    def _one(self, body: object, element: object) -> Event:
        if not isinstance(element, dict):
            raise Refused("wrong_shape", "expected an object")
        given = {key: look(body, element) for key, look in self._look.items()}
        lon, lat = self._place(given)
        return Event(
            id=self._id(given["id",]),
            source=self._settings.name,
            type=self._event.type,
            state=self._state(given["state",]),
            at_us=self._time("time", given["time",]),
            district=self._column("district", given),
            category=self._column("category", given),
            lon=lon,
            lat=lat,
            point_id=self._column("point", given),
            attributes=dict(self._attributes(given)),
            name=self._column("name", given),
            due_us=self._due(given.get(("due",))),
        )

    def _id(self, given: tuple[bool, Any]) -> str:
        found, value = given
        if not found or value is None or value == "":
            raise Refused("no_id", f'no id at "{self._event.id}"')
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str) or len(value) > ID_CHARS_MAX:
            raise Refused("wrong_type", f"the id is no text of at most {ID_CHARS_MAX} characters")
        # Masked ids would all be one event; so would it be if the text around the number were kept.
        if self._strict and masked(value, strict=False) != value:
            raise Refused("personal_id", "the id is somebody's number or address")
        return value

    def _state(self, given: tuple[bool, Any]) -> str:
        found, word = given
        if not found or word is None:
            raise Refused("no_state", f'no state at "{self._event.state}"')
        state = self._states.get(_word(word)) if isinstance(word, str | int) else None
        if state is None:
            raise Refused("unknown_state", f"{self._quoted(word)} is not among the source's states")
        return state

    def _time(self, what: str, given: tuple[bool, Any]) -> int:
        found, value = given
        if not found or value is None:
            raise Refused("no_time", f"the event has no {what}")
        settings = self._settings
        try:
            if isinstance(value, str) and settings.time_format is not None:
                return from_text(value, settings.time_format, self._zone)
            if isinstance(value, str) and settings.text_numbers and value.strip().isdecimal():
                value = int(value)
            return to_us(value, settings.time_unit, self._zone)
        except BadTime as bad:
            raise Refused("bad_time", f"{what}: {self._said(str(bad))}") from None

    def _due(self, given: tuple[bool, Any] | None) -> int | None:
        if given is None or not given[0] or given[1] in (None, ""):
            return None
        return self._time("due", given)

    def _place(self, given: Mapping[tuple[str, ...], tuple[bool, Any]]) -> tuple[float | None, float | None]:
        """Degrees; an event without a place, or with 0, 0 for one, is somewhere in its district."""
        both = [
            self._degrees(name, bound, given.get((name,))) for name, bound in (("lon", 180.0), ("lat", 90.0))
        ]
        lon, lat = both
        return (None, None) if lon is None or lat is None or lon == lat == 0 else (lon, lat)

    def _degrees(self, name: str, bound: float, given: tuple[bool, Any] | None) -> float | None:
        value = given[1] if given is not None and given[0] else None
        if isinstance(value, str):
            try:
                value = float(value) if value.strip() else None
            except ValueError:
                value = math.nan
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not -bound <= value <= bound:
            raise Refused("wrong_type", f"{name} is no number of degrees")
        return float(value)

    def _column(self, name: str, given: Mapping[tuple[str, ...], tuple[bool, Any]]) -> str:
        found, value = given.get((name,), (False, None))
        if not found or value is None:
            return ""
        value = self._worded(name, value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Refused("wrong_type", f"{name} is no text")
        text = str(value)
        # Codes of districts and points are numbers too: only what can hardly be anything else goes.
        return _cut(masked(text, strict=self._strict and name == "name"), COLUMN_CHARS_MAX)

    def _attributes(
        self, given: Mapping[tuple[str, ...], tuple[bool, Any]]
    ) -> Iterator[tuple[str, str | float | None]]:
        for name in self._event.attributes:
            found, value = given["attributes", name]
            value = self._worded(name, value) if found else None
            if isinstance(value, dict | list):
                raise Refused("wrong_type", f"attribute {name} is no text and no number")
            yield name, self._attribute(value)

    def _attribute(self, value: Any) -> str | float | None:
        if isinstance(value, bool):
            return float(value)
        if isinstance(value, int | float):
            if not math.isfinite(value):
                return None
            return MASK if somebodys_number(value, strict=self._strict) else float(value)
        if value is None:
            return None
        return _cut(masked(str(value), strict=self._strict), TEXT_CHARS_MAX)

    def _worded(self, name: str, value: Any) -> Any:
        words = self._event.words.get(name)
        if words is None or isinstance(value, dict | list):
            return value
        return words.get(_word(value), value)

    def _quoted(self, word: object) -> str:
        return "its state" if self._strict else f'"{masked(str(word), strict=True)[:40]}"'

    def _said(self, text: str) -> str:
        return "cannot be read" if self._strict else masked(text, strict=False)


def _look(text: str) -> Look:
    """How a path of the table is followed."""
    if text.startswith(CONSTANT):
        said = text.removeprefix(CONSTANT)
        return lambda _body, _element: (True, said)
    steps: Path = parse_path(text)
    if text.startswith("$"):
        return lambda body, _element: one_at(body, steps)
    return lambda _body, element: one_at(element, steps)


def _word(value: object) -> str:
    """As a table of words spells it: true and false as in JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + CUT
