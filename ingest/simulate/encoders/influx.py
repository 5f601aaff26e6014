"""InfluxDB line protocol as an agent sends it: the way back from ``ingest.codecs.influx``.

Owns lines of one device and time with all its fields, and the escapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.simulate.encoders.base import Sent, topic_of
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT

LINES_MAX: Final = 100
"""Of one message."""
_US_PER_UNIT: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_SPECIAL = re.compile(r"([,= ])")


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. The device goes into the one tag that the template names, or is
    the measurement; ``measurement`` of all others. What is missing is not sent."""

    SOURCE: ClassVar[dict[str, Any]] = {"topics": ["influx/up"], "influx": {"device": "{tag:station}"}}
    DEVICES: ClassVar[Sequence[str]] = ("s1", "测站 2", "q=3,4")
    QUANTITIES: ClassVar[Sequence[str]] = ("pm25", "a b", "x=,y")
    TIME_STEP_US: ClassVar[int] = 1000
    DECIMALS: ClassVar[int] = 6
    FLAG: ClassVar[int] = DEVICE_SILENT

    def __init__(self, settings: SourceSettings, zone: ZoneInfo, *, measurement: str = "m") -> None:
        self._settings = settings
        self._measurement = measurement
        tag = re.fullmatch(r"\{tag:(.+)\}", settings.influx.device)
        self._tag = tag[1] if tag else ""

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of lines that hold these readings."""
        found: dict[str, list[str]] = {}
        sent = []
        for (device, time_us), group in groupby(readings, lambda one: (one.device, one.time_us)):
            those = [one for one in group if not math.isnan(one.value)]
            if those:
                lines = found.setdefault(topic_of(self._settings, device, ""), [])
                lines.append(self._line(device, time_us, those))
        for topic, lines in found.items():
            begins = range(0, len(lines), LINES_MAX)
            sent += [(topic, "\n".join(lines[begin : begin + LINES_MAX]).encode()) for begin in begins]
        return sent

    def _line(self, device: str, time_us: int, readings: Sequence[Sent]) -> str:
        series = (
            f"{self._measurement},{_escaped(self._tag)}={_escaped(device)}" if self._tag else _escaped(device)
        )
        fields = ",".join(f"{_escaped(one.quantity)}={float(one.value)!r}" for one in readings)
        unit = self._settings.influx.precision
        time = time_us * 1000 if unit == "ns" else time_us // _US_PER_UNIT[unit]
        return f"{series} {fields} {time}"


def _escaped(name: str) -> str:
    return _SPECIAL.sub(r"\\\1", name)
