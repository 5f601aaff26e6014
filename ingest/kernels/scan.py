"""The scan of PUBLISH frames in the bytes of many connections, in one call.

Owns the common frame: what ingest.frames.scan would take too, and nothing it would not. Where anything
else stands (another packet, a fault, a topic alias, a packet above the limit) the segment is ODD from
there on, and its connection's own stream goes on in plain Python. Other MQTT 5 properties of a PUBLISH mean nothing
to us: they are checked as the stream would check them, and passed over.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.kernels.compiling import compiled, part
from ingest.kernels.words import INT, is_topic, u8, utf8_from
from storage.batch import I32, I64, U8

WHOLE: Final = 0
"""The segment is used up."""
PARTIAL: Final = 1
"""A PUBLISH begins that is not whole; the segment's ``need`` says how long it is."""
ODD: Final = 2
"""What stands here is for the stream."""

START, END, DONE, NEED, STOP, FIRST, LAST, ACKS, COMPS, V5 = range(10)
"""Columns of a segment: where its bytes begin and end; how far it was scanned; NEED and STOP as above; its
messages [FIRST, LAST) and how many of them are acknowledged; PUBRELs met; 1 for MQTT 5."""
SEGMENT_FIELDS: Final = 10
TOPIC_AT, TOPIC_BYTES, LOAD_AT, LOAD_BYTES, PID, SEGMENT = range(6)
"""Columns of a message: topic and payload in the buffer; packet id, 0 where there is none."""
MESSAGE_FIELDS: Final = 6

_FORMAT, _EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION = 0x01, 0x02, 0x03, 0x08, 0x09
_SUBSCRIPTION, _USER = 0x0B, 0x26
"""Properties a PUBLISH may have (MQTT 5, 3.3.2.3), but the topic alias."""


@part
def _after_varint(i: int, end: int) -> int:
    """The byte after a variable byte integer in its shortest form; -1 where none stands whole."""
    for k in range(4):
        if i + k >= end:
            return -1
        byte = u8(i + k)
        if byte < 128:
            return -1 if byte == 0 and k > 0 else i + k + 1
    return -1


@part
def _after_text(i: int, end: int) -> int:
    """The byte after a text and its length; -1 for one that is cut, no UTF-8 or has U+0000."""
    if i + 2 > end:
        return -1
    after: int = i + 2 + (u8(i) << 8 | u8(i + 1))
    if after > end:
        return -1
    i += 2
    while i < after:
        c = u8(i)
        if c == 0:
            return -1
        if c < 128:
            i += 1
        else:
            i = utf8_from(i, after)
            if i < 0:
                return -1
    return after


@part
def _after_properties(i: int, end: int) -> int:
    """The byte after the properties of a PUBLISH, none of which asks anything of us; -1 for any other."""
    begin = _after_varint(i, end)
    if begin < 0:
        return -1
    size = 0
    for k in range(begin - i):
        size |= (u8(i + k) & 127) << (7 * k)
    stop = begin + size
    if stop > end:
        return -1
    i = begin
    seen = 0
    while i < stop:
        which = u8(i)
        i += 1
        if which > _USER:
            return -1
        if which != _SUBSCRIPTION and which != _USER:
            if seen >> which & 1:
                return -1
            seen |= 1 << which
        if which == _FORMAT:
            if i >= stop or u8(i) > 1:
                return -1
            i += 1
        elif which == _EXPIRY:
            i += 4
        elif which in (_CONTENT_TYPE, _RESPONSE_TOPIC):
            i = _after_text(i, stop)
        elif which == _CORRELATION:
            if i + 2 > stop:
                return -1
            i += 2 + (u8(i) << 8 | u8(i + 1))
        elif which == _SUBSCRIPTION:
            if i < stop and u8(i) == 0:
                return -1
            i = _after_varint(i, stop)
        elif which == _USER:
            i = _after_text(i, stop)
            if i >= 0:
                i = _after_text(i, stop)
        else:
            return -1
        if i < 0 or i > stop:
            return -1
    return stop


