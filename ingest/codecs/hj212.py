"""HJ 212: pollutant monitors, as text frames with a checksum of their own.

Owns frames, the head of the data segment, factors with their suffixes and flags, and what a device hears in answer.
Knows nothing of sockets or registries. Reads HJ 212-2017 and -2025 and the older HJ/T 212-2005.

A device sends the same names in the same order again and again. What they mean is worked out once, as a Shape; after
that a report costs one split and one look-up, whatever it holds. Once it came a few times with all flags normal, its
Layout reads it in one match (``common``); whatever that does not match goes the longer way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

import orjson

from ingest.codecs.base import Common, Key, Parsed
from ingest.codecs.bounded import Bounded
from ingest.codecs.checksums import crc_hj212
from ingest.codecs.clocktime import ClockTimes, field_zone
from ingest.codecs.hj212_layout import SEEN_MIN, Layout, Patterns
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT

HEAD: Final = 6
"""## and four digits: the length of the data segment."""
LENGTH_MIN: Final = 20
"""No data segment is shorter than its obligatory fields."""
KEPT_MAX: Final = 50_000
"""Heads, shapes and open reports remembered for a source; a peer that invents names must not fill memory."""
SPANS: Final = {
    b"2011": "real",
    b"2021": "real",
    b"2051": "minute",
    b"2061": "hour",
    b"2031": "day",
    b"2041": "day",
}
"""Uploads with readings (HJ 212-2017, 6.6.5): pollutants and devices' states in real time, minute, hour, day."""
ANSWERED_9014: Final = re.compile(rb"2\d\d\d|3020")
"""Uploads of data: answered by 9014 (HJ 212-2017, annex C)."""
ANSWERED_9013: Final = frozenset({b"1013", b"9015"})
"""Notices, answered by 9013: the request to set the clock, and the heartbeat of HJ 212-2025."""
ASKS: Final = 0x01
PARTS: Final = 0x02
"""Bits of Flag: the device expects an answer; the report comes in parts."""
FLAGS: Final = {
    "N": GOOD, "F": FAIL, "M": SUSPECT, "S": NOT_EVALUATED, "D": FAIL, "C": SUSPECT, "T": NOT_EVALUATED, "B": FAIL,
    "P": FAIL, "0": SUSPECT, "1": GOOD, "2": SUSPECT, "3": GOOD,
}  # fmt: skip
"""HJ 212-2017, table 8: normal, stopped, maintenance, by hand, defect, calibration, over range, line broken; HJ/T
212-2005: P no power, and for air 0 calibration, 1 weather, 2 doubtful, 3 normal. What is over its range is kept among
what is judged: the water may really be that high."""
NOT_NUMBERS: Final = frozenset({"Flag", "EFlag", "SampleTime", "Info", "SN", "CN"})
"""Suffixes of what is said about a factor."""

