"""Bodies of records: what goes in comes out, and a damaged body says so instead of giving other rows."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from storage.batch import RawBatch
from storage.records import (
    RAW_BYTES_MAX,
    Body,
    Control,
    Event,
    Gap,
    RecordError,
    RecordType,
    Refusal,
    Tick,
    decode,
    decode_events,
    decode_quarantine,
    decode_readings,
    encode,
    encode_events,
    encode_quarantine,
    encode_readings,
    rows_of,
)


def batch(n: int, seed: int = 7) -> RawBatch:
    rng = np.random.default_rng(seed)
    value = rng.normal(size=n)
    value[::5] = np.nan
    return RawBatch(
        rng.integers(0, 116_200, n).astype(np.int32),
        rng.integers(-(1 << 60), 1 << 60, n),
        rng.integers(0, 1 << 60, n),
        value,
        rng.choice(np.array([0, 1, 2, 3, 4, 9], np.uint8), n),
    )


REFUSALS = [
    Refusal(
        1_700_000_000_000_000, "flood", "cd/水位/7", "bad_json", "at byte 3", b'{"v":\xff\x00', "p1", "gw-1"
    ),
    Refusal(-5, "", "", "oversized", "", b"", None, None),
]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 11_620])
def test_readings_come_back_bit_for_bit(n: int) -> None:
    original = batch(n)
    body = encode_readings(original)
    assert rows_of(body) == n
    for given in (body, memoryview(body)):
        found = decode_readings(given)
        for name in RawBatch.__slots__:
            column, expected = getattr(found, name), getattr(original, name)
            assert column.dtype == expected.dtype
            assert column.tobytes() == expected.tobytes()


def test_decoding_readings_copies_nothing_and_keeps_columns_aligned() -> None:
    body = bytearray(encode_readings(batch(11)))
    found = decode_readings(memoryview(body))
    assert found.time.flags.aligned
    assert found.point.flags.aligned
    before = found.value[3]
    body[8 + 2 * 8 * 11 + 3 * 8 + 6] ^= 0x10
    assert found.value[3] != before


def test_columns_that_are_strided_or_of_other_types_are_written_as_the_contract_says() -> None:
    wide = np.arange(20)
    found = decode_readings(encode_readings(RawBatch(wide[::2], wide[::2], wide[1::2], wide[::2], wide[::2])))  # type: ignore[arg-type]
    assert found.point.tolist() == list(range(0, 20, 2))
    assert found.value.dtype == np.float64


def test_columns_of_unequal_length_are_refused() -> None:
    odd = batch(4)
    odd.value = odd.value[:3]
    with pytest.raises(RecordError, match="column value"):
        encode_readings(odd)


def test_a_readings_body_cut_anywhere_or_too_long_is_refused() -> None:
    body = encode_readings(batch(3))
    for n in range(len(body)):
        with pytest.raises(RecordError):
            decode_readings(body[:n])
    with pytest.raises(RecordError, match="has 95 bytes; this one has 96"):
        decode_readings(body + b"\0")
    with pytest.raises(RecordError):
        decode_readings(struct.pack("<I", 0xFFFFFFFF) + body[4:])


def test_refusals_come_back_with_every_field() -> None:
    assert decode_quarantine(encode_quarantine(REFUSALS)) == REFUSALS
    assert decode_quarantine(memoryview(encode_quarantine([]))) == []


EVENTS = [
    Event(
        "12345-7", "hotline", "appeal", "accepted", 1_700_000_000_000_000, "金牛区", "waterlogging", 104.06, 30.66,
        "cd-7", {"text": "积水 \"深\"", "km": 1.5, "none": None}, "地铁口", 1_700_000_000_000_001, 5,
    ),
    Event("", "", "", "", -1),
]  # fmt: skip


def test_events_come_back_with_every_field() -> None:
    for given in (encode_events(EVENTS), memoryview(encode_events(EVENTS))):
        assert decode_events(given) == EVENTS
    assert decode_events(encode_events([])) == []
    assert encode(EVENTS)[0] is RecordType.EVENT
    assert decode(*encode(EVENTS)) == EVENTS


def test_an_event_whose_text_or_attributes_cannot_be_written_is_escaped_or_refused() -> None:
    [found] = decode_events(
        encode_events([Event("\udc80", "s", "t", "s", 0, attributes={"\ud800": "\udfff"})])
    )
    assert (found.id, found.attributes) == ("\\udc80", {"\\ud800": "\\udfff"})
    with pytest.raises(RecordError, match="attributes"):
        encode_events([Event("1", "s", "t", "s", 0, attributes={"x": object()})])  # type: ignore[dict-item]


def test_an_event_body_cut_anywhere_or_corrupt_is_refused_or_has_as_many_rows() -> None:
    body = encode_events(EVENTS)
    for n in range(len(body)):
        with pytest.raises(RecordError):
            decode_events(body[:n])
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    refused = 0
    for _ in range(2000):
        bad = bytearray(body)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            assert len(decode_events(bytes(bad))) == len(EVENTS)
        except RecordError:
            refused += 1
    assert refused > 0


def test_raw_bytes_are_cut_at_the_limit_and_not_before() -> None:
    long = [Refusal(0, "s", "t", "r", "d", bytes(RAW_BYTES_MAX + extra)) for extra in (0, 1, 99)]
    assert [len(r.raw) for r in decode_quarantine(encode_quarantine(long))] == [RAW_BYTES_MAX] * 3


def test_text_that_utf8_cannot_hold_is_kept_readable() -> None:
    """A topic decoded with surrogate escapes must not stop the group it is in."""
    [found] = decode_quarantine(encode_quarantine([Refusal(0, "s", "a/\udc80", "r", "\ud800", b"")]))
    assert (found.topic, found.detail) == ("a/\\udc80", "\\ud800")


def test_a_quarantine_body_cut_anywhere_is_refused() -> None:
    body = encode_quarantine(REFUSALS)
    for n in range(len(body)):
        with pytest.raises(RecordError):
            decode_quarantine(body[:n])


def test_a_corrupt_quarantine_body_is_refused_or_has_as_many_rows() -> None:
    """The journal's checksum finds every such flip; decoding must merely never fall over it."""
    body = encode_quarantine(REFUSALS)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    refused = 0
    for _ in range(2000):
        bad = bytearray(body)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            assert len(decode_quarantine(bytes(bad))) == len(REFUSALS)
        except RecordError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (batch(5), RecordType.READINGS),
        (REFUSALS, RecordType.QUARANTINE),
        (Gap("link", 1, 0, "flood", "broker gone"), RecordType.GAP),
        (Gap("downtime", 1_700_000_000_000_000, 1_700_000_001_000_000), RecordType.GAP),
        (Tick(1_700_000_000_000_000, True, {"received": 1 << 40, "acked": 0}), RecordType.TICK),
        (Tick(0, False), RecordType.TICK),
        (Control("start", {"rules": "abc", "n": [1, {"深": None}]}), RecordType.CONTROL),
    ],
)
def test_every_body_has_its_type_and_comes_back(body: Body, kind: RecordType) -> None:
    found_kind, written = encode(body)
    assert found_kind is kind
    found = decode(kind, memoryview(written))
    if isinstance(found, RawBatch):
        found, body = found.time.tolist(), body.time.tolist()  # type: ignore[union-attr]
    assert found == body


