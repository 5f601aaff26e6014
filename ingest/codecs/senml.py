"""SenML (RFC 8428), JSON and CBOR: records with base fields to readings.

Owns the resolving of base fields, the versions and the labels of CBOR. Units (u, bu) are not used: what a quantity is
measured in, and how it is converted, is said by the source, once, and not by each record.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from io import BytesIO
from itertools import pairwise
from math import isfinite, isnan
from operator import itemgetter
from typing import Any, ClassVar, Final, cast
from zoneinfo import ZoneInfo

import cbor2
import orjson

from ingest.codecs.base import Key, Parsed
from ingest.codecs.naming import NamePattern, device_in_topic, split_name
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, MISSING

RELATIVE_S: Final = 1 << 28
"""RFC 8428, 4.5.3: times below this are seconds from now."""
TIME_S_MAX: Final = 1 << 40
"""Beyond any calendar; keeps µs inside int64."""
FEATURES: Final = 10 | 1 << 4
"""RFC 8428, 4.4: version 10 and, as RFC 9100 reads it as bits, secondary units. We take no unit from a record, so that
feature asks nothing of us."""
NAMES_KEPT_MAX: Final = 100_000
"""Names whose key is remembered for a source; a peer that invents names must not fill memory."""
COLUMNS_MIN: Final = 3
"""Records from which on columns are cheaper than one by one."""
SUM_SUFFIX: Final = ".sum"
"""A record's sum is a quantity of its own: "flow" and "flow.sum"."""

Record = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9:./_]*")
_VALUES: Final = ("v", "vb", "vs", "vd")
_BASE: Final = frozenset({"bn", "bt", "bu", "bv", "bs", "bver"})
_NUMBERS: Final = frozenset({int, float})
_INTEGERS: Final = frozenset({int})
_PLAIN: Final = frozenset({"n", "v", "t", "u"})
_DEFAULTS: Final[Record] = {"t": 0, "u": ""}
_LEAST: Final = frozenset({"n", "v"})
_GET_N, _GET_V, _GET_T, _GET_U = (itemgetter(label) for label in "nvtu")
CBOR_LABELS: Final = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s",
    6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
"""RFC 8428, table 4 (section 6)."""
_JSON_LABELS: Final = frozenset(CBOR_LABELS.values())


class _Keys(dict[str, Key]):
    """Resolved name to key, checked and taken apart at its first sight."""

    def __init__(self, key_of: Callable[[str], Key]) -> None:
        super().__init__()
        self._key_of = key_of

    def __missing__(self, name: str) -> Key:
        key = self._key_of(name)
        if len(self) < NAMES_KEPT_MAX:
            self[name] = key
        return key


class _Base:
    """The base fields in force. Raises Refused for one that cannot be: what follows would mean something else."""

    __slots__ = ("n", "s", "t", "v")

    def __init__(self) -> None:
        self.n = ""
        self.t: float = 0
        self.v: float = 0
        self.s: float = 0

    def take(self, record: Record) -> None:
        """Base fields of one record, in force from it on."""
        if "bver" in record:
            version = record["bver"]
            if type(version) is not int or version < 1 or (version > 10 and version & ~FEATURES):
                raise Refused("wrong_version", f"bver {version!r:.20}: 10 is read here")
        if "bn" in record:
            if type(record["bn"]) is not str:
                raise Refused("wrong_type", "bn is no text: whose records follow cannot be known")
            self.n = record["bn"]
        for label, field in (("bt", "t"), ("bv", "v"), ("bs", "s")):
            if label in record:
                setattr(self, field, _number(record[label], label))


