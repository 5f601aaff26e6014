"""SL 651-2014: hydrological stations, as hexadecimal frames with elements in BCD.

Owns frames, reports in one packet or several, elements and their times, and the confirmation a station waits for. Knows
nothing of sockets or registries. Device: the station's ten digits; quantity: the element's code in hexadecimal ("39"
water level, "26" rain since the beginning, "F4" rain of five minutes …).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.codecs.base import Key, Parsed
from ingest.codecs.bounded import Bounded
from ingest.codecs.checksums import crc_modbus
from ingest.codecs.clocktime import ClockTimes, field_zone
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, MISSING

HEAD: Final = 14
"""7E7E, centre, station 5, password 2, function, direction and length 2, 02 or 16."""
TAIL: Final = 3
"""03 or 17 and the checksum."""
MARK: Final = b"\x7e\x7e"
STX, SYN, ETX, ETB, EOT, ESC = 0x02, 0x16, 0x03, 0x17, 0x04, 0x1B
LINK: Final = 0x2F
"""Only says that the station is there; it is not answered."""
REPORTS: Final = frozenset({0x30, 0x31, 0x32, 0x33, 0x34})
"""Test, uniform period, timed, added, hourly: confirmed when they are on disk."""
INQUIRED: Final = frozenset({0x37, 0x38, 0x3A})
"""What a station says when somebody asked it: readings all the same, not confirmed."""
KEYS_MAX: Final = 4_000
"""Lists of elements remembered, a few a station."""
SUMMED_TIMES: Final = 8
"""How often a byte is counted into a checksum, on average, where frames are looked for in a stream that is broken."""
OPEN_MAX: Final = 1_000
"""Reports in several packets under way at once for a source."""
FIVE_MINUTES_US: Final = 300_000_000
SERIES: Final = {0xF4: (1, 12, 10.0)} | dict.fromkeys(range(0xF5, 0xFD), (2, 12, 100.0))
"""An hour in twelve values, binary: bytes of one, how many, and units a mm (rain) or a metre (levels). Their length is
fixed; some devices give another in the data definition."""
STEP, STATUS, TIME, STATION, OWN = 0x04, 0x45, 0xF0, 0xF1, 0xFF
OPAQUE: Final = frozenset({0xF2, 0xF3, 0xFD})
"""Text by hand, pictures, profiles of velocity: without a length; nothing behind them can be read."""

_START = re.compile(rb"\x7e\x7e(?=.{9}[\x00-\x0f\x80-\x8f].[\x02\x16])", re.DOTALL)
_STARTS = re.compile(rb"(?=\x7e\x7e.{9}[\x00-\x0f\x80-\x8f].[\x02\x16])", re.DOTALL)
"""The same for all of them, also where one begins with the last byte of another's mark."""
_ENDS: Final = frozenset({ETX, ETB, EOT, 0x05, 0x06, 0x15, ESC})
_NOISE = b"\x7e\r\n\0 "
_US_PER_STEP: Final = (86_400_000_000, 3_600_000_000, 60_000_000)
_NAN: Final = float("nan")


