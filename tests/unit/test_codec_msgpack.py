"""MessagePack bodies say what the same JSON says."""

from __future__ import annotations

from typing import Any

import msgpack
import orjson
import pytest

from ingest.decode.refused import Refused
from tests.codecs import T0, codec_of, reasons, rows

MAPPING: dict[str, Any] = {
    "device": "id", "time": "ts", "value": "m.*", "quantities": {"level": {}, "rain": {}, "7": {}},
    "point_id": "{device}-{quantity}",
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        {"id": "S1", "ts": T0 // 1000, "m": {"level": 1.5, "rain": 2}},
        [
            {"id": "S1", "ts": T0 // 1000, "m": {"level": 1.5}},
            {"id": "S2", "ts": T0 // 1000, "m": {"rain": None}},
        ],
        [{"id": "S1", "ts": "soon", "m": {"level": 1.5}}, {"id": "S2", "ts": T0 // 1000, "m": {"rain": "x"}}],
    ],
)
def test_the_same_body_in_both(body: Any) -> None:
    packed = codec_of("msgpack", **MAPPING).parse("t", msgpack.packb(body))
    written = codec_of("json", **MAPPING).parse("t", orjson.dumps(body))
    assert str(rows(packed)) == str(rows(written))
    assert reasons(packed) == reasons(written)
    assert len(packed) + len(packed.refusals) == (2 if isinstance(body, list) else len(body["m"]))


def test_numbers_for_keys_are_read_as_their_digits() -> None:
    raw = msgpack.packb({"id": "S1", "ts": T0 // 1000, "m": {7: 1.5}})
    assert rows(codec_of("msgpack", **MAPPING).parse("t", raw)) == [(("S1", "7"), T0, 1.5)]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "bad_msgpack"),
        (b"\xc1", "bad_msgpack"),
        (b"\x81\xa1a", "bad_msgpack"),
        (b"\x01\x01", "bad_msgpack"),
        (b"\xdd\xff\xff\xff\xff", "bad_msgpack"),
        (b"\x91" * 40 + b"\x01", "too_deep"),
        (b"\x91" * 100_000, "bad_msgpack"),
        (b"\xc4\x01x", "wrong_shape"),
        (b"\xa1x", "wrong_shape"),
    ],
)
def test_what_is_no_body_is_refused_whole(raw: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        codec_of("msgpack", **MAPPING).parse("t", raw)
    assert refused.value.reason == reason