class Senml:
    """SenML in JSON. Relative times become ``offsets``; no time at all is now, as the RFC has it."""

    name: ClassVar[str] = "senml"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        pattern = settings.senml.name
        self._pattern = NamePattern(pattern) if pattern else None
        self._in_topic = device_in_topic(settings)
        self._readings_max = settings.readings_per_message_max
        self._of_base: dict[str, _Keys] = {}
        self._shapes: dict[tuple[str, int, str], list[Key]] = {}
        self._shape_keys = 0

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """The readings of one pack."""
        pack = self._records(payload)
        if len(pack) > self._readings_max:
            raise Refused("too_many_readings", f"{len(pack)} records, at most {self._readings_max}")
        if not pack:
            raise Refused("wrong_shape", "an empty pack holds no reading")
        parsed = Parsed()
        base = _Base()
        if self._at_once(base, pack, parsed):
            return parsed
        # Several devices may be in one pack: each begins with base fields of its own.
        begins = [i for i, r in enumerate(pack) if i and type(r) is dict and not _BASE.isdisjoint(r)]
        for begin, end in pairwise([0, *begins, len(pack)]):
            records = pack[begin:end]
            parsed.keys = list(parsed.keys)
            if not self._at_once(base, records, parsed):
                for record in records:
                    self._slowly(base, record, parsed)
        return parsed

    def spoken(self, payload: bytes) -> list[tuple[bytes, Key]]:
        """See ingest.codecs.base.SpokenCodec: resolved names, each once."""
        base, named = "", {}
        try:
            for record in self._records(payload):
                base = record.get("bn", base)
                name = record.get("n", "")
                named[base + name] = self._keys(base)[name]
        except (AttributeError, TypeError, Refused):
            return []
        return [(name.encode(), key) for name, key in named.items()]

    def _records(self, payload: bytes) -> list[Any]:
        try:
            pack = orjson.loads(payload)
        except orjson.JSONDecodeError as fault:
            text = str(fault)
            raise Refused("not_finite" if "infinity" in text else "bad_json", text) from None
        if type(pack) is not list:
            raise Refused("wrong_shape", f"a SenML pack is an array, not {type(pack).__name__}")
        return pack

    def _at_once(self, base: _Base, records: list[Any], parsed: Parsed) -> bool:
        """Records of which only the first has base fields, if all have the same few others; else False."""
        if len(records) < COLUMNS_MIN:
            return False
        first, second = records[0], records[1]
        if type(first) is not dict or type(second) is not dict or not second.keys() <= _PLAIN:
            return False
        base.take(first)
        head = {label: value for label, value in first.items() if label not in _BASE}
        if head:
            # The first often tells the base time and no time of its own: that is time 0.
            head = {label: _DEFAULTS[label] for label in second if label in _DEFAULTS} | head
            return self._columns(base, [head, *records[1:]], parsed)
        return self._columns(base, records[1:], parsed)

    def _columns(self, base: _Base, records: list[Any], parsed: Parsed) -> bool:
        """All records at once where each has the same few fields and nothing is wrong; else False and nothing is taken.

        No loop in Python: this is what a large pack's reading costs.
        """
        head = records[0]
        if base.v or base.s or not _PLAIN >= head.keys() >= _LEAST:
            return False
        try:
            if sum(map(len, records)) != len(head) * len(records):
                return False
            values = list(map(_GET_V, records))
            keys = self._shape(base.n, list(map(_GET_N, records)))
            times = self._times(base.t, records, "t" in head)
            if "u" in head:
                deque(map(_GET_U, records), maxlen=0)
            if not self._all_numbers(values):
                return False
            values = list(map(float, values))
        except (KeyError, TypeError, ValueError, OverflowError, Refused):
            return False
        parsed.keys = parsed.keys + keys if parsed.keys else keys
        parsed.values += values
        parsed.times += times
        parsed.flags += [DEVICE_SILENT] * len(records)
        return True

    @staticmethod
    def _all_numbers(values: list[Any]) -> bool:
        """Whether all are numbers; JSON knows none that is not finite."""
        return set(map(type, values)) <= _NUMBERS

    @staticmethod
    def _times(base: float, records: list[Record], own: bool) -> list[int | None]:
        """µs of records that all tell an absolute time. Raises ValueError where one is relative or out of bounds."""
        if not own:
            offset, time_us = _time(base)
            if offset is not None or time_us is None:
                raise ValueError
            return [time_us] * len(records)
        seconds = list(map(_GET_T, records))
        types = set(map(type, seconds))
        if not types <= _NUMBERS or not RELATIVE_S - base <= min(seconds) <= max(seconds) < TIME_S_MAX - base:
            raise ValueError
        if types == _INTEGERS and type(base) is int:
            start = base * 1_000_000
            return [start + t * 1_000_000 for t in seconds]
        return [round((base + t) * 1e6) for t in seconds]

    def _keys(self, base_name: str) -> _Keys:
        """Names under one base name to keys."""
        keys = self._of_base.get(base_name)
        if keys is None:
            if len(self._of_base) >= NAMES_KEPT_MAX:
                self._of_base.clear()
            keys = self._of_base[base_name] = _Keys(lambda name: self._key(base_name + name))
        return keys

    def _shape(self, base_name: str, names: list[str]) -> list[Key]:
        """Keys of many records. The same names get the same list again: it is not to be changed."""
        # One text hashes faster than many; no good name holds a NUL, so that it stands for them and no others.
        shape = (base_name, len(names), "\0".join(names))
        known = self._shapes.get(shape)
        if known is None:
            known = list(map(self._keys(base_name).__getitem__, names))
            self._shape_keys += len(known)
            if self._shape_keys > NAMES_KEPT_MAX:
                self._shapes.clear()
                self._shape_keys = len(known)
            self._shapes[shape] = known
        return known

    def _key(self, name: str) -> Key:
        if not _NAME.fullmatch(name):
            raise Refused("bad_name", f'"{name[:60]}": RFC 8428 allows letters, digits and -:./_')
        if self._pattern is None:
            return ("", name) if self._in_topic else split_name(name)
        key = self._pattern.key(name)
        if key is None:
            raise Refused("bad_name", f'"{name[:60]}" is not of the form "{self._pattern.pattern}"')
        return key

    def _slowly(self, base: _Base, record: Any, parsed: Parsed) -> None:
        """One record, whatever it holds."""
        if type(record) is not dict:
            parsed.refusals.append(Refused("wrong_shape", "a record is an object"))
            return
        for label in record:
            if type(label) is str and label.endswith("_"):
                raise Refused("wrong_shape", f'"{label[:40]}" must be understood, and is not')
        base.take(record)
        if record.keys() <= _BASE and not record.keys() & {"bv", "bs"}:
            return
        try:
            self._record(base, record, parsed)
        except Refused as refused:
            parsed.refusals.append(refused)

    def _record(self, base: _Base, record: Record, parsed: Parsed) -> None:
        name = record.get("n", "")
        if type(name) is not str:
            raise Refused("wrong_type", f"n is {type(name).__name__}, expected text")
        if not base.n and not name:
            raise Refused("no_id", "neither bn nor n")
        key = self._keys(base.n)[name]
        offset, time_us = _time(base.t + _number(record.get("t", 0), "t"))
        readings = []
        present = [label for label in _VALUES if label in record]
        if len(present) > 1:
            raise Refused("wrong_shape", f"{present[0]} and {present[1]} in one record")
        has_sum = "s" in record or base.s != 0
        if present or "bv" in record or not has_sum:
            readings.append((key, _value(record, present, base.v)))
        if has_sum:
            total = base.s + _number(record.get("s", 0), "s")
            readings.append(((key[0], key[1] + SUM_SUFFIX), float(_finite(total, "s"))))
        for whose, value in readings:
            if offset is not None:
                parsed.offsets[len(parsed)] = offset
            parsed.add(whose, time_us, value, MISSING if isnan(value) else DEVICE_SILENT)


