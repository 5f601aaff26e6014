"""Whole rounds of PUBLISH packets, made ahead: every point once, and where in the bytes its digits stand.

Owns the bytes of what the generator sends, both MQTT versions, QoS 0 and 1, one reading a message or arrays, in
several forms of JSON. Knows nothing of sockets or time: bench.load.kernels writes the digits. What was written is
added up by reading, so that the lake can be asked for exactly that.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from bench.load import kernels
from ingest.simulate.city_kinds import KindSim, load_kinds
from ingest.simulate.encode import MQTT_5, remaining_length
from ingest.simulate.fleet import Fleet
from ingest.simulate.scenario import Scenario
from ingest.simulate.values import Values
from storage.batch import F64, I64, U8

FormName = Literal["plain", "reordered", "spaced", "iso", "mix"]
FORMS: Final[dict[str, tuple[bytes, bytes]]] = {
    "plain": (b'{%s"ts":\0,"v":\1}', b""),
    "reordered": (b'{"v":\1,%s"ts":\0}', b""),
    "spaced": (b'{ %s"ts" : \0, "v" : \1 }', b""),
    "iso": (b'{%s"ts":"\0+08:00","v":\1}', b"+08:00"),
}
"""Of a reading: %s is the point's id in arrays, \\0 its time, \\1 its value. "mix" gives each point one of them."""
MIXED: Final = tuple(FORMS)
ISO_OFFSET_MS: Final = 8 * 3_600_000
STEADY_S: Final = 3600.0
LAST_DIGITS: Final = 10
"""Of a moving value the last digit is drawn anew each time: the text keeps its length."""


@dataclass(frozen=True, slots=True)
class Wording:
    """What a point's value looks like: ``text`` as sent first, and whether its last digit moves.

    base  the value with a last digit of 0, in units of the last decimal; a negative one grows away from zero
    """

    text: bytes
    moves: bool
    base: int
    decimals: int


@dataclass(slots=True)
class Stream:
    """One round of n readings in m messages over c connections.

    wire       uint8          all packets, connection by connection
    offsets    int64 [m + 1]  where each message begins
    first      int64 [m + 1]  its first reading
    id_at      int64 [m]      its packet id; -1 at QoS 0
    borders    int64 [c + 1]  first message of each connection
    ts_at, vary_at  int64 [n]  its time; its last digit, -1 where it stays
    iso_offset_ms   int64 [n]  -1 where its time is a number
    row        int64 [n]      its row in the fleet
    base       int64 [n], decimals uint8 [n], sign int64 [n]  value = sign * (base + digit) / 10 ** decimals
    last_ms, count, ms_sum, digit_sum  int64 [n]  what was written so far; ms_sum counts from ``since_ms``
    """

    wire: U8
    offsets: I64
    first: I64
    id_at: I64
    borders: I64
    ts_at: I64
    vary_at: I64
    iso_offset_ms: I64
    row: I64
    base: I64
    sign: I64
    decimals: U8
    since_ms: int
    last_ms: I64 = field(init=False)
    count: I64 = field(init=False)
    ms_sum: I64 = field(init=False)
    digit_sum: I64 = field(init=False)
    noise: int = 1

    def __post_init__(self) -> None:
        self.last_ms, self.count, self.ms_sum, self.digit_sum = (
            np.zeros(len(self.ts_at), np.int64) for _ in range(4)
        )

    def __len__(self) -> int:
        return len(self.id_at)

    def stamp(self, begin: int, end: int, now_ms: int, next_id: int) -> tuple[int, int, int]:
        """Make messages ``begin`` … ``end`` ready to be sent: (first byte, last byte, packet id after them)."""
        next_id, self.noise = kernels.stamp(
            self.wire, self.first, self.ts_at, self.iso_offset_ms, self.vary_at, self.id_at, self.last_ms,
            self.count, self.ms_sum, self.digit_sum, begin, end, now_ms, self.since_ms, next_id, self.noise,
        )  # fmt: skip
        return int(self.offsets[begin]), int(self.offsets[end]), next_id

    def save(self, path: Path) -> None:
        """What was written, for who counts it in the lake: row, count, ms_sum, value_sum by reading.

        ms_sum    of the readings' times, ms since ``since_ms``
        value_sum of the readings' values in units of 10 ** -decimals
        """
        np.savez(
            path,
            row=self.row,
            count=self.count,
            ms_sum=self.ms_sum,
            value_sum=self.sign * (self.base * self.count + self.digit_sum),
            decimals=self.decimals,
            since_ms=self.since_ms,
        )


