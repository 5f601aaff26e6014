"""CSV (RFC 4180, and what loggers write in its name): rows to readings, wide or long.

Owns the layout: which column is the device, the time, a value. Long rows say quantity and value in two columns; wide
ones have a column for each quantity. A message is taken column by column as long as nothing in it is out of the
ordinary; else field by field, so that each bad one is refused with its reason and the good ones stay.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from math import isfinite
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.codecs.base import Key, Parsed
from ingest.codecs.mapping import flag_words
from ingest.codecs.naming import Ignored
from ingest.decode.refused import Refused
from ingest.decode.times import BadTime, from_text, to_us
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, MISSING

NAN: Final = float("nan")
COLUMNS_MAX: Final = 4096
"""More columns in one row are no logger's: it is some other file."""
HEADERS_KEPT_MAX: Final = 1000
"""Layouts remembered for a source; a peer that invents headers must not fill memory."""
SHAPE_KEYS_MAX: Final = 100_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_WHOLE = re.compile(r"[+-]?\d{1,19}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of a row stand; -1 for a column there is none of.

    values  column and quantity of each value; quantity None: column ``quantity`` says it
    """

    width: int
    device: int
    quantity: int
    times: tuple[int, ...]
    flag: int
    values: tuple[tuple[int, str | None], ...]


class CsvRows:
    """See ingest.codecs.base.Codec."""

    name: ClassVar[str] = "csv"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        """Raises ValueError where the settings make no sense together."""
        self._settings = settings
        self._options = options = settings.csv
        self._zone = zone
        if options.delimiter == options.decimal:
            raise ValueError(f'csv.delimiter and csv.decimal are both "{options.decimal}"')
        self._flags = flag_words(settings.flags)
        self._ignored = Ignored(options.ignore)
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._shapes: dict[tuple[str, ...], list[Key]] = {}
        self._shape_keys = 0

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """The readings of all rows."""
        rows = self._rows(payload)
        if not rows:
            raise Refused("wrong_shape", "no row")
        if self._options.header:
            layout, rows = self._layout(tuple(name.strip() for name in rows[0])), rows[1:]
            if not rows:
                raise Refused("wrong_shape", "a header and no row behind it")
        elif self._options.columns:
            layout = self._layout(tuple(self._options.columns))
        else:
            layout = self._layout(tuple(map(str, range(1, len(rows[0]) + 1))))
        readings = len(rows) * len(layout.values)
        if readings > self._settings.readings_per_message_max:
            raise Refused(
                "too_many_readings", f"{readings}, at most {self._settings.readings_per_message_max}"
            )
        parsed = self._columns(layout, rows)
        return self._carefully(layout, rows) if parsed is None else parsed

    def _rows(self, payload: bytes) -> list[list[str]]:
        options = self._options
        try:
            text = payload.decode("utf-8-sig" if options.encoding == "utf-8" else options.encoding)
        except UnicodeDecodeError as fault:
            raise Refused("bad_csv", f"not {options.encoding}: {fault.reason}") from None
        # newline="" as the csv module asks for: line ends within quotes belong to the field.
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=options.delimiter,
            quotechar=options.quote,
            strict=True,
        )
        try:
            rows = [row for row in reader if row]
        except csv.Error as fault:
            raise Refused("bad_csv", f"line {reader.line_num}: {fault}") from None
        if rows and max(map(len, rows)) > COLUMNS_MAX:
            raise Refused("bad_csv", f"more than {COLUMNS_MAX} columns")
        return rows

    def _layout(self, header: tuple[str, ...]) -> Layout:
        known = self._layouts.get(header)
        if known is None:
            known = self._find_columns(header)
            if len(self._layouts) >= HEADERS_KEPT_MAX:
                self._layouts.clear()
            self._layouts[header] = known
        return known

    def _find_columns(self, header: tuple[str, ...]) -> Layout:
        """Raises Refused for a header without a column that the source names."""
        settings, options = self._settings, self._options
        place: dict[str, int] = {}
        for index, name in enumerate(header):
            if name in place and name:
                raise Refused("wrong_shape", f'two columns are called "{name[:40]}"')
            place[name] = index

        def find(name: str) -> int:
            if name in place:
                return place[name]
            if name.isascii() and name.isdecimal() and 1 <= int(name) <= len(header):
                return int(name) - 1
            there = ", ".join(header)[:120]
            raise Refused("wrong_shape", f'no column "{name}" among {there}')

        device = -1 if _is_elsewhere(settings.device) else find(settings.device or settings.id_field)
        quantity = (
            -1 if _is_elsewhere(settings.quantity) or not settings.quantity else find(settings.quantity)
        )
        times = tuple(map(find, options.time_columns or [settings.time or settings.time_field]))
        flag = find(settings.flag) if settings.flag else -1
        said = settings.quantity or ""
        constant = said[1:] if said.startswith("=") else ""
        if quantity >= 0:
            values: tuple[tuple[int, str | None], ...] = (
                (find(settings.value or settings.value_field), None),
            )
        elif settings.value or constant or said.startswith("topic:"):
            values = ((find(settings.value or settings.value_field), constant),)
        else:
            taken = {device, flag, *times}
            wanted = settings.quantities
            values = tuple(
                (index, name)
                for index, name in enumerate(header)
                if index not in taken and name not in self._ignored and (name in wanted if wanted else name)
            )
        if not values:
            raise Refused("no_value", "no column is a quantity of the source")
        return Layout(len(header), device, quantity, times, flag, values)

    # The quick way: columns.

    def _columns(self, layout: Layout, rows: list[list[str]]) -> Parsed | None:
        """All rows at once; None where anything is out of the ordinary."""
        try:
            columns = list(zip(*rows, strict=True))
        except ValueError:
            return None
        if len(columns) != layout.width or self._options.thousands:
            return None
        each = len(layout.values)
        try:
            values = [self._numbers(columns[index]) for index, _ in layout.values]
            texts = self._time_texts(layout, columns)
            known = {text: self._time(text) for text in set(texts)}
            flags = self._device_flags(layout, columns, len(rows))
        except (ValueError, KeyError, BadTime):
            return None
        times: list[int | None] = list(chain.from_iterable(repeat(known[text], each) for text in texts))
        flat = values[0] if each == 1 else list(chain.from_iterable(zip(*values, strict=True)))
        return Parsed(
            self._keys(layout, columns, len(rows)),
            times,
            flat,
            flags if each == 1 else list(chain.from_iterable(repeat(flag, each) for flag in flags)),
        )

    def _keys(self, layout: Layout, columns: Sequence[Sequence[str]], n: int) -> list[Key]:
        """The key of each reading. The same devices in the same layout get the same list again."""
        constant = _constant(self._settings.device)
        devices = list(map(str.strip, columns[layout.device])) if layout.device >= 0 else [constant] * n
        if layout.quantity >= 0:
            names = list(map(str.strip, columns[layout.quantity]))
            shape = (*devices, "\0", *names)
        else:
            shape = (*devices, "\0", *(str(name) for _, name in layout.values))
        keys = self._shapes.get(shape)
        if keys is None:
            if layout.quantity >= 0:
                keys = list(zip(devices, names, strict=True))
            else:
                keys = [(device, name or "") for device in devices for _, name in layout.values]
            self._shape_keys += len(keys)
            if self._shape_keys > SHAPE_KEYS_MAX:
                self._shapes.clear()
                self._shape_keys = len(keys)
            self._shapes[shape] = keys
        return keys

    def _numbers(self, column: Sequence[str]) -> list[float]:
        """A column of values. Raises ValueError for any that is none, or that only Python takes for one."""
        if self._options.decimal == ",":
            column = [field.replace(",", ".") if "." not in field else "" for field in column]
        values = list(map(float, column))
        if not all(map(isfinite, values)) or "_" in "".join(column):
            raise ValueError
        return values

    @staticmethod
    def _time_texts(layout: Layout, columns: Sequence[Sequence[str]]) -> list[str]:
        if len(layout.times) == 1:
            return list(map(str.strip, columns[layout.times[0]]))
        return [
            " ".join(map(str.strip, parts)) for parts in zip(*(columns[i] for i in layout.times), strict=True)
        ]

    def _device_flags(self, layout: Layout, columns: Sequence[Sequence[str]], n: int) -> list[int]:
        if layout.flag < 0:
            return [DEVICE_SILENT] * n
        return [self._flags[word.strip() or None] for word in columns[layout.flag]]

    # The careful way: one field at a time.

    def _carefully(self, layout: Layout, rows: list[list[str]]) -> Parsed:
        parsed = Parsed()
        for row in rows:
            try:
                self._row(layout, row, parsed)
            except Refused as refused:
                parsed.refusals.append(refused)
        return parsed

    def _row(self, layout: Layout, row: list[str], parsed: Parsed) -> None:
        if len(row) != layout.width:
            raise Refused("wrong_shape", f"{len(row)} fields, expected {layout.width}")
        row = [field.strip() for field in row]
        device = row[layout.device] if layout.device >= 0 else _constant(self._settings.device)
        text = " ".join(row[index] for index in layout.times)
        try:
            time_us = self._time(text)
        except BadTime as bad:
            raise Refused("bad_time", str(bad)) from None
        flag = DEVICE_SILENT
        if layout.flag >= 0:
            try:
                flag = self._flags[row[layout.flag] or None]
            except KeyError:
                word = row[layout.flag][:40]
                raise Refused("wrong_type", f'the flag "{word}" is not one the source declares') from None
        for index, name in layout.values:
            quantity = row[layout.quantity] if name is None else name
            field = row[index]
            if not field and self._options.empty == "skip":
                continue
            try:
                value = self._number(field) if field else NAN
            except ValueError:
                what = f" of {device} {quantity}".rstrip()
                parsed.refusals.append(Refused("wrong_type", f'the value{what} is "{field[:40]}", no number'))
                continue
            parsed.add((device, quantity), time_us, value, flag or (DEVICE_SILENT if field else MISSING))

    def _number(self, field: str) -> float:
        options = self._options
        if options.thousands:
            field = field.replace(options.thousands, "")
        if options.decimal == ",":
            field = "" if "." in field else field.replace(",", ".")
        if not _NUMBER.fullmatch(field):
            raise ValueError
        return float(field)

    def _time(self, text: str) -> int | None:
        """µs of a time as written; None where the field is empty. Raises BadTime."""
        if not text:
            return None
        if self._settings.time_format is not None:
            return from_text(text, self._settings.time_format, self._zone)
        if _WHOLE.fullmatch(text):
            return to_us(int(text), self._settings.time_unit, self._zone)
        if _NUMBER.fullmatch(text):
            return to_us(float(text), self._settings.time_unit, self._zone)
        return to_us(text, self._settings.time_unit, self._zone)


def _is_elsewhere(path: str | None) -> bool:
    """Whether a name is not in a column: "topic:2", or "=words"."""
    return path is not None and path.startswith(("topic:", "="))


def _constant(path: str | None) -> str:
    return path[1:] if path is not None and path.startswith("=") else ""