@pytest.mark.parametrize(
    ("kind", "written", "complaint"),
    [
        (RecordType.GAP, b"{", "is not JSON"),
        (RecordType.GAP, b"[]", "not a JSON object"),
        (RecordType.GAP, b'{"kind":"link","begin":1}', "lacks end"),
        (RecordType.GAP, b'{"kind":"link","begin":1,"end":"2"}', "end: expected int"),
        (RecordType.TICK, b'{"now":true,"drained":true}', "now: expected int, got True"),
        (RecordType.TICK, b'{"now":1,"drained":1}', "drained: expected bool"),
        (RecordType.CONTROL, b"{}", "lacks type"),
        (RecordType.EVENT, b"{}", "EVENT body of 2 bytes is cut short"),
    ],
)
def test_a_wrong_json_body_is_named(kind: RecordType, written: bytes, complaint: str) -> None:
    with pytest.raises(RecordError, match=complaint):
        decode(kind, written)


def test_fields_of_a_later_version_are_left_out() -> None:
    assert decode(RecordType.TICK, b'{"now":1,"drained":true,"phase":2}') == Tick(1, True)


def test_what_json_cannot_hold_is_refused_at_once() -> None:
    with pytest.raises(RecordError, match="a control cannot be written"):
        encode(Control("x", {"y": object()}))