def wordings(fleet: Fleet, city_dir: Path, seed: int = 1) -> list[Wording]:
    """A calm value of each point of the fleet; it moves where the last digit cannot raise an alert.

    Rain stays as it is: what it says each second would add up.
    """
    kinds = load_kinds(city_dir)
    values = Values(fleet, kinds, Scenario("steady", seed, STEADY_S), fleet.box())
    quantised = values.quantised(0)
    still = np.array([kinds[k].noise == 0 or (kinds[k].storm or "").startswith("rain") for k in fleet.kinds])
    base = quantised // LAST_DIGITS * LAST_DIGITS
    low, high = _calm_span(fleet, kinds)
    scale = 10.0 ** values.decimals.astype(np.float64)
    moves = (
        ~still[fleet.kind]
        & (quantised >= 0)
        & (base / scale >= low)
        & ((base + LAST_DIGITS - 1) / scale <= high)
    )
    return [
        _wording(int(q), int(p), bool(m))
        for q, p, m in zip(quantised, values.decimals.tolist(), moves.tolist(), strict=True)
    ]


def _calm_span(fleet: Fleet, kinds: Mapping[str, KindSim]) -> tuple[F64, F64]:
    low = np.array([kinds[k].low for k in fleet.kinds])[fleet.kind]
    high = np.array([kinds[k].high for k in fleet.kinds])[fleet.kind]
    return np.fmax(low, fleet.range_min), np.fmin(high, fleet.range_max)


def _wording(quantised: int, decimals: int, moves: bool) -> Wording:
    digits = f"{abs(quantised):0{decimals + 1}d}"
    text = digits[:-decimals] + "." + digits[-decimals:] if decimals else digits
    sign = "-" if quantised < 0 else ""
    base = abs(quantised) // LAST_DIGITS * LAST_DIGITS if moves else abs(quantised)
    return Wording((sign + text).encode(), moves, base, decimals)


@dataclass(frozen=True, slots=True)
class Shape:
    """How readings become messages. ``batch`` 1 is one a message on the point's own topic; N an array on its
    gateway's ``gateway_topic``."""

    qos: int = 0
    batch: int = 1
    form: FormName = "plain"
    gateway_topic: str = "cd/{gateway}/batch"


def compose(
    fleet: Fleet, words: Sequence[Wording], shape: Shape, versions: Sequence[int], since_ms: int
) -> Stream:
    """The round of ``fleet`` in its own order, dealt to as many connections as there are ``versions``.

    Points of one gateway should stand together. A connection gets whole messages. Raises ValueError for more
    connections than messages.
    """
    groups = _groups(fleet, shape.batch)
    if len(versions) > len(groups):
        raise ValueError(f"{len(versions)} connections for {len(groups)} messages a round")
    borders = np.arange(len(versions) + 1, dtype=np.int64) * len(groups) // len(versions)
    names = [shape.form] * len(fleet) if shape.form != "mix" else _mixed(fleet)
    packets: list[bytes] = []
    ids: list[int] = []
    ts_at: list[int] = []
    vary_at: list[int] = []
    at = 0
    for connection, version in enumerate(versions):
        for begin, end in groups[borders[connection] : borders[connection + 1]]:
            head, id_at, body, times, digits = _message(fleet, words, names, shape, version, begin, end)
            packets += [head, body]
            ids.append(at + id_at if shape.qos else -1)
            at += len(head)
            ts_at += [at + t for t in times]
            vary_at += [at + d if d >= 0 else -1 for d in digits]
            at += len(body)
    sizes = np.array([len(h) + len(b) for h, b in zip(packets[::2], packets[1::2], strict=True)], np.int64)
    order = np.arange(len(fleet))
    return Stream(
        wire=np.frombuffer(b"".join(packets), np.uint8).copy(),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        first=np.array([begin for begin, _ in groups] + [len(fleet)], np.int64),
        id_at=np.array(ids, np.int64),
        borders=borders,
        ts_at=np.array(ts_at, np.int64),
        vary_at=np.array(vary_at, np.int64),
        iso_offset_ms=np.array([ISO_OFFSET_MS if name == "iso" else -1 for name in names], np.int64),
        row=order,
        base=np.array([w.base for w in words], np.int64),
        sign=np.array([-1 if w.text.startswith(b"-") else 1 for w in words], np.int64),
        decimals=np.array([w.decimals for w in words], np.uint8),
        since_ms=since_ms,
    )