class Sl651:
    """SL 651 in frames, over MQTT (bytes or hexadecimal text) or plain TCP."""

    name: ClassVar[str] = "sl651"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        self._own = settings.sl651
        self._password = None if self._own.password is None else bytes.fromhex(self._own.password)
        self._readings_max = settings.readings_per_message_max
        self._bytes_max = settings.message_bytes_max
        self._times = ClockTimes(field_zone(settings, zone))
        self._keys: Bounded[tuple[Key, ...], list[Key]] = Bounded(KEYS_MAX)
        self._open: Bounded[bytes, dict[int, bytes]] = Bounded(OPEN_MAX)
        """Bodies of packets, by the head they have in common; a report is read when all are here."""

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """The readings of one frame, or of several one after the other."""
        if payload[:4].upper() == b"7E7E":
            payload = _from_text(payload)
        if len(payload) > HEAD and _end(payload, 0) == len(payload) and _START.match(payload):
            return self._frame(payload)
        frames, used = self.split(payload)
        whole = Parsed()
        for frame in frames:
            try:
                if isinstance(frame, Refused):
                    raise frame
                one = self._frame(frame)
            except Refused as refused:
                refused.raw = refused.raw or (b"" if isinstance(frame, Refused) else frame)
                whole.refusals.append(refused)
                continue
            for name in ("keys", "times", "values", "flags", "refusals", "answers"):
                getattr(whole, name).extend(getattr(one, name))
        rest = payload[used:].strip(_NOISE)
        if rest:
            whole.refusals.append(Refused("bad_frame", "the message ends inside a frame", raw=rest))
        if not frames and not rest:
            raise Refused("bad_frame", "no frame")
        if len(whole.keys) > self._readings_max:
            raise Refused("too_many_readings", f"{len(whole.keys)}, at most {self._readings_max}")
        return whole

    def split(self, buffer: bytes) -> tuple[list[bytes | Refused], int]:
        """Whole frames from the start of ``buffer`` and the bytes used; stray 7E between frames are passed over."""
        frames: list[bytes | Refused] = []
        at, size = 0, len(buffer)
        whole = _Whole(buffer)
        while True:
            found = _START.search(buffer, at)
            start = found.start() if found else _held_back(buffer, at)
            if buffer[at:start].strip(_NOISE):
                frames.append(Refused("bad_frame", "no frame begins here", raw=buffer[at:start]))
            if found is None:
                return frames, start
            end = _end(buffer, start)
            if end <= size and buffer[end - TAIL] in _ENDS:
                frames.append(buffer[start:end])
            else:
                inner = whole.behind(start)
                if inner < 0 and end > size:
                    return frames, start
                end = inner if inner >= 0 else end
                frames.append(
                    Refused("bad_frame", "its length is not that of its body", raw=buffer[start:end])
                )
            at = end

    def _frame(self, frame: bytes) -> Parsed:
        said, counted = frame[-2:], crc_modbus(frame[:-2])
        if int.from_bytes(said, "big") != counted:
            raise Refused("bad_crc", f"{counted:04X} expected, {said.hex().upper()} sent")
        if frame[11] & 0x80:
            raise Refused("bad_frame", "a frame of a centre to its station")
        if frame[-TAIL] not in (ETX, ETB):
            raise Refused("bad_frame", f"ends with {frame[-TAIL]:02X}; 03 or 17 were expected")
        if self._password is not None and frame[8:10] != self._password:
            raise Refused("not_allowed", "another password than the source's")
        function = frame[10]
        if function == LINK:
            return Parsed()
        if function not in REPORTS and function not in INQUIRED:
            raise Refused("unsupported", f"function {function:02X} brings no readings")
        body: bytes | None = frame[HEAD:-TAIL]
        assert body is not None
        if frame[13] == SYN:
            body = self._joined(frame[2:11], body)
            if body is None:
                return Parsed()
        parsed = Report(frame[3:8], self._times, self._own.series, self._readings_max).read(body)
        # The same list again for the same elements: the binding need not look at it twice.
        elements = tuple(parsed.keys)
        known = self._keys.get(elements)
        if known is None:
            self._keys[elements] = parsed.keys
        else:
            parsed.keys = known
        if function in REPORTS and self._own.answer:
            parsed.answers.append(self._answer(frame, body[:8]))
        return parsed

    def _joined(self, head: bytes, body: bytes) -> bytes | None:
        """The body of a report whose last missing packet this is; None while others are missing."""
        if len(body) < 3:
            raise Refused("bad_frame", "a packet without its number")
        total, number = body[0] << 4 | body[1] >> 4, (body[1] & 0x0F) << 8 | body[2]
        if not 1 <= number <= total:
            raise Refused("bad_frame", f"packet {number} of {total}")
        parts = self._open.get(head)
        if parts is None or number == 1:  # with the first the station begins anew
            parts = {}
        parts[number] = body[3:]
        self._open[head] = parts
        if sum(map(len, parts.values())) > self._bytes_max:
            del self._open[head]
            raise Refused("oversized", f"a report of more than {self._bytes_max} bytes in packets")
        if len(parts) < total:
            return None
        del self._open[head]
        return b"".join(parts[index] for index in sorted(parts))

    def _answer(self, frame: bytes, serial_and_time: bytes) -> bytes:
        """The confirmation: the station's own serial number and time of sending (SL 651-2014, annex)."""
        end = ESC if self._own.online else EOT
        head = MARK + frame[3:8] + frame[2:3] + frame[8:11] + b"\x80\x08\x02"
        answer = head + serial_and_time + bytes((end,))
        return answer + crc_modbus(answer).to_bytes(2, "big")


