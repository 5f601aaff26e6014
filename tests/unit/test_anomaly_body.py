"""What a notification says, and that its schema and examples say the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from anomaly.alerts.body import (
    BODY_BYTES_MAX,
    HEARTBEAT,
    TEST,
    TOP_MAX,
    TYPES,
    GroupParts,
    notice,
    notification,
)
from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent
from anomaly.alerts.words import FIRST, OVER, REASONS, STEP, GroupView, summaries
from anomaly.episodes import HISTORY_MAX
from tests.anomaly_city import T0, S
from tests.anomaly_events import SUBJECT, event

SCHEMAS = Path(__file__).parents[2] / "configs" / "schemas"
LINK = "https://map.example/alert/"


def example(kind: str) -> bytes:
    """One body of each type, always the same."""
    if kind in (HEARTBEAT, TEST):
        return notice(kind, T0, f"{kind}-1")
    first, second = (T0, 2, 25.5), (T0 + 300 * S, 3, 31.0)
    made = {
        FIRING: event(severity=2, severity_now=2, value=25.5, limit=25.0, peak=25.5, at=T0, history=(first,)),
        UPDATED: event(revision=2, kind=UPDATED, at=T0 + 300 * S, history=(first, second)),
        RESOLVED: event(
            revision=3,
            kind=RESOLVED,
            value=12.0,
            at=T0 + 1500 * S,
            history=(first, second, (T0 + 1500 * S, 0, 12.0)),
        ),
    }
    groups = {
        FIRING: GroupView(event().id, 1, FIRST, "storm", T0, 1, 1, 2, answer_by="值班长", answer_s=300),
        UPDATED: GroupView(event().id, 2, STEP, "storm", T0, 2, 2, 3, joined=1),
        RESOLVED: GroupView(event().id, 3, OVER, "storm", T0, 2, 0, 3, ended=2),
    }
    parts = {
        FIRING: GroupParts(box=(104.0, 30.7, 104.0, 30.7)),
        UPDATED: GroupParts(
            [top_row(made[UPDATED])], [("金牛区", 2)], (104.0, 30.69, 104.01, 30.7), (1, T0 + 1 * S)
        ),
        RESOLVED: GroupParts([], [("金牛区", 2)], (104.0, 30.69, 104.01, 30.7), (2, T0 + 300 * S)),
    }
    return notification(made[kind], LINK, groups[kind], parts[kind])


def top_row(made: AlertEvent) -> dict[str, Any]:
    """A member as the outbox lists it."""
    zh, en = summaries(made)
    return {
        "id": made.id,
        "open": 1,
        "severity": made.severity,
        "severity_now": made.severity_now,
        "rule": made.rule,
        "kind": made.subject.kind,
        "point_id": made.subject.point_id,
        "gateway_id": made.subject.gateway_id,
        "district": made.subject.district,
        "onset": made.onset,
        "at": made.at,
        "value": made.value,
        "level": made.limit,
        "summary_zh": zh,
        "summary_en": en,
    }


def check(body: bytes) -> dict[str, Any]:
    """Valid against the schema; the body as JSON."""
    schema = json.loads((SCHEMAS / "webhook-v1.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    found: dict[str, Any] = json.loads(body)
    jsonschema.validate(found, schema, jsonschema.Draft202012Validator)
    return found


@pytest.mark.parametrize("kind", TYPES)
def test_the_example_of_each_type_is_what_the_engine_sends(kind: str) -> None:
    """A failure prints what the file should hold."""
    file = SCHEMAS / f"webhook-v1.example.{kind}.json"
    sent = check(example(kind))
    assert json.loads(file.read_text("utf-8")) == sent, json.dumps(sent, ensure_ascii=False, indent=2)


def test_the_schema_refuses_what_is_not_version_1() -> None:
    body = json.loads(example(FIRING))
    for broken in (
        {**body, "version": 2},
        {**body, "type": "alert.maybe"},
        {**body, "data": {**body["data"], "severity": 5}},
        {**body, "data": {k: v for k, v in body["data"].items() if k != "id"}},
        {**body, "type": "heartbeat"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check(json.dumps(broken).encode())


def with_rule(rule: str, kind: str, **values: Any) -> AlertEvent:
    return event(kind=kind, rule=rule, alert_class="fault", severity=1, limit=np.nan, peak=np.nan, **values)


@pytest.mark.parametrize(
    ("made", "zh", "en"),
    [
        (
            event(),
            "橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30)",
            "Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30)",
        ),
        (
            event(kind=UPDATED, history=((T0, 2, 25.5), (T0 + S, 3, 31.0))),
            "橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30) | 此前黄色",
            "Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30) | was Yellow",
        ),
        (
            event(
                kind=UPDATED,
                at=T0 + 300 * S,
                history=((T0, 2, 25.0), (T0 + 300 * S, 3, 31.0)),
                eta_s=480.0,
                eta_limit=40.0,
            ),
            "橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30) | 5 分钟 +6 cm | 约 8 分钟到 40 cm | 此前黄色",
            "Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30) | +6 cm in 5 min | 40 cm in about 8 min "
            "| was Yellow",
        ),
        (
            event(subject=replace(SUBJECT, name="金牛区人民路 积水")),
            "橙色 | 金牛区人民路 积水 31 cm(限 30)",
            "Orange | 金牛区人民路 积水 water 31 cm (limit 30)",
        ),
        (
            event(rule="rise", value=7.6, limit=30.0),
            "橙色 | 金牛区 人民路下穿隧道 约 8 分钟到 30",
            "Orange | 金牛区 人民路下穿隧道 reaches 30 in about 8 min",
        ),
        (
            event(
                rule="compound",
                members=("P7", "P8"),
                words_zh="雨大、河涨、路面积水",
                words_en="rain, river and streets",
            ),
            "橙色 | 金牛区 人民路下穿隧道 积水 | 雨大、河涨、路面积水",
            "Orange | 金牛区 人民路下穿隧道 water | rain, river and streets",
        ),
        (
            event(kind=RESOLVED, value=12.0, at=T0 + 1500 * S),
            "已解除 | 金牛区 人民路下穿隧道 积水 12 cm | 最高 31 cm | 历时 25 分钟",
            "Over | 金牛区 人民路下穿隧道 water 12 cm | highest 31 cm | lasted 25 min",
        ),
        (
            event(kind=RESOLVED, subject=replace(SUBJECT, levels=(4.0, 3.0, 2.0, 1.0)), value=9.0, peak=0.9),
            "已解除 | 金牛区 人民路下穿隧道 积水 9 cm | 最低 0.9 cm | 历时 1 秒",
            "Over | 金牛区 人民路下穿隧道 water 9 cm | lowest 0.9 cm | lasted 1 s",
        ),
        (
            with_rule("dead", FIRING, at=T0 + 45 * S),
            "失联 | 金牛区 人民路下穿隧道 | 已 45 秒无数据",
            "No data | 金牛区 人民路下穿隧道 | silent for 45 s",
        ),
        (
            with_rule("stuck", FIRING),
            "读数卡滞 | 金牛区 人民路下穿隧道 | 积水 31 cm 长时间不变",
            "Stuck | 金牛区 人民路下穿隧道 | water 31 cm unchanged",
        ),
        (
            with_rule("outage", RESOLVED, subject=replace(SUBJECT, point_id=""), at=T0 + 3 * 86_400 * S),
            "网关失联已恢复 | 金牛区 网关 G1 | 历时 3 天",
            "Gateway out: over | 金牛区 gateway G1 | lasted 3 d",
        ),
        (
            event(drill=True, replay=True),
            "【演练】橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30)",
            "[DRILL] Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30)",
        ),
        (
            event(replay=True),
            "【演练·回放】橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30)",
            "[REPLAY] Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30)",
        ),
    ],
)
def test_the_summary_can_be_read_aloud(made: AlertEvent, zh: str, en: str) -> None:
    assert summaries(made) == (zh, en)
    check(notification(made))


@pytest.mark.parametrize("mode", [{}, {"drill": True}, {"replay": True}])
def test_no_text_issues_a_warning_and_all_but_live_ones_say_it_is_a_drill(mode: dict[str, bool]) -> None:
    body = notification(event(**mode)).decode()
    assert "预警" not in body
    assert ("演练" in body) == bool(mode)


def test_the_longest_texts_stay_below_the_limit() -> None:
    """Names, districts and units of any length are cut; ids are whole; the history is bounded."""
    long = "水" * 100_000
    subject = replace(SUBJECT, name=long, district=long, unit=long, title_zh="积" * 40, point_id="p" * 256)
    course = tuple((T0 + i, 4, -1.2345678901234567e-300) for i in range(HISTORY_MAX))
    for kind in (FIRING, RESOLVED):
        body = notification(event(kind=kind, subject=subject, history=course), LINK)
        assert len(body) < BODY_BYTES_MAX
        assert check(body)["data"]["point"]["id"] == "p" * 256


def test_unknown_numbers_are_null() -> None:
    made = with_rule("dead", FIRING, value=np.nan, subject=replace(SUBJECT, lon=np.nan, lat=np.nan))
    data = check(notification(made))["data"]
    assert (data["value"], data["limit"], data["peak"], data["place"]["lon"]) == (None, None, None, None)


def group(reason: str, **values: Any) -> GroupView:
    fields: dict[str, Any] = {"members": 12, "open": 7, "worst": 4, "onset": T0}
    return GroupView(event().id, 5, reason, "storm", **{**fields, **values})


@pytest.mark.parametrize(
    ("view", "zh", "en"),
    [
        (
            group(FIRST, members=1, open=1, answer_by="值班长", answer_s=300),
            "橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30) | 请值班长在 5 分钟内应答",
            "Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30) | 值班长 to answer within 5 min",
        ),
        (
            group(STEP),
            "橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30) | 同组共 12 处,未结束 7 处",
            "Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30) | 12 in this group, 7 still open",
        ),
        (
            group("digest", joined=5, ended=3),
            "汇总 | 积水 共 12 处,未结束 7 处 | 新增 5,结束 3 | 最重红色 | 橙色 | "
            "金牛区 人民路下穿隧道 积水 31 cm(限 30)",
            "Digest | water: 12, 7 still open | 5 new, 3 over | worst Red | Orange | "
            "金牛区 人民路下穿隧道 water 31 cm (limit 30)",
        ),
        (
            group("escalated", members=1),
            "升级:无人应答 | 橙色 | 金牛区 人民路下穿隧道 积水 31 cm(限 30)",
            "Escalated: nobody answered | Orange | 金牛区 人民路下穿隧道 water 31 cm (limit 30)",
        ),
    ],
)
def test_what_is_told_of_a_group_can_be_read_aloud(view: GroupView, zh: str, en: str) -> None:
    assert summaries(event(), view) == (zh, en)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_valid_body_and_says_in_a_drill_that_it_is_one(reason: str) -> None:
    sent = check(notification(event(drill=True), LINK, group(reason), GroupParts()))
    assert sent["data"]["summary"]["zh"].startswith("【演练】")
    assert sent["data"]["summary"]["en"].startswith("[DRILL]")
    assert sent["data"]["group"]["reason"] == reason


def test_a_group_of_the_longest_texts_stays_below_the_limit_by_listing_fewer() -> None:
    long = "水" * 100_000
    subject = replace(SUBJECT, name=long, district=long, unit=long, title_zh="积" * 40, point_id="p" * 256)
    course = tuple((T0 + i, 4, -1.2345678901234567e-300) for i in range(HISTORY_MAX))
    made = event(subject=subject, history=course, members=tuple("p" * 256 for _ in range(50)))
    parts = GroupParts([top_row(made)] * TOP_MAX, [(long, 9)] * TOP_MAX, (0, 0, 1, 1), (4, T0))
    body = notification(made, LINK, group(STEP, answer_by=long, answer_s=60), parts)
    assert len(body) < BODY_BYTES_MAX
    assert 0 < len(check(body)["data"]["group"]["top"]) < TOP_MAX
