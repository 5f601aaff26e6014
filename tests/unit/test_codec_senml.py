"""SenML in JSON and CBOR says what RFC 8428 says, whichever way a pack takes through the codec."""

from __future__ import annotations

import math
import random
from typing import Any

import cbor2
import orjson
import pytest

from ingest.codecs.base import Parsed
from ingest.decode.refused import Refused
from tests.codecs import T0, T0_S, codec_of, reasons, rows

LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5,
    "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip


def in_json(pack: Any, **settings: Any) -> Parsed:
    return codec_of("senml", **settings).parse("t", orjson.dumps(pack))


def in_cbor(pack: Any, **settings: Any) -> Parsed:
    labelled = [{LABELS.get(k, k): v for k, v in r.items()} if isinstance(r, dict) else r for r in pack]
    return codec_of("senml-cbor", **settings).parse("t", cbor2.dumps(labelled))


@pytest.fixture(params=[in_json, in_cbor], ids=["json", "cbor"])
def read(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_base_fields_resolve(read: Any) -> None:
    pack = [
        {"bn": "urn:dev:ow:10e2073a01080063:", "bt": T0_S, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1},
        {"bn": "urn:dev:ow:99:", "bv": 10, "n": "current", "v": 1.5},
        {"n": "on", "vb": True},
    ]  # fmt: skip
    ow = "urn:dev:ow:10e2073a01080063"
    assert rows(read(pack)) == [
        ((ow, "voltage"), T0, 120.1),
        ((ow, "current"), T0 - 5_000_000, 1.2),
        ((ow, "current"), T0 - 4_000_000, 1.0),
        (("urn:dev:ow:99", "current"), T0, 11.5),
        (("urn:dev:ow:99", "on"), T0, 1.0),
    ]


def test_times_below_2_to_the_28_are_relative_to_the_receipt(read: Any) -> None:
    parsed = read([{"n": "a:x", "v": 1, "t": -2.5}, {"n": "a:y", "v": 2}, {"n": "a:z", "v": 3, "t": 2**28}])
    assert parsed.times == [None, None, 2**28 * 1_000_000]
    assert parsed.offsets == {0: -2_500_000}


def test_sums_are_quantities_of_their_own(read: Any) -> None:
    parsed = read([{"bn": "m:", "bt": T0_S, "bs": 100, "n": "flow", "v": 2, "s": 5}, {"n": "rain", "s": 7}])
    assert rows(parsed) == [
        (("m", "flow"), T0, 2.0),
        (("m", "flow.sum"), T0, 105.0),
        (("m", "rain.sum"), T0, 107.0),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"n": "a:b", "vs": "on"}, "wrong_type"),
        ({"n": "a:b", "v": "1"}, "wrong_type"),
        ({"n": "a:b", "v": True}, "wrong_type"),
        ({"n": "a:b", "vb": 1}, "wrong_type"),
        ({"n": "a:b", "v": None}, "wrong_type"),
        ({"n": "a:b", "v": 1, "vb": True}, "wrong_shape"),
        ({"n": "a:b"}, "no_value"),
        ({"n": "a:b", "u": "Cel", "t": T0_S}, "no_value"),
        ({"n": "ä:b", "v": 1}, "bad_name"),
        ({"n": ":b", "v": 1}, "bad_name"),
        ({"n": "a b", "v": 1}, "bad_name"),
        ({"n": 5, "v": 1}, "wrong_type"),
        ({"v": 1}, "no_id"),
        ({"n": "a:b", "v": 1, "t": "now"}, "wrong_type"),
        ({"n": "a:b", "v": 1, "t": 1e15}, "bad_time"),
        ([1], "wrong_shape"),
        ("text", "wrong_shape"),
    ],
)
def test_one_bad_record_is_refused_and_the_others_stay(read: Any, record: Any, reason: str) -> None:
    good = [{"n": f"g:{i}", "v": i, "t": T0_S} for i in range(5)]
    parsed = read([*good[:3], record, *good[3:]])
    assert reasons(parsed) == [reason]
    assert rows(parsed) == [(("g", str(i)), T0, float(i)) for i in range(5)]


