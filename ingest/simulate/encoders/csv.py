"""CSV as a logger writes it: the way back from ``ingest.codecs.csv_rows``.

Owns long rows where the source names a column of quantities, wide ones where it does not.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.decode.times import US_PER_UNIT
from ingest.simulate.encoders.base import Sent, topic_of
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, GOOD

ROWS_MAX: Final = 100
"""Of one message."""


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. Columns stand in the order device, time, flag, then values."""

    SOURCE: ClassVar[dict[str, Any]] = {
        "topics": ["loggers/csv"],
        "device": "station",
        "time": "at",
        "quantity": "what",
        "value": "value",
        "flag": "state",
        "flags": {"ok": 1, "odd": 3, "broken": 4},
        "csv": {"delimiter": ";", "decimal": ","},
    }
    DEVICES: ClassVar[Sequence[str]] = ("s1", "测站 2", 'q"3;')
    QUANTITIES: ClassVar[Sequence[str]] = ("pm25", "a b", "x;y")
    TIME_STEP_US: ClassVar[int] = 1000
    DECIMALS: ClassVar[int] = 6
    FLAG: ClassVar[int] = GOOD

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        self._settings = settings
        self._zone = zone
        self._words = {flag: word for word, flag in settings.flags.items()}
        self._long = bool(settings.quantity) and not str(settings.quantity).startswith(("=", "topic:"))
        self._one = not self._long and settings.value is not None

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of tables that hold these readings."""
        sent = []
        for topic, group in groupby(readings, lambda one: topic_of(self._settings, one.device, one.quantity)):
            those = list(group)
            begins = range(0, len(those), ROWS_MAX)
            sent += [(topic, self._table(those[begin : begin + ROWS_MAX])) for begin in begins]
        return sent

    def _table(self, readings: Sequence[Sent]) -> bytes:
        settings, options = self._settings, self._settings.csv
        if self._long or self._one:
            names = [settings.value or settings.value_field]
            lines = [(one, [self._number(one.value)]) for one in readings]
        else:
            names = list(dict.fromkeys(one.quantity for one in readings))
            lines = []
            for _, group in groupby(readings, lambda one: (one.device, one.time_us, one.flag)):
                those = {one.quantity: one for one in group}
                first = next(iter(those.values()))
                lines.append((first, [self._number(those[n].value) if n in those else "" for n in names]))
        head = [name for name, _ in self._before(readings[0])]
        out = io.StringIO()
        writer = csv.writer(out, delimiter=options.delimiter, quotechar=options.quote)
        if options.header:
            writer.writerow([*head, *names])
        writer.writerows([*(text for _, text in self._before(one)), *values] for one, values in lines)
        return out.getvalue().encode(options.encoding)

    def _before(self, one: Sent) -> list[tuple[str, str]]:
        """(column, text) of what stands before the values."""
        settings = self._settings
        found = []
        if settings.device and not settings.device.startswith(("=", "topic:")):
            found.append((settings.device, one.device))
        if self._long:
            found.append((settings.quantity or "", one.quantity))
        found += self._time(one.time_us)
        if settings.flag:
            found.append((settings.flag, "" if one.flag == DEVICE_SILENT else self._words[one.flag]))
        return found

    def _number(self, value: float) -> str:
        text = "" if math.isnan(value) else repr(float(value))
        return text.replace(".", self._settings.csv.decimal)

    def _time(self, time_us: int) -> list[tuple[str, str]]:
        settings = self._settings
        column = settings.time or settings.time_field
        if settings.time_format is None:
            if settings.time_unit == "ns":
                return [(column, str(time_us * 1000))]
            return [(column, str(time_us // US_PER_UNIT[settings.time_unit]))]
        text = (
            datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(self._zone).strftime(settings.time_format)
        )
        columns = settings.csv.time_columns
        return list(zip(columns, text.split(" "), strict=True)) if columns else [(column, text)]