class SenmlCbor(Senml):
    """SenML in CBOR (RFC 8428, 6): small integers for labels."""

    name: ClassVar[str] = "senml-cbor"

    def _records(self, payload: bytes) -> list[Any]:
        stream = BytesIO(payload)
        try:
            pack = cbor2.load(stream)
        except Exception as fault:  # its decoders of tags raise what they like
            raise Refused("bad_cbor", f"{type(fault).__name__}: {fault}") from None
        if type(pack) is not list:
            raise Refused("wrong_shape", f"a SenML pack is an array, not {type(pack).__name__}")
        if stream.tell() != len(payload):
            raise Refused("bad_cbor", f"{len(payload) - stream.tell()} bytes behind the pack")
        return list(map(_labelled, pack))

    @staticmethod
    def _all_numbers(values: list[Any]) -> bool:
        return set(map(type, values)) <= _NUMBERS and all(map(isfinite, values))


def _labelled(record: Any) -> Any:
    """A record with the labels of JSON; exact decimals as floats."""
    if type(record) is not dict:
        return record
    return {_label(label): float(v) if type(v) is Decimal else v for label, v in record.items()}


def _label(label: Any) -> Any:
    """JSON's name of a label. Text that looks like one is something else: CBOR has numbers for these."""
    if type(label) is int:
        return CBOR_LABELS.get(label, label)
    return f"text {label}" if label in _JSON_LABELS else label


def _number(value: object, label: str) -> float:
    if type(value) not in _NUMBERS:
        raise Refused("wrong_type", f"{label} is {type(value).__name__}, expected a number")
    return _finite(cast("float", value), label)


def _finite(value: float, label: str) -> float:
    try:
        if not isfinite(value):
            raise Refused("not_finite", f"{label} is not finite")
    except OverflowError:
        raise Refused("not_finite", f"{label} is too large for a double") from None
    return value


def _value(record: Mapping[str, Any], present: Sequence[str], base: float) -> float:
    """The one value of a record, base value added. NaN, which only CBOR can hold, is a missing value."""
    if not present:
        if "bv" not in record:
            raise Refused("no_value", "none of v, vb, vs, vd and s")
        return float(base)
    label = present[0]
    value = record[label]
    if label == "vb":
        if type(value) is not bool:
            raise Refused("wrong_type", f"vb is {type(value).__name__}, expected true or false")
        return float(value)
    if label in ("vs", "vd"):
        raise Refused(
            "wrong_type", f"{label} is {'text' if label == 'vs' else 'bytes'}; a point holds numbers"
        )
    if type(value) is float and isnan(value):
        return value
    return float(_finite(base + _number(value, "v"), "v"))


def _time(seconds: float) -> tuple[int | None, int | None]:
    """(µs from the receipt, µs since 1970 UTC) of a resolved time: one of the two; neither for exactly now."""
    if not -TIME_S_MAX < seconds < TIME_S_MAX:
        raise Refused("bad_time", f"{seconds!r:.40} s is no time")
    us = seconds * 1_000_000 if type(seconds) is int else round(seconds * 1e6)
    if seconds >= RELATIVE_S:
        return None, us
    return (us or None), None
