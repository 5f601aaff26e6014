"""JSON payloads become readings or refusals; what is good in a message is never lost to what is bad."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import pytest

from ingest.config import Config, SourceSettings
from ingest.decode.messages import Chunk, Messages
from ingest.routes import Routes
from storage.records import Refusal
from tests.tables import point_table

NOW = 1_790_000_000_000_000
MS = NOW // 1000
SUITE = Path(__file__).resolve().parents[3] / "shared" / "data" / "json-suite"


def decode(
    *messages: tuple[str, bytes],
    source: SourceSettings | None = None,
    on_receipt: tuple[int, ...] = (),
    from_broker: bool = False,
    retained: bool = False,
) -> tuple[list[tuple[int, int, float, int]], list[Refusal], Messages, dict[int, str]]:
    """Feed messages through anonymous routes: (rows, refusals, messages, refused indices)."""
    settings = source or SourceSettings(name="flood", gateway_topic="cd/{gateway}/batch")
    routes = Routes(point_table(on_receipt=on_receipt), Config(source=[settings]))
    routes.set_window(NOW)
    decoder = Messages(routes, 1000)
    table = routes.table(None, lambda _name, _topic: True)
    heads = [0x32 | retained] * len(messages)
    chunk = Chunk([t.encode() for t, _ in messages], [p for _, p in messages], heads, "client-1", from_broker)
    refused = decoder.feed(table, chunk, NOW)
    batch, refusals = decoder.take(NOW)
    rows = list(
        zip(
            batch.point.tolist(),
            batch.time.tolist(),
            batch.value.tolist(),
            batch.device_flag.tolist(),
            strict=True,
        )
    )
    return rows, refusals, decoder, refused


def test_a_flat_object_on_its_points_topic_is_one_reading() -> None:
    rows, refusals, decoder, _ = decode(
        ("cd/g1/p1", b'{"ts":%d,"v":12.5}' % MS), ("cd/g0/p2", b'{"v":-3,"ts":%d}' % MS)
    )
    assert rows == [(1, NOW, 12.5, 0), (2, NOW, -3.0, 0)]
    assert refusals == []
    assert decoder.counts["received"] == 2


def test_key_order_whitespace_and_extra_keys_change_nothing() -> None:
    payload = b' { "site" : {"a":[1]} , "v" : 1.5e1 , "ts" : %d , "q" : 3 } ' % MS
    assert decode(("cd/g0/p0", payload))[0] == [(0, NOW, 15.0, 3)]


def test_a_gateway_topic_takes_an_array_with_an_id_a_reading() -> None:
    payload = orjson.dumps([{"id": "p0", "ts": MS, "v": 1.0}, {"id": "p2", "ts": MS + 1, "v": 2}])
    assert decode(("cd/g0/batch", payload))[0] == [(0, NOW, 1.0, 0), (2, NOW + 1000, 2.0, 0)]


def test_good_readings_of_a_message_are_stored_and_each_bad_one_is_refused_once_with_its_own_bytes() -> None:
    payload = orjson.dumps(
        [
            {"id": "p0", "ts": MS, "v": 1.0},
            {"id": "p1", "ts": MS, "v": 1.0},
            {"id": "nobody", "ts": MS, "v": 1.0},
            {"id": "p2", "ts": MS, "v": "high"},
            {"ts": MS, "v": 1.0},
            {"id": "p2", "v": 4.0},
            {"id": "p2", "ts": MS - 8 * 86_400_000, "v": 5.0},
            [],
        ]
    )
    rows, refusals, decoder, refused = decode(("cd/g0/batch", payload))
    assert rows == [(0, NOW, 1.0, 0)]
    assert [r.reason for r in refusals] == [
        "identity_mismatch", "unknown_point", "wrong_type", "no_id", "no_time", "time_window", "wrong_shape",
    ]  # fmt: skip
    assert orjson.loads(refusals[1].raw) == {"id": "nobody", "ts": MS, "v": 1.0}
    assert decoder.counts["received"] == 8
    assert decoder.counts["quarantined"] == 7
    assert list(refused) == [0]


def test_identity_comes_from_the_topic_and_a_payload_that_disagrees_is_refused() -> None:
    rows, refusals, _, refused = decode(("cd/g0/p0", b'{"id":"p1","ts":%d,"v":1.0}' % MS))
    assert rows == []
    assert [r.reason for r in refusals] == ["identity_mismatch"]
    assert refused == {0: "identity_mismatch"}


def test_a_bare_number_is_a_reading_only_where_the_registry_times_on_receipt() -> None:
    rows, refusals, decoder, _ = decode(("cd/g0/p0", b" 12.25 "), ("cd/g1/p1", b"-7"), on_receipt=(1,))
    assert rows == [(1, NOW, -7.0, 0)]
    assert [r.reason for r in refusals] == ["no_time"]
    assert decoder.counts["untimed"] == 1


def test_a_brokers_retained_message_is_a_reading_only_with_a_time_of_its_own() -> None:
    messages = (("cd/g1/p1", b"-7"), ("cd/g1/p1", b'{"v":1.0}'), ("cd/g0/p0", b'{"ts":%d,"v":2.0}' % MS))
    rows, refusals, decoder, _ = decode(*messages, on_receipt=(1,), from_broker=True, retained=True)
    assert rows == [(0, NOW, 2.0, 0)]
    assert refusals == []
    assert decoder.counts["retained_ignored"] == 2
    assert decoder.counts["received"] == 3


def test_null_is_a_missing_value_with_flag_9_and_so_is_a_sources_missing_code() -> None:
    source = SourceSettings(name="flood", missing_values=[-9999.0])
    rows = decode(
        ("cd/g0/p0", b'{"ts":%d,"v":null}' % MS), ("cd/g1/p1", b'{"ts":%d,"v":-9999}' % MS), source=source
    )[0]
    assert [(p, math.isnan(v), f) for p, _, v, f in rows] == [(0, True, 9), (1, True, 9)]


@pytest.mark.parametrize(
    ("value", "expected_us"),
    [
        (b'"2026-09-21T22:13:20+08:00"', 1_790_000_000_000_000),
        (b'"2026-09-21T14:13:20Z"', 1_790_000_000_000_000),
        (b'"2026-09-21 22:13:20.125"', 1_790_000_000_125_000),
        (b"1790000000000.5", 1_790_000_000_000_500),
    ],
)
def test_times_are_read_in_the_declared_unit_or_as_iso_in_the_sources_zone(
    value: bytes, expected_us: int
) -> None:
    source = SourceSettings(name="flood", time_zone="Asia/Shanghai")
    assert decode(("cd/g0/p0", b'{"ts":%s,"v":1.0}' % value), source=source)[0] == [(0, expected_us, 1.0, 0)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b'{"ts":1790000000000,"v":NaN}', "bad_json"),
        (b'{"ts":1790000000000,"v":Infinity}', "bad_json"),
        (b'{"ts":1790000000000,"v":1e999}', "not_finite"),
        (b"[" * 17 + b"]" * 17, "too_deep"),
        (b"[" * 100_000, "bad_json"),
        (b'"text"', "wrong_shape"),
        (b"null", "wrong_shape"),
        (b"true", "wrong_shape"),
        (b"[]", "wrong_shape"),
        (b'{"ts":1790000000000}', "no_value"),
        (b'{"ts":1790000000000,"v":true}', "wrong_type"),
        (b'{"ts":1790000000000,"v":"1"}', "wrong_type"),
        (b'{"ts":1790000000000,"v":1.0,"q":7}', "wrong_type"),
        (b'{"ts":1790000000000,"v":1.0,"id":5}', "wrong_type"),
        (b'{"v":1.0}', "no_time"),
        (b'{"ts":true,"v":1.0}', "bad_time"),
        (b'{"ts":null,"v":1.0}', "bad_time"),
        (b'{"ts":"yesterday","v":1.0}', "bad_time"),
        (b'{"ts":"2026-09-21","v":1.0}', "bad_time"),
        (b'{"ts":1e300,"v":1.0}', "bad_time"),
        (b'{"ts":0,"v":1.0}', "time_window"),
        (b'{"ts":1790000601000,"v":1.0}', "time_window"),
        (
            b'[{"ts":1790000000000,"v":1.0}' + b',{"ts":1790000000000,"v":1.0}' * 10_000 + b"]",
            "too_many_readings",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    rows, refusals, decoder, refused = decode(("cd/g0/p0", payload))
    assert rows == []
    assert [r.reason for r in refusals] == [reason]
    assert decoder.counts["received"] == decoder.counts["quarantined"] == 1
    assert refused == {0: reason}


def test_two_readings_timed_on_receipt_in_one_poll_are_two_readings() -> None:
    """At the same microsecond the second would revise the first, and an acknowledged reading be gone."""
    rows = decode(("cd/g1/p1", b"1"), ("cd/g1/p1", b'{"v":2}'), ("cd/g1/p3", b"3"), on_receipt=(1, 3))[0]
    assert rows == [(1, NOW, 1.0, 0), (1, NOW + 1, 2.0, 0), (3, NOW, 3.0, 0)]


def test_an_element_nested_deeper_than_can_be_written_again_is_refused_with_the_whole_message() -> None:
    source = SourceSettings(name="flood", depth_max=512)
    payload = b"[1," + b"[" * 300 + b"]" * 300 + b"]"
    rows, refusals, _, _ = decode(("cd/g0/p0", payload), source=source)
    assert rows == []
    assert [(r.reason, r.raw) for r in refusals] == [("no_time", b"1"), ("wrong_shape", payload)]


def test_unknown_topics_are_kept_up_to_a_bound_a_minute_and_counted_beyond_it() -> None:
    rows, refusals, decoder, _ = decode(*((f"cd/x/{i}", b"1") for i in range(1500)))
    assert rows == []
    assert len(refusals) == 1000
    assert decoder.counts["quarantined"] == 1500
    assert decoder.counts["quarantined_not_kept"] == 500


def test_a_credential_that_may_not_publish_to_a_topic_is_refused_not_allowed() -> None:
    routes = Routes(point_table(), Config(source=[SourceSettings(name="flood")]))
    routes.set_window(NOW)
    decoder = Messages(routes, 1000)
    table = routes.table("gateway-0", lambda _name, topic: topic.startswith("cd/g0/"))
    payload = b'{"ts":%d,"v":1.0}' % MS
    chunk = Chunk([b"cd/g0/p0", b"cd/g1/p1"], [payload, payload], b"22", "c")
    assert decoder.feed(table, chunk, NOW) == {1: "not_allowed"}
    batch, refusals = decoder.take(NOW)
    assert batch.point.tolist() == [0]
    assert [(r.reason, r.topic, r.source) for r in refusals] == [("not_allowed", "cd/g1/p1", "flood")]


def test_rows_of_one_poll_are_put_in_order_of_time_where_a_point_repeats() -> None:
    payload = orjson.dumps([{"ts": MS - k, "v": float(k)} for k in (0, 2, 1)])
    assert [r[2] for r in decode(("cd/g0/p0", payload))[0]] == [2.0, 1.0, 0.0]


@pytest.mark.shared
@pytest.mark.skipif(not SUITE.is_dir(), reason=f"the JSON suite is not at {SUITE.parent.name}/{SUITE.name}")
@pytest.mark.parametrize("place", ["whole payload", "value of a reading"])
def test_318_cases_of_the_json_suite_are_told_apart(place: str) -> None:
    """y_ cases are never refused as bad JSON, n_ cases always are, i_ cases either; good neighbours are all stored."""
    cases = sorted(SUITE.glob("*.json"))
    assert len(cases) == 318
    wrong = []
    good = b'{"ts":%d,"v":1.0}' % MS
    for case in cases:
        raw = case.read_bytes()
        payload = raw if place == "whole payload" else b'{"ts":%d,"v":%s}' % (MS, raw)
        rows, refusals, _, _ = decode(("cd/g1/p1", good), ("cd/g0/p0", payload), ("cd/g1/p3", good))
        assert [r[0] for r in rows if r[0] in (1, 3)] == [1, 3]
        bad_json = bool(refusals) and refusals[0].reason == "bad_json"
        expected = {"y": False, "n": True}.get(case.name[0])
        # Inside an object some n_ cases become valid: `1]` stays wrong, white space alone does too.
        if expected is not None and bad_json != expected and place == "whole payload":
            wrong.append(case.name)
        if expected is False and bad_json:
            wrong.append(case.name)
    assert wrong == []
