"""[source.event]: what a source says of events, and under which paths.

Owns names, types, defaults and what must agree within the table. The paths' grammar is ingest.codecs.paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from ingest.codecs.paths import Every, parse_path
from storage.eventstates import STATES
from storage.settings import Settings

CONSTANT: Final = "="
"""A path that begins so is no path: what follows is said here."""
PATHS: Final = ("id", "state", "time", "due", "category", "district", "name", "lon", "lat", "point")
ATTRIBUTE = r"^[a-z][a-z0-9_]{0,63}$"
AttributeName = Annotated[str, Field(pattern=ATTRIBUTE)]
ATTRIBUTES_MAX: Final = 64
"""An event is a few facts; a document belongs elsewhere."""


class EventSettings(Settings):
    """[source.event]: its messages are events beside readings. Only what is named here is ever stored."""

    type: str = Field(pattern=ATTRIBUTE)
    """What they are; docs/events.md has those that macros know."""
    events: str | None = None
    """Where they stand, an array or one object; default the whole payload. The other paths start at each of them,
    those with "$." at the payload."""
    id: str = "id"
    """The same id again is a later step of the same event."""
    state: str = "=closed"
    """Where the word for its state stands; "=closed" says it here: what comes is over when it comes."""
    states: dict[str, str] = Field(default_factory=dict)
    """The source's words to the states of docs/events.md; those themselves are always known."""
    time: str = "time"
    """When the step was taken; read by the source's time_unit, time_format and time_zone."""
    due: str | None = None
    category: str | None = None
    district: str | None = None
    name: str | None = None
    lon: str | None = None
    lat: str | None = None
    point: str | None = None
    """A point of the registry it is about; district and place are then the point's where the event says none."""
    attributes: dict[AttributeName, str] = Field(default_factory=dict, max_length=ATTRIBUTES_MAX)
    """What else is kept, by name."""
    words: dict[str, dict[str, str | float]] = Field(default_factory=dict)
    """For category, district or an attribute: the source's words to ours. Others stay as they are."""

    def paths(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """(key, path or constant) of all that is mapped."""
        for key in ("events", *PATHS):
            text: str | None = getattr(self, key)
            if text is not None:
                yield (key,), text
        for name, text in self.attributes.items():
            yield ("attributes", name), text


def event_faults(event: EventSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What breaks the table: (key, message)."""
    expected = f"expected one of {', '.join(STATES)}"
    for word, state in event.states.items():
        if state not in STATES:
            yield ("states", word), f'unknown state "{state}" ({expected})'
    for key, text in event.paths():
        if text.startswith(CONSTANT):
            if key in (("id",), ("time",), ("events",), ("lon",), ("lat",), ("due",)):
                yield key, "must be a path: each event has its own"
            elif key == ("state",) and text[1:] not in STATES:
                yield key, f'unknown state "{text[1:]}" ({expected})'
            continue
        try:
            if any(isinstance(step, Every) for step in parse_path(text)):
                yield key, "a path to one value; where many events stand is said by events"
        except ValueError as fault:
            yield key, str(fault)
    if (event.lon is None) != (event.lat is None):
        yield ("lon",), "lon, lat: one without the other"
    known = {"category", "district", *event.attributes}
    for name in event.words:
        if name not in known:
            yield ("words", name), f'"{name}" is not mapped (category, district or an attribute)'
