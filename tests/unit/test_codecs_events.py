"""[source.event]: messages to events, and each thing that does not map a refusal that quotes nobody."""

from __future__ import annotations

import json
import random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingest.codecs.base import Codec, Parsed
from ingest.codecs.events import TEXT_CHARS_MAX
from ingest.codecs.masking import MASK
from ingest.codecs.table import make_codec
from ingest.decode.reasons import REASONS
from ingest.decode.refused import Refused
from ingest.eventsettings import EventSettings, event_faults
from ingest.sourcesettings import SourceSettings
from storage.records import STATES, Event, decode_events, encode_events

SHANGHAI = ZoneInfo("Asia/Shanghai")
TABLE: dict[str, Any] = {
    "type": "appeal",
    "events": "data.orders",
    "id": "no",
    "state": "status",
    "states": {"受理": "accepted", "派单": "assigned", "办结": "closed", "7": "rated"},
    "time": "at",
    "due": "deadline",
    "category": "kind",
    "district": "$.area.name",
    "name": "place",
    "lon": "gps[0]",
    "lat": "gps[1]",
    "point": "sensor",
    "attributes": {"satisfied": "visit.result", "text": "content", "channel": "=telephone"},
    "words": {"category": {"积水": "waterlogging"}, "satisfied": {"满意": 1.0, "不满意": 0.0}},
}
ORDER: dict[str, Any] = {
    "no": "20260701-0007", "status": "派单", "at": "2026-07-01 08:30:00", "deadline": "2026-07-02 08:30:00",
    "kind": "积水", "place": "茶店子地铁口", "gps": [104.02, 30.71], "sensor": "cd-7",
    "content": "积水很深,联系 13800138000", "caller": "王某某", "phone": "13800138000", "visit": {"result": "满意"},
}  # fmt: skip
AT = 1_782_865_800_000_000


def settings(personal: bool = True, **table: Any) -> SourceSettings:
    return SourceSettings.model_validate(
        {
            "name": "hotline", "topics": ["hotline/orders"], "personal": personal,
            "time_format": "%Y-%m-%d %H:%M:%S", "event": {**TABLE, **table},
        }
    )  # fmt: skip


def read(body: Any, personal: bool = True, **table: Any) -> tuple[list[Event], list[Refused]]:
    parsed = make_codec("json", settings(personal, **table), SHANGHAI).parse("t", json.dumps(body).encode())
    return parsed.events, parsed.refusals


def one(order: dict[str, Any], personal: bool = True, **table: Any) -> Event:
    events, refused = read({"area": {"name": "金牛区"}, "data": {"orders": [order]}}, personal, **table)
    assert refused == []
    return events[0]


def refusal(order: Any, personal: bool = True, **table: Any) -> Refused:
    events, refused = read({"data": {"orders": order}}, personal, **table)
    assert events == []
    assert refused[0].reason in REASONS
    return refused[0]


def test_only_what_is_mapped_enters_and_numbers_of_persons_do_not() -> None:
    assert one(ORDER) == Event(
        "20260701-0007", "hotline", "appeal", "assigned", AT, "金牛区", "waterlogging", 104.02, 30.71, "cd-7",
        {"satisfied": 1.0, "text": "积水很深,联系 ***", "channel": "telephone"}, "茶店子地铁口",
        AT + 86_400_000_000,
    )  # fmt: skip


def test_what_is_not_there_is_empty_and_the_event_stands() -> None:
    bare = {"no": 7, "status": 7, "at": "2026-07-01 08:30:00"}
    found = one(bare)
    assert (found.id, found.state, found.at_us, found.due_us) == ("7", "rated", AT, None)
    assert (found.category, found.lon, found.lat, found.point_id, found.name) == ("", None, None, "", "")
    assert found.attributes == {"satisfied": None, "text": None, "channel": "telephone"}
    assert one({**bare, "gps": [0, 0]}).lon is None
    assert one({**bare, "gps": ["104.5", "30.5"]}).lat == 30.5
    assert one({**bare, "gps": ["", ""]}).lat is None


def test_one_object_an_array_or_the_payload_itself() -> None:
    plain = {"no": "1", "status": "closed", "at": "2026-07-01 08:30:00"}
    assert [e.id for e in read({"data": {"orders": plain}})[0]] == ["1"]
    assert [e.id for e in read([plain, {**plain, "no": "2"}], events="$")[0]] == ["1", "2"]
    events, refused = read({"data": {"orders": [plain, 7, {**plain, "no": None}, {**plain, "no": "3"}]}})
    assert [e.id for e in events] == ["1", "3"]
    assert [r.reason for r in refused] == ["wrong_shape", "no_id"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"no": ""}, "no_id"),
        ({"no": {"a": 1}}, "wrong_type"),
        ({"no": "x" * 201}, "wrong_type"),
        ({"no": "13800138000"}, "personal_id"),
        ({"no": "w-138-0013-8000"}, "personal_id"),
        ({"status": None}, "no_state"),
        ({"status": "13800138000"}, "unknown_state"),
        ({"status": ["受理"]}, "unknown_state"),
        ({"at": None}, "no_time"),
        ({"at": "13800138000"}, "bad_time"),
        ({"at": [1]}, "bad_time"),
        ({"deadline": "soon 13800138000"}, "bad_time"),
        ({"gps": [181, 0]}, "wrong_type"),
        ({"gps": ["13800138000", "30"]}, "wrong_type"),
        ({"gps": [True, 30]}, "wrong_type"),
        ({"kind": {"a": "13800138000"}}, "wrong_type"),
        ({"content": ["13800138000"]}, "wrong_type"),
    ],
)
def test_what_does_not_map_is_refused_and_quotes_no_number(change: dict[str, Any], reason: str) -> None:
    for personal in (True, False):
        if reason == "personal_id" and not personal:
            continue
        found = refusal({**ORDER, **change}, personal)
        assert found.reason == reason
        assert "13800138000" not in found.detail


