"""What must agree within a source's settings and between sources: topics, paths, templates, units.

Owns these rules; each yields what breaks it. Connects to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from ingest.codecs.mapping import MappedBody
from ingest.codecs.paths import Every, parse_path
from ingest.codecs.plan import is_elsewhere
from ingest.codecs.table import CODECS, codec_class, make_codec
from ingest.configfaults import Loc
from ingest.configtables import Found
from ingest.eventsettings import EventSettings, event_faults
from ingest.mqtt.fields import MalformedPacket
from ingest.mqtt.topics import SHARE, check_filter
from ingest.sourcesettings import SourceSettings
from ingest.sourcetopics import NAMES, plain_filter
from storage.flags import DEVICE_FLAGS

PATH_KEYS: Final = ("device", "quantity", "time", "value", "flag", "readings")
READING_KEYS: Final = (*(key for key in PATH_KEYS if key != "time"), "point_id", "quantities", "devices")
EVENT_CODECS: Final = ("json", "msgpack")
"""Those whose bodies a mapping takes apart."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_TEMPLATE_NAMES: Final = ("device", "quantity", "source")


def source_faults(loc: Loc, source: SourceSettings) -> Found:
    """What is wrong with one source by itself."""
    for index, pattern in enumerate(source.topics):
        yield from _topic((*loc, "topics", index), pattern)
    if source.codec not in CODECS:
        yield (*loc, "codec"), f"{source.codec} is not in this version of Yuzui"
    if source.port is not None and not _streams(source.codec):
        yield (*loc, "port"), f"{source.codec} has no frames to be found in a stream: give topics instead"
    yield from _template((*loc, "point_id"), source.point_id)
    yield from _quantities(loc, source)
    yield from _devices(loc, source)
    for word, flag in source.flags.items():
        if flag not in DEVICE_FLAGS:
            yield (
                (*loc, "flags", word),
                f"expected a QARTOD flag (1 good, 2 unknown, 3 suspect, 4 fail, 9 missing), got {flag}",
            )
    if source.time_format is not None:
        yield from _time_format((*loc, "time_format"), source.time_format)
    if source.event is not None:
        yield from _event(loc, source, source.event)
    else:
        yield from _paths(loc, source)


def sources_faults(sources: Iterable[tuple[Loc, SourceSettings]]) -> Found:
    """What sources have in common and must not."""
    first: dict[str, str] = {}
    ports: dict[int, str] = {}
    for loc, source in sources:
        for index, pattern in enumerate(source.topics):
            plain = plain_filter(pattern)
            if first.setdefault(plain, source.name) != source.name:
                yield (*loc, "topics", index), f"{plain} belongs to source {first[plain]} already"
        if source.port is not None and ports.setdefault(source.port, source.name) != source.name:
            yield (*loc, "port"), f"source {ports[source.port]} has this port already"


def _streams(codec: str) -> bool:
    return codec in CODECS and hasattr(codec_class(codec), "split")


def _topic(loc: Loc, pattern: str) -> Found:
    if pattern.startswith(SHARE):
        yield loc, f"{SHARE} is a subscriber's word: here stands the filter alone"
        return
    try:
        check_filter(plain_filter(pattern))
    except MalformedPacket as wrong:
        yield loc, str(wrong)
    if set("{}") & set(plain_filter(pattern)):
        yield loc, "{device} and {quantity} stand for one whole level each; there are no others"
    for name in NAMES:
        if pattern.split("/").count(f"{{{name}}}") > 1:
            yield loc, f"{{{name}}} stands twice"


def _template(loc: Loc, template: str | None) -> Found:
    if template is None:
        return
    unknown = [name for name in _BRACES.findall(template) if name not in _TEMPLATE_NAMES]
    if unknown or set("{}") & set(_BRACES.sub("", template)):
        yield loc, "expected {device}, {quantity} and {source} in braces, nothing else"
    elif "{device}" not in template and "{quantity}" not in template:
        yield loc, "without {device} or {quantity} all readings would be one point's"


