"""JSON by mapping: whatever shape a stranger's messages have, ten keys of config make readings of them."""

from __future__ import annotations

import math
import os
import random
import time
from zoneinfo import ZoneInfo

import orjson
import pytest

from ingest.codecs.base import Parsed
from ingest.codecs.json_mapping import JsonMapping, depth_of, too_deep
from ingest.codecs.mapping import MappedBody
from ingest.codecs.paths import parse_path, spelled_path
from ingest.decode.refused import Refused
from ingest.simulate.encoders.base import Sent
from ingest.simulate.encoders.json import Encoder
from ingest.sourcesettings import SourceSettings

SEED = int(os.environ.get("YUZUI_SEED") or time.time())
CITY = ZoneInfo("Asia/Shanghai")
S = 1_790_000_000
US = S * 1_000_000


def read(body: object, **keys: object) -> list[tuple[str, str, int | None, float | str, int]]:
    """(device, quantity, time, value, flag) of every reading; refusals fail."""
    parsed = parse(body, **keys)
    assert [(r.reason, r.detail) for r in parsed.refusals] == []
    return rows(parsed)


def rows(parsed: Parsed) -> list[tuple[str, str, int | None, float | str, int]]:
    return [
        (*key, at, "missing" if math.isnan(value) else value, flag)
        for key, at, value, flag in zip(parsed.keys, parsed.times, parsed.values, parsed.flags, strict=True)
    ]


def parse(body: object, **keys: object) -> Parsed:
    settings = SourceSettings.model_validate({"name": "s", "time_unit": "s", **keys})
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return JsonMapping(settings, CITY).parse("t", raw)


def all_refused(body: object, **keys: object) -> list[str]:
    """Reasons, of the whole or of parts, of a message without a good reading."""
    try:
        parsed = parse(body, **keys)
    except Refused as whole:
        return [whole.reason]
    assert len(parsed) == 0
    return [r.reason for r in parsed.refusals]


def test_an_array_of_readings_under_an_envelope_with_the_device_and_the_time() -> None:
    body = {"dev": "A", "t": S, "readings": [{"n": "pm25", "v": 31}, {"n": "o3", "v": 2.5}]}
    assert read(body, device="dev", time="t", quantity="readings[].n", value="readings[].v") == [
        ("A", "pm25", US, 31, 0),
        ("A", "o3", US, 2.5, 0),
    ]


def test_an_object_whose_keys_are_quantities_brings_a_reading_each() -> None:
    body = {"dev": "A", "t": S, "metrics": {"pm25": 31, "o3": None}}
    assert read(body, device="dev", time="t", value="metrics.*") == [
        ("A", "pm25", US, 31, 0),
        ("A", "o3", US, "missing", 0),
    ]


def test_an_object_of_objects_with_value_and_state_each() -> None:
    body = {"dev": "A", "t": S, "m": {"ph": {"val": 7.1, "st": "N"}, "do": {"val": 6, "st": "D"}}}
    got = read(body, device="dev", time="t", value="m.*.val", flag="m.*.st", flags={"N": 1, "D": 4})
    assert got == [("A", "ph", US, 7.1, 1), ("A", "do", US, 6, 4)]


def test_quantities_beside_everything_else_are_taken_by_name() -> None:
    body = {"id": 7, "ts": S, "wl": 1.2, "rain": 0.5, "battery": 3.6, "fw": "1.0"}
    quantities = {"wl": {}, "rain": {}, "flow": {}}
    assert read(body, value="*", quantities=quantities) == [
        ("7", "wl", US, 1.2, 0),
        ("7", "rain", US, 0.5, 0),
    ]


def test_stations_with_series_of_their_own() -> None:
    body = {
        "stations": [
            {"id": "a", "data": [{"t": S, "v": 1}, {"t": S + 1, "v": 2}]},
            {"id": "b", "data": [{"t": S, "v": 3}]},
        ]
    }
    got = read(body, device="stations[].id", time="stations[].data[].t", value="stations[].data[].v")
    assert got == [("a", "", US, 1, 0), ("a", "", US + 1_000_000, 2, 0), ("b", "", US, 3, 0)]


def test_keys_of_an_object_as_devices() -> None:
    body = {"t": S, "rooms": {"k1": {"temp": 4.0, "hum": 60}, "k2": {"temp": 5.0}}}
    assert read(body, time="t", device="rooms.*", value="rooms.*.*") == [
        ("k1", "temp", US, 4.0, 0),
        ("k1", "hum", US, 60, 0),
        ("k2", "temp", US, 5.0, 0),
    ]


def test_rows_that_are_arrays() -> None:
    body = {"id": "q", "values": [[S, 2.5], [S + 1, 3.5]]}
    got = read(body, device="id", time="values[][0]", value="values[][1]")
    assert got == [("q", "", US, 2.5, 0), ("q", "", US + 1_000_000, 3.5, 0)]


def test_paths_relative_to_readings_and_from_the_body() -> None:
    body = {"head": {"sn": "x"}, "data": {"items": [{"ts": S, "v": 1}]}}
    assert read(body, readings="data.items", device="$.head.sn") == [("x", "", US, 1, 0)]