def _groups(fleet: Fleet, batch: int) -> list[tuple[int, int]]:
    """Rows of each message: one, or up to ``batch`` of one gateway."""
    if batch == 1:
        return [(row, row + 1) for row in range(len(fleet))]
    changes = np.flatnonzero(np.diff(fleet.gateway)) + 1
    bounds = [0, *changes.tolist(), len(fleet)]
    return [
        (begin, min(begin + batch, last))
        for start, last in itertools.pairwise(bounds)
        for begin in range(start, last, batch)
    ]


def _mixed(fleet: Fleet) -> list[str]:
    """A form for each point, by its id: the same in every process."""
    return [MIXED[zlib.crc32(p.encode()) % len(MIXED)] for p in fleet.point_id]


def _message(
    fleet: Fleet,
    words: Sequence[Wording],
    names: Sequence[str],
    shape: Shape,
    version: int,
    begin: int,
    end: int,
) -> tuple[bytes, int, bytes, list[int], list[int]]:
    """Head and payload of one PUBLISH; in the head its packet id's place, in the payload those of times and digits."""
    arrays = shape.batch > 1
    parts: list[bytes] = []
    times: list[int] = []
    digits: list[int] = []
    at = int(arrays)
    for row in range(begin, end):
        named = b'"id":"' + fleet.point_id[row].encode() + b'",' if arrays else b""
        text, time_at, digit_at = _reading(names[row], named, words[row])
        times.append(at + time_at)
        digits.append(at + digit_at if digit_at >= 0 else -1)
        parts.append(text)
        at += len(text) + 1
    body = b"[" + b",".join(parts) + b"]" if arrays else parts[0]
    topic = fleet.topic[begin]
    if arrays:
        topic = shape.gateway_topic.replace("{gateway}", fleet.gateways[fleet.gateway[begin]])
    head, id_at = publish_head(topic, len(body), shape.qos, version)
    return head, id_at, body, times, digits


def _reading(name: str, named: bytes, word: Wording) -> tuple[bytes, int, int]:
    """A reading's JSON, where its time stands and where its last digit (-1: it stays)."""
    template = FORMS[name][0].replace(b"%s", named)
    width = kernels.ISO_CHARS if name == "iso" else kernels.TS_DIGITS
    blank = b"0000-00-00T00:00:00.000" if name == "iso" else b"0" * width
    time_at, value_at = template.index(b"\0"), template.index(b"\1")
    if value_at < time_at:
        time_at += len(word.text) - 1
    else:
        value_at += width - 1
    text = template.replace(b"\0", blank).replace(b"\1", word.text)
    return text, time_at, value_at + len(word.text) - 1 if word.moves else -1


def publish_head(topic: str, payload_bytes: int, qos: int, version: int) -> tuple[bytes, int]:
    """Everything of a PUBLISH before its payload, and where its packet id stands (0 is written there)."""
    name = topic.encode()
    variable = len(name).to_bytes(2, "big") + name + (b"\0\0" if qos else b"")
    variable += b"\0" if version == MQTT_5 else b""
    fixed = bytes([0x30 | qos << 1]) + remaining_length(len(variable) + payload_bytes)
    return fixed + variable, len(fixed) + 2 + len(name)


def by_gateway(fleet: Fleet) -> I64:
    """Rows of a fleet in the order in which the generator speaks: gateway by gateway. int64 [n]."""
    return np.argsort(fleet.gateway, kind="stable")