class Report:
    """One report on its way to readings: where its reading stands, and for which time.

    ``series``: as in Sl651Settings
    """

    def __init__(self, station: bytes, times: ClockTimes, series: str, readings_max: int) -> None:
        self._station = station
        self._device = station.hex().upper()
        self._times = times
        self._series = series
        self._readings_max = readings_max
        self._parsed = Parsed()
        self._body = b""
        self._at = 0
        self._sent_us = self._time_us = 0
        self._step_us = 0

    def read(self, body: bytes) -> Parsed:
        """The readings of a body. Raises Refused where not even its head can be read."""
        if len(body) < 8:
            raise Refused("bad_frame", f"a body of {len(body)} bytes has no serial number and time")
        self._body, self._at = body, 2
        self._sent_us = self._time_us = self._clock(6)
        special: dict[int, Callable[[], None]] = {TIME: self._observed, STATION: self._check_station}
        while self._at < len(body):
            begin = self._at
            code = body[begin]
            try:
                if code in special and body[begin : begin + 2] == bytes((code, code)):
                    self._at += 2
                    special[code]()
                elif code in OPAQUE:
                    raise Refused("unsupported", f"element {code:02X} and what follows it")
                else:
                    self._element(code)
            except Refused as refused:
                if refused.reason in ("too_many_readings", "identity_mismatch"):
                    raise
                # What comes behind it cannot be told apart any more.
                refused.raw = body[begin:]
                self._parsed.refusals.append(refused)
                break
        return self._parsed

    def _take(self, n: int) -> bytes:
        taken = self._body[self._at : self._at + n]
        if len(taken) < n:
            raise Refused("bad_frame", f"the body ends {n - len(taken)} bytes early")
        self._at += n
        return taken

    def _clock(self, n: int) -> int:
        """µs of a time in BCD: YYMMDDhhmm and seconds where it has six bytes."""
        return self._times[b"20" + self._take(n).hex().encode() + b"00" * (6 - n)]

    def _observed(self) -> None:
        self._time_us = self._clock(5)

    def _check_station(self) -> None:
        station = self._take(6)[:5]
        if station != self._station:
            raise Refused(
                "identity_mismatch", f"the frame is of {self._device}, its body of {station.hex().upper()}"
            )

    def _element(self, code: int) -> None:
        """One element: its code, its data definition, its value or values."""
        self._at += 1
        name = f"{code:02X}"
        if code == OWN:
            name += f"{self._take(1)[0]:02X}"
        definition = self._take(1)[0]
        size, decimals = definition >> 3, definition & 7
        if code in SERIES:
            size, count, units = SERIES[code]
            self._add_series(name, self._binary(size, count, units), self._step_us or FIVE_MINUTES_US)
        elif not size:
            raise Refused("wrong_shape", f"element {name} of no bytes")
        elif code == STEP and size == 3:
            days, hours, minutes = (_bcd_byte(b) for b in self._take(3))
            self._step_us = sum(n * us for n, us in zip((days, hours, minutes), _US_PER_STEP, strict=True))
        elif code == STATUS:
            self._add(name, self._time_us, float(int.from_bytes(self._take(size), "big")))
        elif self._step_us:
            count = self._count(size)
            values = [self._decimal(name, size, decimals) for _ in range(count)]
            self._add_series(name, iter(values), self._step_us)
            self._step_us = 0
        else:
            self._add(name, self._time_us, self._decimal(name, size, decimals))

    def _count(self, size: int) -> int:
        """How many values of a uniform period follow: all that is left, less a voltage at the end."""
        left = len(self._body) - self._at
        voltage = self._body[-4:-2] == b"\x38\x12" and left > 4 and not (left - 4) % size
        count, odd = divmod(left - 4 if voltage else left, size)
        if odd:
            raise Refused("bad_frame", f"{left} bytes are no values of {size} bytes each")
        return count

    def _decimal(self, name: str, size: int, decimals: int) -> float:
        """A number in BCD: FF throughout says no value, FF in front says minus."""
        text = self._take(size).hex()
        if text == "f" * len(text):
            return _NAN
        sign = 1
        if text[:2] == "ff":
            sign, text = -1, text[2:]
        if not text.isdecimal():
            raise Refused("wrong_type", f"element {name}: {text.upper()} is no BCD")
        return float(sign * int(text) / 10**decimals)

    def _binary(self, size: int, count: int, units: float) -> Iterator[float]:
        invalid = (1 << 8 * size) - 1
        data = self._take(size * count)
        for index in range(0, len(data), size):
            value = int.from_bytes(data[index : index + size], "big")
            yield _NAN if value == invalid else value / units

    def _add_series(self, name: str, values: Iterator[float], step_us: int) -> None:
        several = list(values)
        long_us = (len(several) - 1) * step_us
        last = self._series == "last" or (
            self._series == "auto" and self._time_us + long_us > max(self._sent_us, self._time_us)
        )
        first_us = self._time_us - (long_us if last else 0)
        for index, value in enumerate(several):
            self._add(name, first_us + index * step_us, value)

    def _add(self, name: str, time_us: int, value: float) -> None:
        if len(self._parsed) >= self._readings_max:
            raise Refused("too_many_readings", f"more than {self._readings_max}")
        self._parsed.add((self._device, name), time_us, value, MISSING if value != value else DEVICE_SILENT)