def test_a_batch_of_what_single_messages_are_is_read_as_well() -> None:
    keys: dict[str, object] = {"device": "d", "time": "t", "value": "m.*"}
    one = {"d": "a", "t": S, "m": {"x": 1}}
    assert read([one, one | {"d": "b"}], **keys) == [("a", "x", US, 1, 0), ("b", "x", US, 1, 0)]


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (S, {"time_unit": "s"}),
        (float(S), {"time_unit": "s"}),
        (S * 1000, {"time_unit": "ms"}),
        (US * 1000, {"time_unit": "ns"}),
        ("2026-09-21T14:13:20Z", {}),
        ("2026-09-21T22:13:20", {}),
        ("20260921221320", {"time_format": "%Y%m%d%H%M%S"}),
        ("21/09/2026 22:13:20", {"time_format": "%d/%m/%Y %H:%M:%S"}),
        (str(S), {"time_unit": "s", "text_numbers": True}),
    ],
)
def test_times_as_systems_write_them(given: object, keys: dict[str, object]) -> None:
    assert read({"id": "a", "ts": given, "v": 1}, device="id", **keys) == [("a", "", US, 1, 0)]
    many = [{"id": "a", "ts": given, "v": 1}] * 2
    assert {row[2] for row in read(many, device="id", **keys)} == {US}


def test_numbers_as_text_only_where_declared() -> None:
    body = {"id": "a", "ts": S, "v": " 12.50 "}
    assert read(body, device="id", text_numbers=True) == [("a", "", US, 12.5, 0)]
    assert [r.reason for r in parse(body, device="id").refusals] == ["wrong_type"]
    for text in ("nan", "inf", "1_000", "0x10", "12 m", "１２x"):
        bad = parse({"id": "a", "ts": S, "v": text}, device="id", text_numbers=True)
        assert [r.reason for r in bad.refusals] == ["wrong_type"], text


def test_the_good_readings_of_a_message_stay_and_each_bad_one_is_refused_once() -> None:
    body = {
        "dev": "A",
        "rows": [
            {"n": "ok", "t": S, "v": 1},
            {"n": "text", "t": S, "v": "high"},
            {"n": "flag", "t": S, "v": 1, "q": 77},
            {"n": "truth", "t": S, "v": True},
            {"n": "none", "t": S},
            {"t": S, "v": 1},
            {"n": True, "t": S, "v": 1},
            {"n": "time", "t": "yesterday", "v": 1},
            "noise",
            {"n": "ok2", "t": S, "v": 2, "q": 3},
        ],
    }
    parsed = parse(body, readings="rows", device="$.dev", quantity="n", time="t", value="v", flag="q")
    assert rows(parsed) == [("A", "ok", US, 1, 0), ("A", "ok2", US, 2, 3)]
    assert [r.reason for r in parsed.refusals] == [
        "wrong_type", "wrong_type", "wrong_type", "no_value", "no_id", "wrong_type", "bad_time", "no_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "bad_json"),
        (b'{"v":NaN}', "bad_json"),
        (b"", "bad_json"),
        ({"t": S}, "wrong_shape"),
        ({"t": S, "m": []}, "wrong_shape"),
        ({"t": S, "m": {}}, "no_value"),
        ("text", "wrong_shape"),
        (None, "wrong_shape"),
        ([], "wrong_shape"),
        (b'{"m":' + b"[" * 20 + b"]" * 20 + b"}", "too_deep"),
        ({"t": S, "m": {str(i): 1 for i in range(11)}}, "too_many_readings"),
    ],
)
def test_a_message_of_which_nothing_can_be_read(body: object, reason: str) -> None:
    assert all_refused(body, device="d", time="t", value="m.*", readings_per_message_max=10) == [reason]


def test_flags_are_words_of_the_source_or_qartods_numbers() -> None:
    body = {"id": "a", "ts": S, "v": 1, "q": 4}
    assert read(body, flag="q") == [("a", "", US, 1, 4)]
    assert read(body | {"q": "0"}, flag="q", flags={"0": 1, "1": 3}) == [("a", "", US, 1, 1)]
    assert read(body | {"q": 0}, flag="q", flags={"0": 1, "1": 3}) == [("a", "", US, 1, 1)]
    assert [r.reason for r in parse(body, flag="q", flags={"ok": 1}).refusals] == ["wrong_type"]


def test_the_plain_field_names_go_on_working_in_a_mapped_source() -> None:
    body = {"sn": "a", "when": S, "val": 2, "qc": 3}
    keys: dict[str, object] = {
        "id_field": "sn",
        "time_field": "when",
        "value_field": "val",
        "flag_field": "qc",
    }
    assert read(body, topics=["x/#"], **keys) == [("a", "", US, 2, 3)]