@pytest.mark.parametrize("body", [[], {}, 7, "x", None, {"data": {"orders": []}}, {"data": 7}])
def test_a_body_without_an_event_is_refused_whole(body: Any) -> None:
    with pytest.raises(Refused) as refused:
        read(body)
    assert refused.value.reason == "wrong_shape"


def test_too_many_events_are_refused_whole() -> None:
    with pytest.raises(Refused, match="too_many_readings"):
        read({"data": {"orders": [ORDER] * 10_001}})


def test_texts_are_bounded_and_numbers_masked_by_degree() -> None:
    long = one({**ORDER, "content": "雨" * 5000, "kind": "雨" * 300})
    assert len(str(long.attributes["text"])) == TEXT_CHARS_MAX
    assert len(long.category) == 200
    assert one({**ORDER, "content": 87654321}).attributes["text"] == MASK
    assert one({**ORDER, "content": 87654321}, personal=False).attributes["text"] == 87654321.0
    assert one({**ORDER, "content": 13800138000}, personal=False).attributes["text"] == MASK
    assert one({**ORDER, "content": True}).attributes["text"] == 1.0
    assert one({**ORDER, "place": "库房 028-8765 4321"}).name == "库房 ***"


def test_a_state_may_be_said_by_the_config_alone() -> None:
    found = one({"no": "1", "at": "2026-07-01 08:30:00"}, state="=closed", states={})
    assert found.state == "closed"


def test_what_breaks_the_table_is_said_with_its_place() -> None:
    broken = EventSettings.model_validate(
        {
            **TABLE, "states": {"受理": "open"}, "id": "=1", "lat": None, "category": "a[].b", "state": "=gone",
            "attributes": {"text": "a..b"}, "words": {"place": {"a": "b"}},
        }
    )  # fmt: skip
    places = [key for key, _ in event_faults(broken)]
    assert places == [
        ("states", "受理"), ("id",), ("state",), ("category",), ("attributes", "text"), ("lon",), ("words", "place"),
    ]  # fmt: skip
    assert list(event_faults(EventSettings.model_validate(TABLE))) == []


def _any_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(9 if depth < 3 else 7)
    match kind:
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice((0, -1, 13800138000, 1 << 63, 10**20, 1e308, 0.1))
        case 2 | 3:
            return rng.choice(list(TABLE["states"]) + list(STATES))
        case 4:
            return rng.choice(("2026-07-01 08:30:00", "13800138000", "", "x" * 300, "\ud800", "104.5", "nan"))
        case 5 | 6:
            return "".join(
                chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x4E00, 0x9FFF)))) for _ in range(9)
            )
        case 7:
            return [_any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {name: _any_value(rng, depth + 1) for name in rng.sample([*ORDER, "orders", "data"], 4)}


def _parsed(codec: Codec, payload: bytes) -> tuple[Parsed | None, str]:
    try:
        return codec.parse("t", payload), ""
    except Refused as refused:
        return None, refused.reason


def test_any_json_is_events_or_refusals_each_element_once() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    codec = make_codec("json", settings(), SHANGHAI)
    outcomes = {"events": 0, "refusals": 0, "whole": 0}
    for number in range(4000):
        order = {**ORDER, **{name: _any_value(rng) for name in rng.sample(list(ORDER), rng.randrange(3))}}
        orders = [order] * rng.randrange(3) if rng.random() < 0.8 else _any_value(rng)
        payload = json.dumps({"data": {"orders": orders}}).encode()
        if rng.random() < 0.1:
            payload = payload[: rng.randrange(len(payload))]
        parsed, reason = _parsed(codec, payload)
        if parsed is None:
            assert reason in REASONS
            outcomes["whole"] += 1
            continue
        count = len(orders) if isinstance(orders, list) else 1
        assert len(parsed.events) + len(parsed.refusals) == count
        if number % 40 == 0:
            assert len(decode_events(encode_events(parsed.events))) == len(parsed.events)
        outcomes["events"] += len(parsed.events)
        outcomes["refusals"] += len(parsed.refusals)
    assert min(outcomes.values()) > 100, outcomes
