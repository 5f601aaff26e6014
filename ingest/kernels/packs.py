"""Messages of sources with a codec, of whose readings the names were heard before, straight into columns.

Owns the look-up of topics that no registry lists, and who may use them; hands each message to the kernel of its form.
What is left, and what was never heard, is the codec's.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ingest.kernels.compiling import compiled
from ingest.kernels.decode import RETAIN, S_BROKER, S_CREDENTIAL
from ingest.kernels.grammar import PAYLOAD_MAX, SOURCE_FIELDS, blank
from ingest.kernels.heard import SPOKEN_ROOM
from ingest.kernels.mapped import DEPTH_WALKED, FRAME_FIELDS, ORIGIN_FIELDS, Trees, mapped_body
from ingest.kernels.scan import LOAD_AT, LOAD_BYTES, SEGMENT, TOPIC_AT, TOPIC_BYTES
from ingest.kernels.senml import PACK_FULL, PACK_LEFT, PACK_STRANGE, TABLE_BYTES, senml_pack
from ingest.kernels.tables import Texts, U64s, has_pair, number_of
from ingest.kernels.words import INT, U64, put_i32, u8
from storage.batch import F64, I32, I64, U8

C_SOURCE, C_TABLE, C_FORM = range(3)
"""A topic's numbers, int32: its source, the table its names are looked up in, the form of its messages."""
CHANNEL_FIELDS: Final = 3
SENML, MAPPED = range(2)
"""Forms."""

KNOWN: Final = 0
STRANGE: Final = 1
"""Why a message is left: it is nothing for a kernel; or its topic, who sends it or a name in it was not heard yet."""


@compiled
def decode_packs(
    buffer: U8,
    messages: I32,
    heads: U8,
    order: I32,
    begin: int,
    segments: I32,
    topics: Texts,
    channels: I32,
    allowed: U64s,
    numbers: I64,
    names: Texts,
    names_count: int,
    bounds: I32,
    hows: I64,
    trees: Trees,
    stage: I64,
    stamps: I64,
    received_at: int,
    out_point: I32,
    out_time: I64,
    out_value: F64,
    out_flag: U8,
    out_message: I32,
    rows: int,
    left: I32,
    whys: U8,
    lefts: int,
) -> tuple[int, int, int, int]:
    """Decode the messages ``order[begin:]``; (next message, rows, messages left, rows timed by their receipt).

    As ingest.kernels.decode.decode_messages; ``whys`` says of each message left KNOWN or STRANGE. ``stage`` is
    room for one message; ``stamps`` has an entry for each name and one before them (see ingest.kernels.mapped).
    """
    room = len(out_point)
    base = INT(buffer.ctypes.data)
    topic_slots, topic_mask = INT(topics.slots.ctypes.data), len(topics.slots) - 1
    topic_ends, topic_pool = INT(topics.at.ctypes.data), INT(topics.pool.ctypes.data)
    heard = (
        INT(names.slots.ctypes.data),
        len(names.slots) - 1,
        INT(names.at.ctypes.data),
        INT(names.pool.ctypes.data),
        names_count,
    )
    bounds_at, hows_at = INT(bounds.ctypes.data), INT(hows.ctypes.data)
    all_numbers = INT(numbers.ctypes.data)
    out = (
        INT(out_point.ctypes.data),
        INT(out_time.ctypes.data),
        INT(out_value.ctypes.data),
        INT(out_flag.ctypes.data),
        INT(out_message.ctypes.data),
    )
    pairs, pairs_mask = INT(allowed.ctypes.data), len(allowed) - 1
    space = np.empty(SPOKEN_ROOM, np.uint8)
    spoken = INT(space.ctypes.data)
    frames = np.empty(DEPTH_WALKED * FRAME_FIELDS, np.int64)
    walked = INT(trees.places.ctypes.data), INT(trees.keys.ctypes.data), INT(trees.pool.ctypes.data)
    origins_at = INT(trees.origins.ctypes.data)
    timed = 0
    for k in range(begin, len(order)):
        m = INT(order[k])
        start = base + INT(messages[m, LOAD_AT])
        size = INT(messages[m, LOAD_BYTES])
        end = start + size
        segment = INT(messages[m, SEGMENT])
        credential = segments[segment, S_CREDENTIAL]
        channel = INT(
            number_of(
                topic_slots,
                topic_mask,
                topic_ends,
                topic_pool,
                base + INT(messages[m, TOPIC_AT]),
                INT(messages[m, TOPIC_BYTES]),
            )
        )
        found, offsets = PACK_STRANGE, 0
        if channel >= 0 and (
            credential == 0 or has_pair(pairs, pairs_mask, U64(credential) << U64(32) | U64(channel + 1))
        ):
            found = PACK_LEFT
            source = INT(channels[channel, C_SOURCE])
            at = all_numbers + 8 * SOURCE_FIELDS * source
            i = blank(start, end)
            c = u8(i) if i < end else 0
            retained = segments[segment, S_BROKER] != 0 and heads[m] & RETAIN != 0
            put_i32(spoken, INT(channels[channel, C_TABLE]))
            if size > numbers[source, PAYLOAD_MAX] or (c != 91 and c != 123):
                pass
            elif channels[channel, C_FORM] == MAPPED:
                found, stamps[0] = mapped_body(
                    i,
                    end,
                    at,
                    heard,
                    bounds_at,
                    hows_at,
                    spoken,
                    retained,
                    m,
                    rows,
                    room,
                    out,
                    walked,
                    origins_at + 8 * ORIGIN_FIELDS * source,
                    INT(frames.ctypes.data),
                    INT(stage.ctypes.data),
                    INT(stamps.ctypes.data) + 8,
                    stamps[0],
                )
            elif c == 91:
                found, offsets = senml_pack(
                    i,
                    end,
                    at,
                    heard,
                    bounds_at,
                    hows_at,
                    spoken,
                    retained,
                    received_at,
                    m,
                    rows,
                    room,
                    out,
                )
        if found >= 0:
            rows = found
            timed += offsets
        elif found == PACK_FULL:
            return k, rows, lefts, timed
        else:
            left[lefts] = m
            whys[lefts] = STRANGE if found == PACK_STRANGE else KNOWN
            lefts += 1
    # These are used by their addresses alone.
    space[0], frames[0] = 0, 0
    return len(order), rows, lefts, timed


assert TABLE_BYTES == 4, "put_i32 writes the number of a table"