def _quantities(loc: Loc, source: SourceSettings) -> Found:
    names: dict[str, str] = {}
    for name, quantity in source.quantities.items():
        here = (*loc, "quantities", name)
        if quantity.factor == 0:
            yield (*here, "factor"), "0 would make every value the same"
        known = quantity.as_ or name
        if known in names:
            yield (*here, "as"), f'"{known}" is what {names[known]} is called already'
        names.setdefault(known, name)


def _devices(loc: Loc, source: SourceSettings) -> Found:
    for name, device in source.devices.items():
        here = (*loc, "devices", name)
        if not name:
            yield here, "a device needs a name"
        if (device.lon is None) != (device.lat is None):
            yield here, "lon, lat: one without the other"
        for index, quantity in enumerate(device.quantities):
            if quantity not in source.quantities:
                yield (*here, "quantities", index), f'"{quantity}" is not one of the source\'s quantities'


def _event(loc: Loc, source: SourceSettings, event: EventSettings) -> Found:
    for key, message in event_faults(event):
        yield (*loc, "event", *key), message
    if source.codec not in EVENT_CODECS:
        yield (*loc, "event"), f"events come as {' or '.join(EVENT_CODECS)}, not as {source.codec}"
    for name in READING_KEYS:
        if name in source.model_fields_set:
            yield (*loc, name), "the source sends events: readings need a source of their own"


def _time_format(loc: Loc, form: str) -> Found:
    try:
        now = datetime.now(UTC)
        parsed = datetime.strptime(now.strftime(form), form)  # noqa: DTZ007 - only its date is looked at
        if parsed.date() != now.date():
            yield loc, "expected year, month and day, such as %Y-%m-%d %H:%M:%S"
    except ValueError as wrong:
        yield loc, f"strptime cannot read it: {wrong}"


MAPPED: Final = frozenset({"json", "msgpack"})
"""Codecs whose readings stand at paths."""
NAMES_ITSELF: Final = frozenset({"senml", "senml-cbor", "influx", "sparkplug"})
"""Codecs whose format says where everything is."""


def _paths(loc: Loc, source: SourceSettings) -> Found:
    if source.codec not in MAPPED:
        yield from _places(loc, source)
        return
    wrong = False
    for key in PATH_KEYS:
        text: str | None = getattr(source, key)
        if text is None:
            continue
        for message in _path(source, key, text):
            wrong = True
            yield (*loc, key), message
    if wrong or not source.mapped:
        return
    try:
        MappedBody(source, ZoneInfo("UTC"))
    except ValueError as fault:
        key, colon, message = str(fault).partition(": ")
        yield ((*loc, key), message) if colon and key in PATH_KEYS else (loc, str(fault))


def _places(loc: Loc, source: SourceSettings) -> Found:
    """Of a codec that takes no paths."""
    for key in PATH_KEYS:
        text: str | None = getattr(source, key)
        if text is None:
            continue
        if is_elsewhere(text):
            yield from (((*loc, key), message) for message in _elsewhere(source, key, text))
        elif source.codec in NAMES_ITSELF:
            yield (*loc, key), f"{source.codec} says itself what stands where: leave it out"
    if source.codec in CODECS:
        try:
            make_codec(source.codec, source, ZoneInfo("UTC"))
        except ValueError as fault:
            yield loc, str(fault)


def _elsewhere(source: SourceSettings, key: str, text: str) -> Iterable[str]:
    if key not in NAMES:
        yield 'only device and quantity may stand elsewhere than in the payload ("topic:2", "=words")'
    elif text.startswith("topic:"):
        if not text.removeprefix("topic:").isdecimal():
            yield 'expected "topic:" and a number; "topic:0" is the first level'
        elif not source.topics:
            yield "the source has no topics"


def _path(source: SourceSettings, key: str, text: str) -> Iterable[str]:
    if is_elsewhere(text):
        yield from _elsewhere(source, key, text)
        return
    try:
        steps = parse_path(text)
    except ValueError as fault:
        yield str(fault)
        return
    if key == "value" and steps == (Every.ENTRY,) and not source.readings and not source.quantities:
        yield '"*" would take every field for a reading: name the right ones in quantities'