def test_equal_but_different_names_are_not_taken_for_each_other_by_a_message_of_the_same_shape() -> None:
    settings = SourceSettings.model_validate(
        {"name": "s", "time": "t", "readings": "r", "device": "d", "value": "v", "time_unit": "s"}
    )
    codec = JsonMapping(settings, CITY)

    def devices(*named: object) -> list[str]:
        parsed = codec.parse("t", orjson.dumps({"r": [{"t": S, "d": d, "v": 1} for d in named]}))
        return [device for device, _ in parsed.keys] + [r.reason for r in parsed.refusals]

    assert devices(1, 2) == ["1", "2"]
    assert devices("1", "2") == ["1", "2"]
    assert devices(True, 2) == ["2", "wrong_type"]
    assert devices(1.0, 2) == ["2", "wrong_type"]
    assert devices(1, "2") == ["1", "2"]


def test_depth_is_found_without_recursion_and_brackets_in_text_do_not_count() -> None:
    for depth in (1, 5, 16, 17, 900):
        raw = b"[" * depth + b"]" * depth
        assert too_deep(raw, 16) == (depth > 16)
        assert depth_of(orjson.loads(raw)) == depth
    tricky = orjson.dumps({"a": "]][[{{" * 10, "ts": S, "id": "x", "v": 1})
    assert too_deep(tricky, 16)
    assert read(tricky, device="id") == [("x", "", US, 1, 0)]


@pytest.mark.parametrize(
    "text", ["a.b", "a[].b", "$", "a[3].b", "*", "m.*.v", '"a.b".c', "rows[][1]", "[].v", '"*"']
)
def test_a_path_is_spelled_as_it_was_read(text: str) -> None:
    assert parse_path(spelled_path(parse_path(text))) == parse_path(text)


@pytest.mark.parametrize("text", ["a..b", ".a", "a.", "a[b]", "a[", 'a"b"', "a.[]", '"a', ".".join("a" * 17)])
def test_a_path_that_is_none_says_where(text: str) -> None:
    with pytest.raises(ValueError, match='"'):
        parse_path(text)


@pytest.mark.parametrize(
    "keys",
    [
        {"value": "a[].v", "time": "b[].t"},
        {"value": "a[].v", "device": "a[].x[].d", "time": "c[].t"},
        {"value": "m.*", "device": "n.*"},
    ],
)
def test_paths_that_walk_through_different_parts_are_no_mapping(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="different parts"):
        MappedBody(SourceSettings.model_validate({"name": "s", **keys}), CITY)


SHAPES: list[dict[str, object]] = [
    {"device": "d", "time": "t", "value": "m.*"},
    {"device": "d", "time": "t", "value": "m.*.v", "flag": "m.*.q"},
    {"device": "d", "time": "t", "quantity": "r[].n", "value": "r[].v", "flag": "r[].q"},
    {"device": "r[].d", "time": "r[].t", "quantity": "r[].n", "value": "r[].v"},
    {"device": "r[].d", "time": "r[].x[].t", "quantity": "r[].x[].n", "value": "r[].x[].v"},
    {"device": "s.*", "time": "t", "value": "s.*.*"},
    {"device": "[][0]", "time": "[][1]", "quantity": "[][2]", "value": "[][3]"},
    {"device": "a.d", "time": "a.t", "quantity": "a.n", "value": "b[1].v", "time_unit": "us"},
    {"topics": ["up/{device}/{quantity}"], "time": "t", "value": "v", "time_format": "%Y-%m-%d %H:%M:%S.%f"},
    {"device": "d", "time": "t", "value": "*", "quantities": {"pm25": {}, "o3": {}}},
]


@pytest.mark.parametrize("keys", SHAPES, ids=lambda k: str(k["value"]))
def test_both_ways_say_the_same_and_both_read_what_the_encoder_wrote(keys: dict[str, object]) -> None:
    print(f"YUZUI_SEED={SEED}")
    dice = random.Random(SEED)
    settings = SourceSettings.model_validate({"name": "s", **keys})
    encoder, body = Encoder(settings, CITY), MappedBody(settings, CITY)
    for _ in range(30):
        sent = {
            (device, quantity, at): Sent(
                device, quantity, at, dice.choice([dice.uniform(-9, 9), 3, math.nan])
            )
            for device in dice.sample(["a", "b", "c"], dice.randint(1, 3))
            for at in sorted(US + dice.randrange(1000) * 1000 for _ in range(2))
            for quantity in dice.sample(["pm25", "o3"], dice.randint(1, 2))
        }
        seen = []
        for topic, raw in encoder.messages(list(sent.values())):
            loaded = orjson.loads(raw)
            plan = body._many if isinstance(loaded, list) and body._many else body._one
            quick, careful = body._quick(plan, loaded), body._carefully(plan, loaded)
            assert sorted(map(str, rows(quick))) == sorted(map(str, rows(careful)))
            assert careful.refusals == []
            levels = topic.split("/")
            seen += [
                (d or levels[1], q or levels[2], at, value, flag) for d, q, at, value, flag in rows(quick)
            ]
        assert sorted(map(str, seen)) == sorted(
            str((s.device, s.quantity, s.time_us, "missing" if math.isnan(s.value) else s.value, 0))
            for s in sent.values()
        )