def _end(buffer: bytes, start: int) -> int:
    """Where the frame at ``start`` ends, as it says."""
    return start + HEAD + ((buffer[start + 11] & 0x0F) << 8 | buffer[start + 12]) + TAIL


class _Whole:
    """The frames of a buffer that are whole and right by their checksums, looked for once from the front to the end.

    What looks like frames may lie one within the other and thousands deep; no more bytes are counted up than
    SUMMED_TIMES the buffer's, and behind that none is found.
    """

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._left = SUMMED_TIMES * len(buffer)
        self._starts = (found.start() for found in _STARTS.finditer(buffer))
        self._next = -1

    def behind(self, start: int) -> int:
        """Where the next one begins behind ``start``, which never falls; -1 where none does."""
        while self._next <= start:
            self._next = next(self._starts, len(self._buffer))
            if self._next == len(self._buffer) or self._left < 0:
                self._next = len(self._buffer)
                return -1
            if self._next > start and not self._is_right(self._next):
                self._next = -1
        return self._next if self._next < len(self._buffer) else -1

    def _is_right(self, start: int) -> bool:
        buffer, end = self._buffer, _end(self._buffer, start)
        if end > len(buffer) or buffer[end - TAIL] not in _ENDS:
            return False
        self._left -= end - start
        return int.from_bytes(buffer[end - 2 : end], "big") == crc_modbus(buffer[start : end - 2])


def _held_back(buffer: bytes, at: int) -> int:
    """Where at the end of ``buffer`` a frame may have begun; its end where none has."""
    tail = max(at, len(buffer) - HEAD + 1)
    begun = buffer.find(MARK, tail)
    if begun >= 0:
        return begun
    return len(buffer) - 1 if len(buffer) > at and buffer[-1] == MARK[0] else len(buffer)


def _bcd_byte(byte: int) -> int:
    high, low = byte >> 4, byte & 0x0F
    if high > 9 or low > 9:
        raise Refused("bad_time", f"a time step with {byte:02X}")
    return high * 10 + low


def _from_text(payload: bytes) -> bytes:
    """The bytes of a frame that a gateway hands on as hexadecimal text."""
    try:
        return bytes.fromhex(payload.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise Refused("bad_frame", "hexadecimal text with other characters in it") from None
