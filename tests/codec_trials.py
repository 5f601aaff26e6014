"""What every codec must hold, as trials that the contract suite and `scripts/fuzz` run.

Codecs are found in ingest.codecs.table, their encoders by name; a new codec is tried without a change here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ingest.codecs.base import Codec, Parsed
from ingest.codecs.binding import point_id_of
from ingest.codecs.table import make_codec
from ingest.decode.reasons import REASONS
from ingest.decode.refused import Refused
from ingest.simulate.encoders.base import Encoder, Sent, encoder_class
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_FLAGS
from storage.points import PointTable
from tests.tables import point_table

ZONE = ZoneInfo("Asia/Shanghai")
NOON_US = 1_790_000_000_000_000
"""2026-09-21, a multiple of every encoder's step up to 10 s."""
FRESH_EVERY = 20
"""Mangled messages made of the same good ones."""
_BYTES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"0",
    b"9",
    b"-",
    b"\n",
    b"=",
    b"##",
)


@dataclass(frozen=True)
class Bench:
    """A codec with its settings, and its encoder where it has one."""

    settings: SourceSettings
    codec: Codec
    encoder: Encoder | None


def bench(name: str, **more: object) -> Bench:
    """The codec by its name, made as a source would make it."""
    speaker = encoder_class(name)
    body = speaker.SOURCE if speaker is not None else {}
    settings = SourceSettings.model_validate({"name": "trial", "codec": name, **body, **more})
    encoder = speaker(settings, ZONE) if speaker is not None else None
    return Bench(settings, make_codec(name, settings, ZONE), encoder)


def readings(encoder: Encoder, dice: random.Random, n: int) -> list[Sent]:
    """n readings the encoder's format can carry; keys and times are never both the same."""
    made = []
    for number in range(n):
        value = round(dice.uniform(-50, 500), dice.randint(0, encoder.DECIMALS))
        made.append(
            Sent(
                encoder.DEVICES[number // len(encoder.QUANTITIES) % len(encoder.DEVICES)],
                encoder.QUANTITIES[number % len(encoder.QUANTITIES)],
                NOON_US
                + number // len(encoder.QUANTITIES) // len(encoder.DEVICES) * max(encoder.TIME_STEP_US, 1000),
                value,
                encoder.FLAG,
            )
        )
    return made


def messages(name: str, dice: random.Random) -> list[tuple[str, bytes]]:
    """Good messages of a codec; a few bytes of nothing where it has no encoder."""
    encoder = bench(name).encoder
    if encoder is None:
        return [("t", b"0")]
    return encoder.messages(readings(encoder, dice, dice.randint(1, 12)))


def read(codec: Codec, topic: str, payload: bytes) -> Parsed | Refused:
    """What a codec makes of a message; anything but these two is a mistake that comes through."""
    try:
        parsed = codec.parse(topic, payload)
    except Refused as refused:
        if refused.reason not in REASONS:
            raise AssertionError(f"no such reason: {refused.reason}") from refused
        return refused
    n = len(parsed.keys)
    assert len(parsed.times) == len(parsed.values) == len(parsed.flags) == n
    for (device, quantity), time_us, value, flag in zip(
        parsed.keys, parsed.times, parsed.values, parsed.flags, strict=True
    ):
        assert type(device) is str
        assert type(quantity) is str
        assert time_us is None or (type(time_us) is int and abs(time_us) < 1 << 63)
        assert type(value) in (int, float)
        assert math.isnan(value) or abs(value) <= 1.8e308 or math.isinf(value)
        assert flag in DEVICE_FLAGS
    assert all(refused.reason in REASONS for refused in parsed.refusals)
    return parsed


def mangled(payload: bytes, dice: random.Random) -> bytes:
    """A message with something wrong: bytes changed, taken, doubled, put in, or nothing but noise."""
    body = bytearray(payload)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at = dice.randrange(len(body) + 1)
        deed = dice.randrange(7)
        if deed == 0:
            body[at : at + 1] = bytes([dice.randrange(256)])
        elif deed == 1:
            del body[at : at + dice.randint(1, 9)]
        elif deed == 2:
            body[at:at] = body[at : at + dice.randint(1, 30)]
        elif deed == 3:
            body[at:at] = dice.choice(_BYTES) * dice.choice((1, 1, 3, 40))
        elif deed == 4:
            body = body[:at]
        elif deed == 5 and body:
            place = dice.randrange(len(body))
            body[place] ^= 1 << dice.randrange(8)
        else:
            body[at:at] = dice.randbytes(dice.randint(1, 20))
    return bytes(body)


def fuzz(name: str, inputs: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(topic, payload) of mangled messages of a codec; the same for the same seed."""
    dice = random.Random(f"{name} {seed}")
    good: list[tuple[str, bytes]] = []
    for number in range(inputs):
        if number % FRESH_EVERY == 0:
            good = messages(name, dice)
        topic, payload = dice.choice(good)
        yield topic, dice.randbytes(dice.randint(0, 60)) if dice.random() < 0.05 else mangled(payload, dice)


def trial_points(name: str) -> PointTable:
    """A registry that knows every device and quantity of the codec's encoder, timed by the device."""
    speaker = encoder_class(name)
    ids = ["nobody"]
    if speaker is not None:
        ids = [point_id_of("", "trial", d, q) for d in speaker.DEVICES for q in speaker.QUANTITIES]
    table = point_table(len(ids), source="trial")
    table.point_id = ids
    return table