@compiled
def scan_segments(
    buffer: U8,
    segments: I64,
    count: int,
    begin: int,
    bytes_max: int,
    messages: I32,
    heads: U8,
    found: int,
    acks: U8,
    acked: int,
    comps: U8,
    comped: int,
) -> tuple[int, int, int, int]:
    """Scan ``segments[begin:count]`` on, each from its DONE; (next segment, messages, acks, PUBCOMPs).

    segments   int64 [n, SEGMENT_FIELDS]; messages int32 [m, MESSAGE_FIELDS]; heads uint8 [m]
    acks       uint8: four bytes for each message with a packet id, in the order received
    comps      uint8: four bytes for each PUBREL
    The next segment is ``count`` unless messages, acks or comps are full: make them larger, call again.
    """
    room = min(len(heads), len(acks) // 4)
    comps_room = len(comps) // 4
    base = INT(buffer.ctypes.data)
    for s in range(begin, count):
        at = segments[s, DONE]
        end = segments[s, END]
        v5 = segments[s, V5] != 0
        if segments[s, FIRST] < 0:
            segments[s, FIRST] = found
        stop = WHOLE
        full = False
        while at < end:
            if found >= room or comped >= comps_room:
                full = True
                break
            stop = ODD
            if end - at < 4:
                break
            head = u8(base + at)
            length = u8(base + at + 1)
            if head == 0x62 and length == 2:
                high, low = u8(base + at + 2), u8(base + at + 3)
                if high == 0 and low == 0:
                    break
                comps[4 * comped] = 0x70
                comps[4 * comped + 1] = 2
                comps[4 * comped + 2] = high
                comps[4 * comped + 3] = low
                comped += 1
                segments[s, COMPS] += 1
                at += 4
                stop = WHOLE
                continue
            # 0x30 to 0x35 and 0x3A to 0x3D: no QoS 3, and DUP only where there is a packet id.
            if not (0x30 <= head <= 0x35 or 0x3A <= head <= 0x3D):
                break
            body = at + 2
            if length >= 128:
                length &= 127
                shift = 7
                more = 0x80
                byte = 1
                while more and shift < 28 and body < end:
                    byte = u8(base + body)
                    length |= (byte & 127) << shift
                    more = byte & 0x80
                    shift += 7
                    body += 1
                if more or byte == 0:
                    # Not all of the length is here, it is too long, or not in its shortest form.
                    break
            after = body + length
            if after - at > bytes_max:
                break
            if after > end:
                segments[s, NEED] = after - at
                stop = PARTIAL
                break
            if length < 3:
                break
            topic_at = body + 2
            topic_bytes = u8(base + body) << 8 | u8(base + body + 1)
            load_at = topic_at + topic_bytes
            pid = 0
            if head & 6:
                if load_at + 2 > after:
                    break
                pid = u8(base + load_at) << 8 | u8(base + load_at + 1)
                if pid == 0:
                    break
                load_at += 2
            if v5:
                if load_at >= after:
                    break
                if u8(base + load_at) == 0:
                    load_at += 1
                else:
                    behind = _after_properties(base + load_at, base + after)
                    if behind < 0:
                        break
                    load_at = INT(behind - base)
            elif load_at > after:
                break
            if not is_topic(base + topic_at, topic_bytes):
                break
            messages[found, TOPIC_AT] = topic_at
            messages[found, TOPIC_BYTES] = topic_bytes
            messages[found, LOAD_AT] = load_at
            messages[found, LOAD_BYTES] = after - load_at
            messages[found, PID] = pid
            messages[found, SEGMENT] = s
            heads[found] = head
            if pid:
                acks[4 * acked] = 0x40 if head & 6 == 2 else 0x50
                acks[4 * acked + 1] = 2
                acks[4 * acked + 2] = pid >> 8
                acks[4 * acked + 3] = pid & 255
                acked += 1
                segments[s, ACKS] += 1
            found += 1
            at = after
            stop = WHOLE
        segments[s, DONE] = at
        segments[s, LAST] = found
        if full:
            return s, found, acked, comped
        segments[s, STOP] = stop
    return count, found, acked, comped


def new_segments(count: int) -> I64:
    """Room for segments: nothing scanned yet."""
    made = np.zeros((count, SEGMENT_FIELDS), np.int64)
    made[:, FIRST] = -1
    return made
