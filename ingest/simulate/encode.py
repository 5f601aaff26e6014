"""Many PUBLISH packets at once: fixed templates, into which numpy writes the digits.

Owns the bytes of what simulated gateways publish, both MQTT versions, one reading a message or arrays.
Knows nothing of sockets, acknowledgements or where values come from. The caller keeps its arrays for
the ledger; nothing here changes them.

A template is made once for the points that publish in the same instant. Numbers have a fixed width, the
integer part padded with spaces after the colon, which JSON allows: `{"ts":1763876543210,"v":   12.34}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from storage.batch import I32, I64, U8

TS_DIGITS = 13
"""Milliseconds since 1970 have thirteen digits from 2001 to 2286."""
DIGITS_MAX = 9
"""Digits of a value, before and after the point: what fits uint32 whatever they are."""
MQTT_311, MQTT_5 = 4, 5
PACKET_IDS = 65_535
"""Packet ids run from 1 to this and begin again."""

_TENS: npt.NDArray[np.uint32] = (10 ** np.arange(DIGITS_MAX - 1, -1, -1, dtype=np.uint64)).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Form:
    """How readings become messages. ``batch`` 0 is one reading a message on the point's own topic."""

    qos: int = 1
    batch: int = 0


def remaining_length(n: int) -> bytes:
    """MQTT's variable byte integer.

    >>> remaining_length(321).hex()
    'c102'
    """
    out = bytearray()
    while True:
        n, low = divmod(n, 128)
        out.append(low | (0x80 if n else 0))
        if not n:
            return bytes(out)


def packet_ids(first: int, n: int) -> npt.NDArray[np.uint16]:
    """``n`` consecutive packet ids from ``first`` on, going round after 65,535 without the forbidden 0.

    >>> packet_ids(65534, 3).tolist()
    [65534, 65535, 1]
    """
    return ((np.arange(first - 1, first - 1 + n) % PACKET_IDS) + 1).astype(np.uint16)


class Digits:
    """Text of decimal numbers, DIGITS_MAX characters each, right-aligned without the point.

    For rows with ``whole_width`` characters before and ``decimals`` digits after the point (uint8 [n]).
    """

    def __init__(self, whole_width: U8, decimals: U8) -> None:
        column = np.arange(DIGITS_MAX)
        last_whole = DIGITS_MAX - 1 - decimals.astype(np.int64)
        self._may_be_blank = column < last_whole[:, None]
        self._first = last_whole + 1 - whole_width
        self._limit = 10 ** (whole_width.astype(np.int64) + decimals)

    def write(self, quantised: I64) -> U8:
        """uint8 [n, DIGITS_MAX] of int64 numbers in units of the last decimal; zeros in front are spaces.

        Raises ValueError where a number has no room: never a wrong digit.
        """
        magnitude = np.abs(quantised)
        if (magnitude >= self._limit).any():
            raise ValueError("a value has more digits than its points' kind allows")
        quotient = magnitude.astype(np.uint32)[:, None] // _TENS
        digits = (quotient % np.uint32(10) + np.uint32(48)).astype(np.uint8)
        digits[(quotient == 0) & self._may_be_blank] = 32
        negative = np.flatnonzero(quantised < 0)
        if len(negative):
            sign_at = (digits[negative] == 32).sum(axis=1) - 1
            if (sign_at < self._first[negative]).any():
                raise ValueError("a negative value has no room for its sign")
            digits[negative, sign_at] = 45
        return digits


@dataclass(slots=True)
class _Block:
    """Rows of one shape: equal length, digits at equal places.

    begin, end  its rows in the order of blocks
    buffer      uint8 [end - begin, length], rewritten in place at each encode
    """

    begin: int
    end: int
    buffer: U8
    ts_at: int
    value_at: int
    whole_width: int
    decimals: int
    id_at: int