_FRAME = re.compile(rb"##(\d{4})")
_PARTIAL = re.compile(rb"#{1,2}\d{0,3}\Z")
_QN = re.compile(rb"QN=(\w{17});?")
_HEAD = re.compile(rb"(\w+)=([^;=&]*)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_TEXT = re.compile(rb"//.*?//", re.DOTALL)
_NOISE = b"\r\n\0 "
_TO_COMMA = bytes(0x2C if byte in b"=;" else byte for byte in range(256))
_BUT_SEPARATORS = bytes(byte for byte in range(256) if byte not in b"=;,&")
_PLAIN = re.compile(rb"[-0-9.,]+")
"""Not empty: one reading without a value would be no reading in the array that is made of it."""
_LEADING = frozenset({"Rtd", "Avg"})


Picker = Callable[[list[Any]], tuple[Any, ...]]


@dataclass(slots=True)
class Head:
    """What stands in front of CP, less QN: the same in every message of a device and kind.

    span    of the readings; "" where the command brings none
    answer  the answer's data segment behind QN; b"" where none is expected
    part    number of this part of a report; 0 where it is whole
    layout  of the report that came last behind it, once it came a few times
    """

    device: str
    command: bytes
    span: str
    answer: bytes
    part: int
    layout: Layout | None = None


@dataclass(slots=True)
class Shape:
    """What the names of one report mean.

    keys    one a reading; the same list each time, so that the binding need not look at it again
    values  picks the readings' texts out of all texts; flags: the texts of their flags, one a reading
    normal  what ``flags`` gives while all is well, and ``good`` what that means
    seen    how often it came with all flags normal, until it has its layout
    """

    keys: list[Key]
    values: Picker
    flags: Picker
    normal: tuple[bytes, ...]
    good: list[int]
    seen: int = 0
    layout: Layout | None = None


class Hj212:
    """HJ 212 in frames, over MQTT (one or several a message) or plain TCP. Device: MN; quantity: by settings."""

    name: ClassVar[str] = "hj212"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        own = settings.hj212
        self._own = own
        self._suffixes = frozenset(own.suffixes)
        self._readings_max = settings.readings_per_message_max
        self._flags = FLAGS | {"": DEVICE_SILENT} | settings.flags
        self._flag_of = {word.encode(): flag for word, flag in self._flags.items()}
        self._times = ClockTimes(field_zone(settings, zone))
        self._heads: Bounded[bytes, Head] = Bounded(KEPT_MAX)
        self._patterns = Patterns()
        self._shapes: Bounded[tuple[str, str, bytes, bytes], Shape | None] = Bounded(KEPT_MAX)
        self._open: Bounded[tuple[str, bytes], int] = Bounded(KEPT_MAX)
        """DataTime of reports in parts, by (MN, QN): only the first part may bring it."""

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """The readings of one frame, or of several one after the other."""
        found = _FRAME.match(payload)
        if found:
            end = HEAD + int(found[1])
            if len(payload) == end + 4 or (len(payload) == end + 6 and payload[-2:] == b"\r\n"):
                return self._frame(payload[HEAD:end], payload[end : end + 4])
        frames, used = self.split(payload)
        if not frames and not used:
            raise Refused("bad_frame", "expected ##, four digits, and as many bytes as they say")
        whole = Parsed()
        for frame in frames:
            try:
                if isinstance(frame, Refused):
                    raise frame
                _join(whole, self.parse(topic, frame))
            except Refused as refused:
                whole.refusals.append(_with(refused, b"" if isinstance(frame, Refused) else frame))
        rest = payload[used:].strip(_NOISE)
        if rest:
            whole.refusals.append(Refused("bad_frame", "the message ends inside a frame", raw=rest))
        if len(whole.keys) > self._readings_max:
            raise Refused("too_many_readings", f"{len(whole.keys)}, at most {self._readings_max}")
        return whole

    def common(self, payload: bytes) -> Common | None:
        """A report of a layout that its device sent before; None for everything else."""
        end = len(payload) - (6 if payload[-2:] == b"\r\n" else 4)
        at = payload.find(b"CP=&&", HEAD)
        qn = b""
        if payload[6:9] == b"QN=" and payload[26:27] == b";":
            qn, front = payload[9:26], payload[27:at]
        else:
            front = payload[HEAD:at]
            if b"QN=" in front:
                return None
        head = self._heads.get(front)
        if head is None or head.layout is None:
            return None
        layout = head.layout
        found = layout.fullmatch(payload, at, end)
        if found is None or payload[:HEAD] != b"##%04d" % (end - HEAD):
            return None
        if payload[end : end + 4].upper() != b"%04X" % crc_hj212(payload[HEAD:end]):
            return None
        stamp, *texts = found.groups()
        try:
            values = orjson.loads(b"[%b]" % b",".join(texts))
            time_us = self._times[stamp]
        except (orjson.JSONDecodeError, Refused):
            return None
        answer = framed(b"QN=" + qn + head.answer) if head.answer and qn else b""
        return Common(layout.keys, time_us, values, layout.flags, answer)

    def split(self, buffer: bytes) -> tuple[list[bytes | Refused], int]:
        """Whole frames from the start of ``buffer``, without their line ends, and the bytes used."""
        frames: list[bytes | Refused] = []
        at, size = 0, len(buffer)
        while True:
            found = _FRAME.search(buffer, at)
            start = found.start() if found else _held_back(buffer, at)
            if buffer[at:start].strip(_NOISE):
                frames.append(Refused("bad_frame", "no frame begins here", raw=buffer[at:start]))
            if found is None:
                return frames, start
            end = HEAD + start + int(found[1]) + 4
            if buffer[end - 6 : end - 4] != b"&&" or end > size:
                # Another frame inside one: its length, or its end, was lost on the way.
                inner = _FRAME.search(buffer, start + 2, min(end, size))
                if inner is None and end > size:
                    return frames, start
                end = inner.start() if inner else end
                frames.append(
                    Refused("bad_frame", "its length is not that of its text", raw=buffer[start:end])
                )
            else:
                frames.append(buffer[start:end])
            at = end

    def _frame(self, segment: bytes, crc: bytes) -> Parsed:
        if len(segment) < LENGTH_MIN:
            raise Refused("bad_frame", f"a data segment of {len(segment)} bytes")
        if crc.upper() != b"%04X" % crc_hj212(segment):
            raise Refused(
                "bad_crc", f"{crc_hj212(segment):04X} expected, {crc.decode(errors='replace')} sent"
            )
        front, found, rest = segment.partition(b"CP=&&")
        if not found or rest[-2:] != b"&&":
            raise Refused("bad_frame", "no CP=&& … &&")
        qn = b""
        if front[:3] == b"QN=" and front[20:21] == b";":
            qn, front = front[3:20], front[21:]
        elif b"QN=" in front and (elsewhere := _QN.search(front)):
            qn, front = elsewhere[1], front[: elsewhere.start()] + front[elsewhere.end() :]
        head = self._heads.get(front)
        if head is None:
            head = self._head(front)
            self._heads[front] = head
        parsed = self._report(head, qn, rest[:-2]) if head.span else Parsed()
        if head.answer and qn:
            parsed.answers.append(framed(b"QN=" + qn + head.answer))
        return parsed

    def _head(self, front: bytes) -> Head:
        fields = dict(_HEAD.findall(front))
        try:
            device, command = fields[b"MN"].decode("ascii"), fields[b"CN"]
            flag = int(fields.get(b"Flag") or b"0")
            part = int(fields.get(b"PNO") or b"0") if flag & PARTS else 0
        except (KeyError, ValueError):
            raise Refused("bad_frame", "no MN, CN or a Flag that is no number") from None
        if not device:
            raise Refused("no_id", "MN is empty")
        if self._own.password is not None and fields.get(b"PW") != self._own.password.encode():
            raise Refused("not_allowed", "another password (PW) than the source's")
        span = SPANS.get(command, "")
        answer = b""
        if flag & ASKS and self._own.answer:
            code = 9014 if ANSWERED_9014.fullmatch(command) else 9013 if command in ANSWERED_9013 else 0
            # The version's bits are the device's own; it is told no parts and asked nothing.
            words = code, fields.get(b"PW", b""), fields[b"MN"], flag & 0xFC
            answer = b";ST=91;CN=%d;PW=%b;MN=%b;Flag=%d;CP=&&&&" % words if code else b""
        return Head(device, command, span if span in self._own.spans else "", answer, part)

    def _report(self, head: Head, qn: bytes, text: bytes) -> Parsed:
        time_us = None
        whole = text[:9] == b"DataTime=" and not head.part
        if text[:9] == b"DataTime=":
            stamp, _, text = text[9:].partition(b";")
            time_us = self._times[stamp]
            if head.part:
                self._open[head.device, qn] = time_us
        elif head.part:
            time_us = self._open.get((head.device, qn))
        parts = text.translate(_TO_COMMA).split(b",")
        names = parts[::2]
        shape_key = head.device, head.span, text.translate(None, _BUT_SEPARATORS), b",".join(names)
        shape = self._shapes.get(shape_key, _UNSEEN)
        if shape is _UNSEEN:
            shape = self._shape(head, shape_key[2], names)
            self._shapes[shape_key] = shape
        if shape is None:
            return self._careful(head, text, time_us)
        parts.append(b"")  # where factors without a flag look for one
        values = b",".join(shape.values(parts))
        if _PLAIN.fullmatch(values) is None:
            return self._careful(head, text, time_us)
        try:
            numbers = orjson.loads(b"[%b]" % values)
        except orjson.JSONDecodeError:
            return self._careful(head, text, time_us)
        said = shape.flags(parts)
        if said != shape.normal:
            flags = [self._flag_of.get(word, SUSPECT) for word in said]
        else:
            flags = shape.good[:]
            if whole and (shape.layout is None or head.layout is not shape.layout):
                self._learn(head, shape, shape_key[2], names)
        return Parsed(shape.keys, [time_us] * len(numbers), numbers, flags)

    def _shape(self, head: Head, separators: bytes, names: list[bytes]) -> Shape | None:
        """What these names mean; None for what is not plain: one "name=value" after the other, in ASCII."""
        if re.fullmatch(rb"=(?:[;,]=)*", separators) is None or not b"".join(names).isascii():
            return None
        at_flag = {name[:-5]: 2 * i + 1 for i, name in enumerate(names) if name.endswith(b"-Flag")}
        keys: list[Key] = []
        values, flags = [], []
        for index, name in enumerate(names):
            if name != name.strip() or name == b"DataTime":
                return None
            factor, _, suffix = name.rpartition(b"-")
            quantity = self._quantity(factor.decode(), suffix.decode(), head.span) if factor else None
            if quantity is not None:
                keys.append((head.device, quantity))
                values.append(2 * index + 1)
                flags.append(at_flag.get(factor, -1))
        if not keys or len(keys) > self._readings_max:
            return None
        normal = tuple(b"" if flag < 0 else b"N" for flag in flags)
        return Shape(keys, _picker(values), _picker(flags), normal, [self._flag_of[word] for word in normal])

    def _learn(self, head: Head, shape: Shape, separators: bytes, names: list[bytes]) -> None:
        """Count a report with normal flags; give its head the layout by which the next one is read at once."""
        shape.seen += 1
        if shape.seen == SEEN_MIN:
            places = [*range(2 * len(names)), -1]
            readings = {place // 2 for place in shape.values(places)}
            flags = {place // 2 for place in shape.flags(places) if place >= 0}
            match = self._patterns.of(names, separators, readings, flags)
            said = bytes(shape.good) if any(shape.good) else b""
            shape.layout = match and Layout(shape.keys, said, match)
        if shape.layout is not None:
            head.layout = shape.layout

    def _quantity(self, factor: str, suffix: str, span: str) -> str | None:
        """The quantity of a name; None where it is no reading, or one nobody wants."""
        if suffix in NOT_NUMBERS or (self._suffixes and suffix not in self._suffixes):
            return None
        tail = "" if span == "real" else f"-{span}"
        if self._own.quantity == "factor":
            return f"{factor}{tail}" if suffix in _LEADING else None
        return f"{factor}-{suffix}{tail}"

    def _careful(self, head: Head, text: bytes, time_us: int | None) -> Parsed:
        """A report field by field: what is not plain, and what is wrong with it."""
        fields = []
        flags: dict[str, int] = {}
        for field in re.split(rb"[;,]", _TEXT.sub(b"", text)):
            name, equals, said = field.decode(errors="replace").partition("=")
            factor, _, suffix = name.strip().rpartition("-")
            if name == "DataTime":
                time_us = self._times[said.encode()]
            elif not factor:
                continue
            elif suffix == "Flag":
                flags[factor] = self._flags.get(said.strip(), SUSPECT)
            elif (quantity := self._quantity(factor, suffix, head.span)) is not None:
                fields.append((factor, quantity, said.strip() if equals else None, field))
        if len(fields) > self._readings_max:
            raise Refused("too_many_readings", f"{len(fields)}, at most {self._readings_max}")
        parsed = Parsed()
        for factor, quantity, value, field in fields:
            flag = flags.get(factor, DEVICE_SILENT)
            if value == "":
                parsed.add((head.device, quantity), time_us, float("nan"), flag or MISSING)
            elif value is not None and _NUMBER.fullmatch(value):
                parsed.add((head.device, quantity), time_us, float(value), flag)
            else:
                parsed.refusals.append(Refused("wrong_type", f"{quantity}: no number", raw=field))
        return parsed


_UNSEEN: Final[Any] = object()


def _picker(places: list[int]) -> Picker:
    """Takes the texts at ``places``; an itemgetter of one place alone gives no tuple."""
    if len(places) == 1:
        return lambda texts, place=places[0]: (texts[place],)  # type: ignore[misc]
    return itemgetter(*places)


def framed(segment: bytes) -> bytes:
    """A data segment as it goes over the wire.

    >>> framed(b"QN=20160801085000001;ST=91;CN=9014;PW=123456;MN=010000A8900016F000169DC0;Flag=4;CP=&&&&")[-8:]
    b'&&C241\\r\\n'
    """
    return b"##%04d%b%04X\r\n" % (len(segment), segment, crc_hj212(segment))


def _held_back(buffer: bytes, at: int) -> int:
    """Where at the end of ``buffer`` a frame may have begun; its end where none has."""
    found = _PARTIAL.search(buffer, max(at, len(buffer) - HEAD))
    return found.start() if found else len(buffer)


def _join(whole: Parsed, one: Parsed) -> None:
    whole.keys += one.keys
    whole.times += one.times
    whole.values += one.values
    whole.flags += one.flags
    whole.refusals += one.refusals
    whole.answers += one.answers


def _with(refused: Refused, raw: bytes) -> Refused:
    """A refusal with the bytes of its part of the message."""
    refused.raw = refused.raw or raw
    return refused
