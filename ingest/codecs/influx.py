"""InfluxDB line protocol: lines of measurement, tags, fields and time to readings.

Owns how a message falls into lines and how a line becomes readings: device and quantity by the source's templates, a
reading for each field. A line itself is taken apart by line_protocol_parser.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from line_protocol_parser import LineFormatError, parse_line

from ingest.codecs.base import Parsed
from ingest.codecs.naming import Ignored, Template, device_in_topic
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT

_US_PER_UNIT: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_TIME_US_MAX: Final = 1 << 62
SERIES_KEPT_MAX: Final = 100_000
"""Series whose device is remembered for a source; a peer that invents tags must not fill memory."""

_LINE = re.compile(
    r'(?:\\.|[^ \n\\]|\\\Z)*(?: (?:"(?:\\.|[^"\\]|\\\Z)*(?:"|\Z)|[^"\n])*)?(?:\n|\Z)',
    re.DOTALL,
)
"""A line up to its end: a line end within a quoted field value does not count. Tags may hold bare quotes. It matches
wherever it begins, also before a last backslash: where it did not, it would be tried at every byte up to the end."""
_SERIES = re.compile(r"(?:\\.|[^ \\])*", re.DOTALL)
_FIELD_NAME = re.compile(r'(?:^|,)((?:\\.|[^=,\\ ])+)=(?:"(?:\\.|[^"\\])*"|[^,"]*)', re.DOTALL)


class Influx:
    """See ingest.codecs.base.Codec."""

    name: ClassVar[str] = "influx"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        options = settings.influx
        self._readings_max = settings.readings_per_message_max
        self._device = None if device_in_topic(settings) else Template(options.device)
        self._quantity = Template(options.quantity)
        self._ignored = Ignored(options.ignore)
        self._unit = options.precision
        self._names: dict[tuple[str, str], tuple[str, str]] = {}

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """The readings of all lines."""
        try:
            text = payload.decode()
        except UnicodeDecodeError as fault:
            raise Refused("bad_line", f"not UTF-8: {fault.reason}") from None
        parsed = Parsed()
        empty = True
        for line in _lines(text):
            if not line or line.isspace() or line.startswith("#"):
                continue
            empty = False
            try:
                self._line(line, parsed)
            except Refused as refused:
                refused.raw = line.encode()
                parsed.refusals.append(refused)
            # Refused ones count too: a message of nothing but bad lines would be as many refusals.
            if len(parsed) + len(parsed.refusals) > self._readings_max:
                raise Refused("too_many_readings", f"more than {self._readings_max} in one message")
        if empty:
            raise Refused("wrong_shape", "no line")
        return parsed

    def _line(self, line: str, parsed: Parsed) -> None:
        try:
            found = parse_line(line)
        except LineFormatError as fault:
            raise Refused("bad_line", str(fault)) from None
        except Exception as fault:  # a surrogate, a NUL: whatever the C code says
            raise Refused("bad_line", f"{type(fault).__name__}: {fault}") from None
        if found is None:
            raise Refused("bad_line", "no line of measurement, fields and time")
        series = _SERIES.match(line)
        key = series[0] if series else ""
        time_us = self._time(found["time"])
        begin = len(parsed)
        for field, value in found["fields"].items():
            if field in self._ignored:
                continue
            if type(value) is str:
                parsed.refusals.append(
                    Refused(
                        "wrong_type",
                        f'field "{field[:40]}" is text; a point holds numbers',
                        raw=line.encode(),
                    )
                )
                continue
            parsed.add(self._key(key, field, found), time_us, float(value), DEVICE_SILENT)
        if _has_more(line, key, len(found["fields"])):
            for column in (parsed.keys, parsed.times, parsed.values, parsed.flags):
                del column[begin:]
            raise Refused("bad_line", "a field stands twice")

    def _key(self, series: str, field: str, found: dict[str, Any]) -> tuple[str, str]:
        known = self._names.get((series, field))
        if known is not None:
            return known
        values = {f"tag:{name}": value for name, value in found["tags"].items()}
        values |= {"measurement": found["measurement"], "series": series, "field": field}
        try:
            device = self._device.fill(values) if self._device else ""
            key = device, self._quantity.fill(values)
        except KeyError as absent:
            raise Refused("no_id", f"the line has no {str(absent.args[0]).replace(':', ' ')}") from None
        if len(self._names) >= SERIES_KEPT_MAX:
            self._names.clear()
        self._names[series, field] = key
        return key

    def _time(self, given: int | None) -> int | None:
        """µs of a timestamp in the source's unit."""
        if given is None:
            return None
        us = given // 1000 if self._unit == "ns" else given * _US_PER_UNIT[self._unit]
        if not -_TIME_US_MAX < us < _TIME_US_MAX:
            raise Refused("bad_time", f"{given} is no time in {self._unit}")
        return us


def _lines(text: str) -> list[str]:
    """The lines of a message.

    >>> _lines('a f=1\\r\\nb f="x\\ny"')
    ['a f=1', 'b f="x\\ny"']
    """
    quoted = '"' in text
    lines = (found[0].removesuffix("\n") for found in _LINE.finditer(text)) if quoted else text.split("\n")
    return [line.removesuffix("\r") for line in lines]


def _has_more(line: str, series: str, fields: int) -> bool:
    """Whether the line has more fields than the parser returned: it keeps the first of two and says nothing."""
    rest = line[len(series) :]
    if '"' not in rest and "\\" not in rest:
        return rest.count("=") != fields
    return len(_FIELD_NAME.findall(rest.strip(" "))) > fields