class Encoder:
    """Encodes all readings of some gateways that publish at the same instant.

    Rows are ordered by gateway; within a gateway the encoder chooses the order of its messages and says
    it in ``order`` (positions into the given rows): message m of a gateway holds the rows
    order[start + m * per_message : …]. Arrays given to ``encode`` are in that order.

    starts    int64 [gateways + 1]  first row of each gateway in ``order``
    offsets   for each gateway the byte offsets of its messages, one more than messages
    per_message  readings a message, the last of a gateway may hold fewer
    """

    def __init__(
        self,
        point_id: Sequence[str],
        topic: Sequence[str],
        gateway: I32,
        whole_width: U8,
        decimals: U8,
        names: Sequence[str],
        versions: Sequence[int],
        form: Form,
        gateway_topic: str = "cd/{gateway}/batch",
    ) -> None:
        """``gateway`` int32 non-decreasing positions into ``names`` and ``versions``."""
        if len(gateway) and (
            (whole_width.astype(int) + decimals).max() > DIGITS_MAX or (np.diff(gateway) < 0).any()
        ):
            raise ValueError(f"values of more than {DIGITS_MAX} digits, or rows not ordered by gateway")
        self._form = form
        self.per_message = form.batch or 1
        labels = [p.encode() for p in (point_id if form.batch else topic)]
        version = np.asarray(versions, np.int64)[gateway] if len(gateway) else np.empty(0, np.int64)
        length = np.array([len(label) for label in labels], np.int64)
        self.order = np.lexsort((decimals, whole_width, length, gateway))
        gateway = gateway[self.order]
        self.starts = np.searchsorted(gateway, np.arange(len(names) + 1))
        shape = np.stack([length, whole_width, decimals, version])[:, self.order].T
        within = np.arange(len(gateway)) - self.starts[gateway]
        self._blocks: list[_Block] = []
        place: list[tuple[int, int]] = [(0, 0)] * len(gateway)
        shapes, code = np.unique(shape, axis=0, return_inverse=True)
        self._by_block = np.argsort(code.reshape(-1), kind="stable")
        bounds = np.searchsorted(code.reshape(-1)[self._by_block], np.arange(len(shapes) + 1))
        in_blocks = self.order[self._by_block]
        self._digits = Digits(whole_width[in_blocks], decimals[in_blocks])
        for b, (_, whole, places, of_version) in enumerate(shapes.tolist()):
            rows = self._by_block[bounds[b] : bounds[b + 1]]
            lines = self._lines(
                [labels[self.order[r]] for r in rows], within[rows], whole, places, of_version
            )
            self._blocks.append(self._block(int(bounds[b]), lines, whole, places, of_version))
            for i, row in enumerate(rows.tolist()):
                place[row] = (b, i)
        self._headers: list[tuple[U8, int]] = []
        self._pieces: list[list[memoryview]] = []
        self.offsets: list[list[int]] = []
        self._gateway = gateway[self._by_block]
        self._within = within[self._by_block]
        for g, name in enumerate(names):
            here = place[int(self.starts[g]) : int(self.starts[g + 1])]
            if form.batch:
                self._lay_out_arrays(here, gateway_topic.replace("{gateway}", name).encode(), versions[g])
            else:
                self._pieces.append(self._runs(here))
                sizes = [self._blocks[block].buffer.shape[1] for block, _ in here]
                self.offsets.append([0, *accumulate(sizes)])

    def _lines(self, labels: list[bytes], within: I64, whole: int, places: int, version: int) -> list[bytes]:
        """One message, or one element of an array, for each label, its digits still 0."""
        qos, batch = self._form.qos, self._form.batch
        tail = b"0" * TS_DIGITS + b',"v":' + b" " * whole + (b"." + b"0" * places if places else b"") + b"}"
        if batch:
            opening = (b"[" if at % batch == 0 else b"," for at in within.tolist())
            return [
                o + b'{"id":"' + label + b'","ts":' + tail for o, label in zip(opening, labels, strict=True)
            ]
        after = (b"\0\0" if qos else b"") + (b"\0" if version == MQTT_5 else b"") + b'{"ts":' + tail
        head = bytes([0x30 | qos << 1]) + remaining_length(2 + len(labels[0]) + len(after))
        return [head + len(label).to_bytes(2, "big") + label + after for label in labels]

    def _block(self, begin: int, lines: list[bytes], whole: int, places: int, version: int) -> _Block:
        buffer = np.frombuffer(b"".join(lines), np.uint8).reshape(len(lines), -1).copy()
        value_at = buffer.shape[1] - 1 - whole - (places + 1 if places else 0)
        ts_at = value_at - len(b',"v":') - TS_DIGITS
        id_at = ts_at - len(b'{"ts":') - (1 if version == MQTT_5 else 0) - 2
        return _Block(begin, begin + len(lines), buffer, ts_at, value_at, whole, places, id_at)

    def _lay_out_arrays(self, here: list[tuple[int, int]], topic: bytes, version: int) -> None:
        """Note where the bytes of one gateway's array messages stand, as views into blocks and headers."""
        pieces: list[memoryview] = []
        offsets = [0]
        for first in range(0, len(here), self.per_message):
            runs = [*self._runs(here[first : first + self.per_message]), memoryview(b"]")]
            header, id_at = self._header(topic, sum(len(run) for run in runs), version)
            self._headers.append((header, id_at))
            pieces += [memoryview(header.data), *runs]
            offsets.append(offsets[-1] + len(header) + sum(len(run) for run in runs))
        self._pieces.append(pieces)
        self.offsets.append(offsets)

    def _runs(self, places: list[tuple[int, int]]) -> list[memoryview]:
        """The rows at ``places`` as few flat views: neighbours in one block are one view."""
        runs: list[memoryview] = []
        first = 0
        for i in range(1, len(places) + 1):
            joined = i < len(places) and places[i] == (places[i - 1][0], places[i - 1][1] + 1)
            if not joined and i > first:
                block, row = places[first]
                size = self._blocks[block].buffer.shape[1]
                flat = memoryview(self._blocks[block].buffer.reshape(-1).data)
                runs.append(flat[row * size : (row + i - first) * size])
                first = i
        return runs

    def _header(self, topic: bytes, payload: int, version: int) -> tuple[U8, int]:
        """Everything before the payload, and where its packet id stands."""
        packet_id = b"\0\0" if self._form.qos else b""
        variable = len(topic).to_bytes(2, "big") + topic + packet_id + (b"\0" if version == MQTT_5 else b"")
        fixed = bytes([0x30 | self._form.qos << 1]) + remaining_length(len(variable) + payload)
        return np.frombuffer(fixed + variable, np.uint8).copy(), len(fixed) + 2 + len(topic)

    def messages(self, g: int) -> int:
        """How many messages gateway ``g`` publishes at each instant."""
        return len(self.offsets[g]) - 1

    def encode(self, ts_ms: int, quantised: I64, first_id: Sequence[int]) -> list[bytes]:
        """The packets of each gateway, one bytes a gateway.

        quantised  int64 [n] in ``order``, units of each row's last decimal
        first_id   packet id of each gateway's first message; the following count on (packet_ids)
        """
        ts = np.frombuffer(b"%013d" % ts_ms, np.uint8)
        digits = self._digits.write(quantised[self._by_block])
        ids = self._row_ids(first_id) if self._form.qos and not self._form.batch else None
        for block in self._blocks:
            buffer, at, point_at = block.buffer, block.value_at, DIGITS_MAX - block.decimals
            rows = slice(block.begin, block.end)
            buffer[:, block.ts_at : block.ts_at + TS_DIGITS] = ts
            buffer[:, at : at + block.whole_width] = digits[rows, point_at - block.whole_width : point_at]
            if block.decimals:
                at += block.whole_width + 1
                buffer[:, at : at + block.decimals] = digits[rows, point_at:]
            if ids is not None:
                buffer[:, block.id_at : block.id_at + 2] = ids[rows]
        if self._form.qos and self._form.batch:
            self._write_header_ids(first_id)
        return [b"".join(pieces) for pieces in self._pieces]

    def _row_ids(self, first_id: Sequence[int]) -> U8:
        """uint8 [n, 2]: each row's packet id as it stands on the wire, in the order of blocks."""
        ids = (np.asarray(first_id, np.int64)[self._gateway] - 1 + self._within) % PACKET_IDS + 1
        return ids.astype(">u2").view(np.uint8).reshape(-1, 2)

    def _write_header_ids(self, first_id: Sequence[int]) -> None:
        at = 0
        for g, first in enumerate(first_id):
            for packet_id in packet_ids(first, self.messages(g)).tolist():
                header, id_at = self._headers[at]
                header[id_at], header[id_at + 1] = packet_id >> 8, packet_id & 0xFF
                at += 1