@pytest.mark.parametrize(
    ("pack", "reason"),
    [
        ([], "wrong_shape"),
        ([{"bver": 11, "n": "a", "v": 1}], "wrong_version"),
        ([{"bver": "10", "n": "a", "v": 1}], "wrong_version"),
        ([{"n": "a", "v": 1}, {"bt": "x", "n": "a", "v": 1}], "wrong_type"),
        ([{"bn": 1, "n": "a", "v": 1}], "wrong_type"),
        ([{"n": "a", "v": 1, "new_": 1}], "wrong_shape"),
        ([{"n": "a", "v": 1}] * 11, "too_many_readings"),
    ],
)
def test_what_would_change_the_meaning_of_the_rest_refuses_the_whole(
    read: Any, pack: Any, reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        read(pack, readings_per_message_max=10)
    assert refused.value.reason == reason


def test_unknown_labels_are_ignored_and_secondary_units_ask_nothing(read: Any) -> None:
    assert rows(read([{"bver": 26, "n": "a:b", "v": 1, "t": T0_S, "new": [1], "ut": 5}])) == [
        (("a", "b"), T0, 1.0)
    ]


def test_names_by_a_pattern_and_from_the_topic() -> None:
    pack = [{"bn": "urn:dev:mac:01_", "n": "temp", "v": 1, "t": T0_S}]
    assert in_json(pack, senml={"name": "urn:dev:mac:{device}_{quantity}"}).keys == [("01", "temp")]
    assert in_json(pack, senml={"name": "{device}"}).keys == [("urn:dev:mac:01_temp", "")]
    assert in_json([{"n": "temp", "v": 1}], device="topic:1").keys == [("", "temp")]
    assert reasons(in_json(pack, senml={"name": "urn:dev:ow:{device}:{quantity}"})) == ["bad_name"]
    with pytest.raises(ValueError, match="apart"):
        in_json(pack, senml={"name": "{device}{quantity}"})


def test_cbor_of_every_kind_of_number_and_a_missing_value() -> None:
    from decimal import Decimal

    pack = [
        {"bt": T0_S, "n": "a:1", "v": Decimal("1.25")},
        {"n": "a:2", "v": math.nan},
        {"n": "a:3", "v": 2**70},
    ]
    parsed = in_cbor([*pack, {"n": "a:4", "v": math.inf}])
    assert parsed.values[0] == 1.25
    assert math.isnan(parsed.values[1])
    assert (parsed.values[2], parsed.flags) == (float(2**70), [0, 9, 0])
    assert reasons(parsed) == ["not_finite"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"\x80\x00", b"\x9b" + b"\xff" * 8, b"\x81" * 5000, b"\xd8\x1c\x81\xd8\x1d\x00", b"\xa0"],
)
def test_bytes_that_are_no_cbor_pack(raw: bytes) -> None:
    with pytest.raises(Refused):
        raise codec_of("senml-cbor").parse("t", raw).refusals[0]


def test_the_quick_way_and_the_careful_way_say_the_same() -> None:
    """A pack read whole is what its records say one by one, whatever is mixed in. Seed printed."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(300):
        pack = [_record(draw) for _ in range(draw.randrange(1, 9))]
        pack[0] |= {"bn": draw.choice(["d1:", "d2/"]), "bt": draw.choice([0, T0_S, T0_S + 0.5])}
        whole = _said(pack)
        # An unknown field in each record sends every record the careful way.
        assert whole == _said([r | {"other": 1} for r in pack]), pack


def _record(draw: random.Random) -> dict[str, Any]:
    record: dict[str, Any] = {"n": draw.choice("abc"), "v": draw.choice([1, 2.5, -3])}
    if draw.random() < 0.4:
        record["t"] = draw.choice([0, 1, -2, 0.25])
    if draw.random() < 0.2:
        record["u"] = "Cel"
    if draw.random() < 0.1:
        record |= draw.choice([{"bn": "d3:"}, {"bv": 4}, {"bs": 2}, {"v": "x"}, {"bt": 5}, {"n": "?"}])
    return record


def _said(pack: list[dict[str, Any]]) -> tuple[Any, ...]:
    parsed = in_json(pack)
    return rows(parsed), reasons(parsed), parsed.offsets, parsed.flags
