"""Kernels against plain Python on generated and mutated input: the same rows, the same refusals, the same frames.

Run by scripts/fuzz kernels; tests/property/test_kernels.py runs a part of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from ingest.config import Config, SourceSettings
from ingest.decode.messages import Chunk, Messages
from ingest.frames import Stop, scan
from ingest.kernels.scan import DONE, ODD, PARTIAL, STOP
from ingest.mqtt.arena import Arena
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Ack, Kind, Publish
from ingest.mqtt.properties import Prop, Properties, PropertyValue
from ingest.routes import Routes
from tests.tables import point_table

NOW = 1_790_000_000_000_000
POINTS, GATEWAYS = 12, 2
SOURCES = (
    SourceSettings(name="ms", gateway_topic="ms/{gateway}/batch"),
    SourceSettings(name="s", time_unit="s", time_zone="Asia/Shanghai", missing_values=[-9999.0, 0.0]),
    SourceSettings(name="us", depth_max=1, time_unit="us", time_zone="America/New_York", id_field="设备"),
    SourceSettings(name="ns", time_unit="ns", gateway_topic="ns/{gateway}/batch"),
    SourceSettings(name="few", readings_per_message_max=2, message_bytes_max=120, bare_numbers=False),
    SourceSettings(
        name="long", time_field="observation_time", value_field="value_of_it", flag_field="quality"
    ),
)
UNITS = {"ms": 1000, "s": 1_000_000, "us": 1, "ns": 0}
INTERESTING = b'{}[]":,\\ \t\n\r0123456789.eE+-truefalsn\x00\x1f\x7f\x80\xc3\xa9\xed\xa0\xff'


def routes_of_all() -> Routes:
    """Two points of each source, one timed on receipt, one retired, in two gateways."""
    table = point_table(POINTS, gateways=GATEWAYS, on_receipt=tuple(range(0, POINTS, 3)))
    names = [source.name for source in SOURCES]
    retired = np.zeros(POINTS, bool)
    retired[-1] = True
    table = replace(
        table,
        sources=names,
        source=(np.arange(POINTS) % len(SOURCES)).astype(np.int32),
        gateway=(np.arange(POINTS) // len(SOURCES)).astype(np.int32),
        retired=retired,
    )
    return Routes(table, Config(source=list(SOURCES)))


class Payloads:
    """Makes payloads from a seed: mostly such as a kernel takes, often nearly such."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def number(self) -> str:
        """A number, or nearly one."""
        r = self._random
        kind = r.randrange(12)
        if kind < 4:
            return f"{r.randrange(-500, 5000) / r.choice((1, 4, 10, 100, 1000))}"
        if kind == 4:
            return str(r.randrange(-(10 ** r.randrange(1, 22)), 10 ** r.randrange(1, 22)))
        if kind == 5:
            return repr(r.uniform(-1e3, 1e3))
        if kind == 6:
            return repr(r.uniform(-1, 1) * 10.0 ** r.randrange(-320, 308))
        if kind == 7:
            digits = "".join(r.choice("0123456789") for _ in range(r.randrange(1, 24)))
            return f"{r.choice(('', '-'))}{digits[: r.randrange(1, 20)]}.{digits}"
        if kind == 8:
            return f"{r.randrange(10 ** r.randrange(1, 18))}e{r.choice(('', '+', '-'))}{r.randrange(330)}"
        if kind == 9:
            # Halfway between two doubles, and just beside it.
            odd = (r.getrandbits(53) | 1 << 52) * 2 + 1
            return f"{odd + r.choice((-1, 0, 0, 1))}{r.choice(('', '.0', 'e0', '.5', 'e-1'))}"
        return r.choice(
            ("0", "-0", "-0.0", "01", "1.", ".5", "+1", "1e", "1e5", "0e0", "-", "9" * 30, "-9999")
        )

    def time(self, source: SourceSettings) -> str:
        """A time near now in the source's unit, or as text, or neither."""
        r = self._random
        kind = r.randrange(12)
        us = NOW - r.choice((0, 1, 1000, 59_500_000, r.randrange(10**11), r.randrange(10**12)))
        if kind < 6:
            unit = UNITS[source.time_unit]
            return str(us // unit if unit else us * 1000 + r.randrange(1000))
        if kind == 6:
            return f"{us / (UNITS[source.time_unit] or 0.001)!r}"
        if kind < 10:
            return f'"{self.iso(us)}"'
        return r.choice((self.number(), "null", "true", '""', '"2026-09-21"', '"now"', "[1]"))

    def iso(self, us: int) -> str:
        """An ISO time, or nearly one."""
        r = self._random
        if not r.randrange(4):
            us = r.randrange(-62_135_596_800_000_000, 250_000_000_000_000_000)
        stamp = np.datetime64(us, "us").astype(str)
        stamp = stamp[: r.choice((16, 19, 19, 20, 21, 23, 26, 26))]
        stamp = stamp.replace("T", r.choice(("T", "T", "T", " ", "t")))
        return stamp + r.choice(("", "Z", "Z", "+08:00", "-05:30", "+0800", "+24:00", "z", "+08", "-00:00"))

    def text(self) -> str:
        """A JSON text."""
        r = self._random
        return r.choice(
            (
                '"p1"',
                '"p2"',
                '""',
                '"雨量"',
                '"a\\n"',
                '"\\u0041"',
                '"é€😀"',
                f'"p{r.randrange(14)}"',
                '"\\ud800"',
            )
        )

    def reading(self, source: SourceSettings, own: str, with_id: bool) -> str:
        """An object, or something in its place."""
        r = self._random
        if not r.randrange(60):
            return r.choice(("{}", "[]", "null", "1", '"x"', '{"a":{}}'))
        fields = []
        if r.randrange(20):
            fields.append((source.time_field, self.time(source)))
        if r.randrange(30):
            fields.append(
                (source.value_field, self.number() if r.randrange(15) else r.choice(("null", "true", '"1"')))
            )
        if (with_id and r.randrange(20)) or not r.randrange(8):
            fields.append((source.id_field, f'"{own}"' if r.randrange(12) else self.text()))
        if not r.randrange(4):
            fields.append(
                (
                    source.flag_field,
                    r.choice(("0", "1", "2", "3", "4", "9", "null", "5", "1.0", "-0", "true")),
                )
            )
        for _ in range(r.choice((0, 0, 0, 0, 0, 1, 2))):
            extra = r.choice(("null", "true", "false", self.number(), self.text(), "[1]", "{}"))
            fields.append((r.choice(("site", "单位", "t", "tss", "v2", "")), extra))
        if not r.randrange(25) and fields:
            fields.append(r.choice(fields))
        if not r.randrange(3):
            r.shuffle(fields)
        b = self.blank if not r.randrange(3) else lambda: ""
        return "{" + ",".join(f'{b()}"{name}"{b()}:{b()}{value}{b()}' for name, value in fields) + "}"

    def blank(self) -> str:
        """Whitespace, or none."""
        return self._random.choice(("", "", " ", "  ", "\n", "\t", "\r\n"))

    def payload(self, source: SourceSettings, own: str, gateway: bool) -> bytes:
        """A whole payload, mutated now and then."""
        r = self._random
        kind = r.randrange(10)
        if kind == 0 and not gateway:
            made = f"{self.blank()}{self.number()}{self.blank()}"
        elif kind < 3 or gateway:
            many = [
                self.reading(source, own if r.randrange(6) else f"p{r.randrange(POINTS)}", gateway)
                for _ in range(r.choice((0, 1, 1, 2, 3, 7)))
            ]
            made = "[" + ",".join(f"{self.blank()}{one}" for one in many) + f"{self.blank()}]"
        else:
            made = self.blank() + self.reading(source, own, with_id=False) + self.blank()
        raw = made.encode()
        if not r.randrange(4):
            raw = self.mutated(raw)
        return raw

    def mutated(self, raw: bytes) -> bytes:
        """Some bytes changed, added, taken or repeated."""
        r = self._random
        made = bytearray(raw)
        for _ in range(r.choice((1, 1, 1, 2, 4))):
            at = r.randrange(len(made) + 1)
            kind = r.randrange(5)
            if kind == 0:
                made[at:at] = bytes([r.choice(INTERESTING)])
            elif kind == 1:
                del made[at : at + r.randrange(1, 4)]
            elif kind == 2 and at < len(made):
                made[at] = r.choice(INTERESTING)
            elif kind == 3:
                made[at:at] = made[at : at + r.randrange(1, 9)]
            else:
                del made[at:]
        return bytes(made)


@dataclass
class Told:
    """What became of cases: how many, how many a kernel took, and of which the general decoder made a reading."""

    cases: int = 0
    taken: int = 0
    readable: int = 0

    def __iadd__(self, other: Told) -> Told:
        self.cases += other.cases
        self.taken += other.taken
        self.readable += other.readable
        return self


Row = tuple[int, int, int, int]


def rows_of(messages: Messages) -> tuple[list[Row], list[Any]]:
    """Rows with their values' bits, and refusals, of what was fed."""
    batch, refusals = messages.take(NOW)
    bits = batch.value.view(np.int64)
    columns = (batch.point, batch.time, bits, batch.device_flag)
    return list(zip(*(column.tolist() for column in columns), strict=True)), refusals


class Decoders:
    """The same messages through an arena and through the general decoder alone."""

    def __init__(self, routes: Routes | None = None) -> None:
        self.routes = routes or routes_of_all()
        self.by_kernel = Messages(self.routes, 1 << 30)
        self.slowly = Messages(self.routes, 1 << 30)
        self.slowly._short = None  # type: ignore[assignment]
        self.slowly._columns.arranging = None
        for one in (self.by_kernel, self.slowly):
            one.set_window(NOW)
        self._arena: Arena[Any] = Arena(1 << 22)
        self._table = self.routes.table(None, lambda _name, _topic: True)

    def check(self, cases: list[tuple[str, bytes, int]], from_broker: bool = False) -> Told:
        """Topic, payload and first byte of each; AssertionError where anything differs."""
        peer = SimpleNamespace(client_id="c", credential=None, from_publisher=not from_broker)
        stream = b"".join(
            encode(Publish(topic, payload, 1, bool(head & 1), bool(head & 8), n % 65_535 + 1), False)
            for n, (topic, payload, head) in enumerate(cases)
        )
        arena = self._arena
        arena.clear()
        arena.view[: len(stream)] = stream
        arena.segment(peer, len(stream), False)
        arena.scan(1 << 20)
        assert arena.count == len(cases)
        before = dict(self.by_kernel.counts)
        refused = self.by_kernel.feed_arena(arena, lambda _credential: self._table, NOW)
        taken = self.by_kernel._columns.filled
        rows, refusals = rows_of(self.by_kernel)
        expected_refused: dict[int, str] = {}
        chunk = Chunk(
            [topic.encode() for topic, _, _ in cases],
            [p for _, p, _ in cases],
            [h for _, _, h in cases],
            "c",
            from_broker,
        )
        self.slowly._set_general_window()
        expected_refused = self.slowly._feed_slowly(self._table, chunk, NOW, range(len(cases)))
        self.slowly.counts["messages"] += len(cases)
        expected_rows, expected_refusals = rows_of(self.slowly)
        if rows != expected_rows or refusals != expected_refusals or refused != expected_refused:
            self._explain(cases, from_broker)
        assert (rows, refusals, refused) == (expected_rows, expected_refusals, expected_refused)
        assert self.by_kernel.counts == self.slowly.counts, (
            before,
            self.by_kernel.counts,
            self.slowly.counts,
        )
        return Told(len(cases), taken, len(rows))

    def _explain(self, cases: list[tuple[str, bytes, int]], from_broker: bool) -> None:
        """Find the one message that is enough."""
        if len(cases) == 1:
            return
        self.by_kernel.counts.clear()
        self.slowly.counts.clear()
        for one in cases:
            try:
                self.check([one], from_broker)
            except AssertionError as difference:
                raise AssertionError(f"{one!r}, from_broker={from_broker}") from difference


def decode_cases(seed: int, count: int) -> Iterator[tuple[str, bytes, int]]:
    """Topics, payloads and first bytes."""
    random = Random(seed)
    payloads = Payloads(random)
    for _ in range(count):
        point = random.randrange(POINTS)
        gateway = random.randrange(GATEWAYS)
        head = random.choice((0x32, 0x32, 0x32, 0x33, 0x3A))
        if not random.randrange(3):
            source = SOURCES[random.choice((0, 3))]
            topic = f"{source.name}/g{gateway}/batch"
            own = f"p{len(SOURCES) * gateway + SOURCES.index(source)}"
            yield topic, payloads.payload(source, own, True), head
        else:
            topic = f"cd/g{point % GATEWAYS}/p{point}" if random.randrange(50) else "cd/nowhere"
            yield topic, payloads.payload(SOURCES[point % len(SOURCES)], f"p{point}", False), head


def number_cases(seed: int, count: int) -> Iterator[tuple[str, bytes, int]]:
    """Bare numbers, for a point that takes them."""
    payloads = Payloads(Random(seed))
    for _ in range(count):
        yield "cd/g0/p0", payloads.number().encode(), 0x32


BATCH = 500


def fuzz_decode(
    seed: int, count: int, decoders: Decoders | None = None, cases: Callable[..., Any] = decode_cases
) -> Told:
    """``count`` messages from a seed; AssertionError where a kernel and the general decoder differ."""
    decoders = decoders or Decoders()
    told = Told()
    for number in range(0, count, BATCH):
        batch = list(cases(seed * 1_000_003 + number, min(BATCH, count - number)))
        told += decoders.check(batch, from_broker=cases is not number_cases and bool(number // BATCH % 2))
    return told


def _properties(random: Random) -> Properties:
    """Properties of a PUBLISH, now and then with a topic alias."""
    texts = ("", "a", "单位", "x" * 150)
    choice: list[tuple[Prop, PropertyValue]] = [
        (Prop.PAYLOAD_FORMAT, random.randrange(2)),
        (Prop.MESSAGE_EXPIRY, random.getrandbits(32)),
        (Prop.CONTENT_TYPE, random.choice(texts)),
        (Prop.RESPONSE_TOPIC, random.choice(texts)),
        (Prop.CORRELATION_DATA, random.randbytes(random.randrange(9))),
        (Prop.SUBSCRIPTION_ID, [random.randrange(1, 1 << 28) for _ in range(random.randrange(1, 3))]),
        (
            Prop.USER_PROPERTY,
            [(random.choice(texts), random.choice(texts)) for _ in range(random.randrange(1, 4))],
        ),
    ]
    if not random.randrange(8):
        choice.append((Prop.TOPIC_ALIAS, random.randrange(1, 9)))
    return dict(random.sample(choice, random.randrange(1, len(choice))))


def frame_cases(seed: int, v5: bool) -> bytes:
    """A stream of packets, mostly PUBLISH, mostly whole."""
    random = Random(seed)
    out = bytearray()
    for _ in range(random.randrange(1, 12)):
        topic = random.choice(("a", "cd/g0/p1", "城市/雨量", "cd/" + "x" * random.randrange(200)))
        payload = random.randbytes(random.choice((0, 1, 20, 60, 130, 300)))
        qos = random.randrange(3)
        pid = random.randrange(1, 65_536) if qos else 0
        properties = _properties(random) if v5 and random.randrange(2) else {}
        publish = Publish(topic, payload, qos, not random.randrange(2), bool(pid % 2), pid, properties)
        kind = random.randrange(12)
        if kind == 0:
            out += encode(Ack(Kind.PUBREL, random.randrange(1, 65_536)), v5)
        elif kind == 1:
            out += b"\xc0\x00"
        else:
            out += encode(publish, v5)
    if not random.randrange(2):
        return Payloads(random).mutated(bytes(out))
    return bytes(out[: random.randrange(len(out) + 1)] if not random.randrange(4) else out)


def plain_frames(stream: bytes, v5: bool, bytes_max: int) -> tuple[Any, int]:
    """By ingest.frames.scan, over PUBRELs as the sessions go over them."""
    frames = scan(stream, 0, v5, bytes_max)
    while frames.stop is Stop.OTHER and stream[frames.end : frames.end + 2] == b"\x62\x02":
        rest = stream[frames.end + 2 : frames.end + 4]
        if len(rest) < 2 or rest == b"\0\0":
            break
        scan(stream, frames.end + 4, v5, bytes_max, frames)
    return frames, frames.end


def fuzz_scan(seed: int, count: int) -> Told:
    """``count`` streams; AssertionError where the kernel takes a frame that plain Python does not, or another."""
    arena: Arena[Any] = Arena(1 << 22)
    told = Told()
    for number in range(0, count, BATCH):
        arena.clear()
        streams = []
        for n in range(number, min(number + BATCH, count)):
            v5 = bool(n % 2)
            stream = frame_cases(seed * 1_000_003 + n, v5)
            arena.view[arena.used : arena.used + len(stream)] = stream
            arena.segment(None, len(stream), v5)
            streams.append((stream, v5))
        bytes_max = (200, 1 << 20)[number // BATCH % 2]
        arena.scan(bytes_max)
        spans = arena.spans()
        for s, (stream, v5) in enumerate(streams):
            expected, _ = plain_frames(stream, v5, bytes_max)
            first, last, ack_from, ack_to, taken = spans[s].tolist()
            messages = range(first, last)
            whole = [arena.topic(m) for m in messages], [arena.payload(m) for m in messages]
            heads, pids = bytearray(arena.heads[first:last]), [arena.pid(m) for m in messages]
            stop = int(arena.segments[s, STOP])
            rest, _ = plain_frames(stream[taken:], v5, bytes_max)
            found = (
                whole[0] + rest.topics, whole[1] + rest.payloads, heads + rest.heads, pids + rest.pids,
            )  # fmt: skip
            assert found == (expected.topics, expected.payloads, expected.heads, expected.pids), (stream, v5)
            assert (rest.stop, bool(rest.fault)) == (expected.stop, bool(expected.fault)), (stream, v5)
            assert (stop in (ODD, PARTIAL)) == (taken < len(stream)), (stream, v5)
            if stop == PARTIAL:
                assert rest.stop is Stop.INCOMPLETE, (stream, v5)
            acks = [
                (b"\x40\x02" if head & 6 == 2 else b"\x50\x02") + pid
                for head, pid in zip(heads, pids, strict=True)
                if pid
            ]
            assert arena.acks[ack_from:ack_to].tobytes() == b"".join(acks)
            assert int(arena.segments[s, DONE]) == int(arena.segments[s, 0]) + taken
            told += Told(1, int(stop == 0), len(whole[0]))
    return told


def main() -> int:
    """Until the cases are done: how many, and what became of them."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz kernels", description=__doc__)
    parser.add_argument(
        "--cases", type=int, default=1_000_000, help="messages for the decoder (default a million)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    told = Counter[str]()
    from tests.fuzz_mapped import mapped_cases, routes_of_mapped
    from tests.fuzz_packs import pack_cases, routes_of_packs

    decoders, packs, mapped = Decoders(), Decoders(routes_of_packs()), Decoders(routes_of_mapped())
    step = 20_000
    for number in range(0, options.cases, step):
        size = min(step, options.cases - number)
        decoded = fuzz_decode(options.seed + number, size, decoders)
        packed = fuzz_decode(options.seed + number, size, packs, pack_cases)
        walked = fuzz_decode(options.seed + number, size, mapped, mapped_cases)
        numbers = fuzz_decode(options.seed + number, size, decoders, number_cases)
        scanned = fuzz_scan(options.seed + number, size // 5)
        told.update(messages=decoded.cases, readings_by_kernel=decoded.taken, readings=decoded.readable)
        told.update(packs=packed.cases, pack_readings_by_kernel=packed.taken, pack_readings=packed.readable)
        told.update(bodies=walked.cases, body_readings_by_kernel=walked.taken, body_readings=walked.readable)
        told.update(numbers=numbers.cases, numbers_by_kernel=numbers.taken, numbers_read=numbers.readable)
        told.update(streams=scanned.cases, frames_by_kernel=scanned.readable)
        print(f"\r{number + size:,} of {options.cases:,} messages", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"kernels: no difference: {dict(told)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
