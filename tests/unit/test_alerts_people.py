"""Being answered, silences, drills and the shift report: who did what, why, and what came of it, by a clock of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from anomaly.alerts import drill, people
from anomaly.alerts.people import Matcher, acknowledge, silence, unsilence
from anomaly.alerts.shift import figures, page
from tests.alerts_night import Night, nights
from tests.alerts_storm import told_event
from tests.anomaly_city import T0, S

PLAN = {
    "name": "flood",
    "classes": ["event"],
    "targets": ["room"],
    "answer_s": 300,
    "escalate_to": ["chief", "mayor"],
    "answer_by": ["王班长", "李处长", "张局长"],
}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Night]]:
    yield from nights(tmp_path)


def test_without_an_answer_the_next_is_called_after_each_span_and_then_it_is_said_that_nobody_answered(
    make: Callable[..., Night],
) -> None:
    one = make(routes=[PLAN]).take(told_event("a", 3, 0))
    assert one.newest()["group"]["answer"] == {"by": "王班长", "within_s": 300}
    assert one.at(299).round().why("chief") == []
    assert one.at(300).round().round().why("chief") == ["escalated"]
    assert one.newest()["group"]["answer"] == {"by": "李处长", "within_s": 300}
    assert one.newest()["summary"]["zh"].startswith("升级:无人应答 | 橙色")
    assert one.at(599).round().why("mayor") == []
    assert one.at(600).round().why("mayor") == ["escalated"]
    assert one.at(5000).round().round().steps()["unanswered"] == 1
    assert (one.why("room"), one.why("chief"), one.why("mayor")) == (["first"], ["escalated"], ["escalated"])
    one.take(told_event("a", 3, 5001, onset=0, revision=2, over=True))
    assert one.why("mayor") == ["escalated", "over"], "who was called hears of the end"


def test_an_answer_ends_the_calling_until_it_becomes_worse(make: Callable[..., Night]) -> None:
    one = make(routes=[PLAN]).take(told_event("a", 2, 0), told_event("b", 1, 5))
    one.at(120)
    done = acknowledge(one.outbox, told_event("b", 1, 5).id, " 王班长 ", one.clock(), "已派人")
    assert (done["id"], done["severity"], done["took_s"]) == (told_event("a", 2, 0).id, 2, 120.0)
    assert one.at(1000).round().why("chief") == []
    one.take(told_event("a", 3, 1001, onset=0, revision=2))
    assert one.newest()["group"]["answer"] == {"by": "王班长", "within_s": 300}, "worse: answered anew"
    assert one.at(1300).round().why("chief") == ["escalated"]
    row = next(step for step in people.steps(one.outbox, 0, T0 * 2) if step["step"] == "answered")
    assert (row["who"], row["detail"]) == ("王班长", "已派人")


def test_an_end_also_ends_the_calling(make: Callable[..., Night]) -> None:
    one = make(routes=[PLAN]).take(
        told_event("a", 3, 0), told_event("a", 3, 9, onset=0, revision=2, over=True)
    )
    assert one.at(9999).round().why("chief") == []


def test_an_answer_must_name_somebody_and_an_alert_people_were_called_for(make: Callable[..., Night]) -> None:
    one = make().take(told_event("a", 2, 0), told_event("q", 2, 0, lon=105.0, notify=False))
    for alert, who in (("nobody", "me"), (told_event("a", 2, 0).id, " "), (told_event("q", 2, 0).id, "me")):
        with pytest.raises(ValueError, match=r"no alert|say who|nobody was called"):
            acknowledge(one.outbox, alert, who, one.clock())


def test_a_silence_mutes_what_agrees_in_all_it_names_and_lets_go_when_it_ends(
    make: Callable[..., Night],
) -> None:
    one = make()
    number = silence(
        one.outbox,
        Matcher(rule="level", district="金牛区"),
        "王",
        "水泵检修",
        one.clock(),
        T0 + 600 * S,
        one.clock(),
    )
    one.take(told_event("a", 3, 10), told_event("far", 3, 10, district="武侯区", lon=105.0))
    assert one.why() == ["first"], "another district is told"
    one.take(told_event("b", 4, 20))
    assert one.why() == ["first", "first"], "red is told: the silence did not name it"
    assert one.at(599).round().steps()["released"] == 0
    assert one.at(600).round().round().steps()["released"] == 1
    assert one.why() == ["first", "first"], "its storm is known by now: it waits for the digest"
    held = [step for step in people.steps(one.outbox, 0, T0 * 2) if step["step"] in ("silence", "silenced")]
    assert [step["step"] for step in held] == ["silence", "silenced"]
    assert (held[0]["who"], "水泵检修" in held[0]["detail"]) == ("王", True)
    assert people.silences(one.outbox, one.clock()) == []
    assert [row["id"] for row in people.silences(one.outbox, one.clock(), over=True)] == [number]


def test_what_a_silence_held_is_told_when_a_person_ends_it(make: Callable[..., Night]) -> None:
    one = make()
    number = silence(one.outbox, Matcher(point_id="a"), "王", "检修", one.clock(), T0 + 9000 * S, one.clock())
    one.take(told_event("a", 3, 10))
    assert one.round().why() == []
    one.at(60)
    unsilence(one.outbox, number, "李", "检修完毕", one.clock())
    assert one.round().round().why() == ["first"]
    with pytest.raises(ValueError, match="no silence"):
        unsilence(one.outbox, number, "李", "又一次", one.clock())


def test_a_silence_stops_the_calling_for_a_standing_alert_and_it_goes_on_at_its_end(
    make: Callable[..., Night],
) -> None:
    one = make(routes=[PLAN]).take(told_event("a", 3, 0)).at(100)
    silence(one.outbox, Matcher(point_id="a"), "王", "在现场", one.clock(), T0 + 900 * S, one.clock())
    for now in (300, 600, 899):
        assert one.at(now).round().round().why("chief") == []
    assert one.steps()["escalated"] == one.steps()["unanswered"] == 0
    assert one.at(900).round().why("chief") == ["escalated"]
    assert one.at(1199).round().why("mayor") == []
    assert one.at(1200).round().why("mayor") == ["escalated"], "its spans go on from there"


def test_a_silence_ended_early_or_an_alert_it_does_not_name_lets_the_calling_go_on(
    make: Callable[..., Night],
) -> None:
    one = make(routes=[PLAN]).take(told_event("a", 3, 0))
    number = silence(one.outbox, Matcher(point_id="a"), "王", "检修", one.clock(), T0 + 9000 * S, one.clock())
    assert one.at(400).round().why("chief") == []
    unsilence(one.outbox, number, "李", "误报", one.clock())
    assert one.round().why("chief") == ["escalated"]

    two = make(routes=[PLAN]).take(told_event("a", 3, 0), told_event("b", 2, 5))
    silence(two.outbox, Matcher(point_id="a"), "王", "检修", two.clock(), T0 + 9000 * S, two.clock())
    assert two.at(300).round().why("chief") == ["escalated"], "another of its group is not silenced"

    red = make(routes=[PLAN]).take(told_event("a", 4, 0))
    silence(red.outbox, Matcher(point_id="a"), "王", "检修", red.clock(), T0 + 9000 * S, red.clock())
    assert red.at(300).round().why("chief") == ["escalated"], "red is not silenced by the way"


def test_a_silenced_group_has_no_digest_but_its_end_is_told_to_who_was_called(
    make: Callable[..., Night],
) -> None:
    one = make(alerts={"repeat_s": 600}).take(told_event("a", 3, 0), told_event("b", 2, 5))
    silence(one.outbox, Matcher(kind="waterlogging"), "王", "已处置", one.clock(), T0 + 1800 * S, one.clock())
    assert one.at(700).round().why() == ["first"]
    one.at(1800).round()
    assert one.why() == ["first", "digest"], "what waited is told when the silence ends"
    silence(one.outbox, Matcher(kind="waterlogging"), "王", "已处置", one.clock(), T0 + 9000 * S, one.clock())
    one.take(
        told_event("a", 3, 2000, onset=0, revision=2, over=True),
        told_event("b", 2, 2001, onset=5, revision=2, over=True),
    )
    assert one.why() == ["first", "digest", "over"]


def test_a_silence_outlives_the_process_and_works_from_another(
    make: Callable[..., Night], tmp_path: Path
) -> None:
    one = make().take(told_event("x", 2, 0, lon=105.0))
    other = Night(tmp_path / "0")
    silence(other.outbox, Matcher(kind="waterlogging"), "王", "检修", one.clock(), T0 + 900 * S, one.clock())
    other.outbox.close()
    one.take(told_event("a", 2, 10))
    assert one.why() == ["first"]


@pytest.mark.parametrize(
    ("matcher", "who", "why", "span_s", "fault"),
    [
        (Matcher(), "王", "检修", 60, "name what"),
        (Matcher(rule="level"), "", "检修", 60, "who silences"),
        (Matcher(rule="level"), "王", " \n", 60, "why"),
        (Matcher(rule="level"), "王", "检修", 0, "over already"),
        (Matcher(rule="level"), "王", "检修", 31 * 86_400, "longer than 30 days"),
        (Matcher(rule="level", severity_max=5), "王", "检修", 60, "1 to 4"),
    ],
)
def test_a_silence_needs_a_what_a_who_a_why_and_an_end(
    make: Callable[..., Night], matcher: Matcher, who: str, why: str, span_s: int, fault: str
) -> None:
    one = make()
    with pytest.raises(ValueError, match=fault):
        silence(one.outbox, matcher, who, why, one.clock(), one.clock() + span_s * S, one.clock())
    assert people.silences(one.outbox, 0) == []


def test_a_drill_calls_like_a_flood_says_so_and_touches_no_flood(make: Callable[..., Night]) -> None:
    one = make(routes=[PLAN]).take(told_event("a", 3, 0))
    event = drill.begin(
        one.outbox, drill.subject("waterlogging", "演练区", "演练点"), 3, "王班长", one.clock()
    )
    assert one.why() == ["first", "first"]
    assert len(one.groups()) == 2
    body = one.newest()
    assert (body["mode"], body["summary"]["zh"][:4], body["summary"]["en"][:7]) == (
        "drill",
        "【演练】",
        "[DRILL]",
    )
    assert one.at(300).round().why("chief") == ["escalated", "escalated"]
    assert one.newest()["summary"]["zh"][:4] in ("【演练】", "升级:无")
    drill.end(one.outbox, event, one.clock())
    assert one.newest()["summary"]["zh"].startswith("【演练】已解除")
    assert one.steps()["drill"] == 1


GOLDEN = """\
值班报告 Shift report · 成都(示范)
01-01 08:00 – 01-01 20:00

告警 Alerts: 红色 Red 1 · 橙色 Orange 1 · 黄色 Yellow 2 · 蓝色 Blue 1
分区 Districts: 金牛区 3 · 武侯区 2
类别 Classes: 事件 events 3 · 故障 faults 2
演练、回放 Drills and replays: 1
应答 Answered: 1,中位 median 90 s,最长 longest 90 s;升级 escalated 2

未结束 Open: 3
  {a}  01-01 08:00  红色  红色 | 金牛区 b 号下穿隧道 积水 41 cm(限 40) · 2/2 处 · 应答 王班长
  {c}  01-01 08:01  橙色  橙色 | 武侯区 c 号下穿隧道 积水 31 cm(限 30)
  {s}  01-01 08:01  蓝色  读数卡滞 | 武侯区 s 号下穿隧道 | 积水 16 cm 长时间不变
无人应答 Unanswered: 1
  {c}  01-01 08:01  橙色  橙色 | 武侯区 c 号下穿隧道 积水 31 cm(限 30)
网关、设备失联 Outages: 1
  {o}  01-01 08:01  黄色  网关失联 | 金牛区 网关 G7 | 26 个点无数据
静默 Silences: 1
  1  noise 武侯区 ≤ 橙色 · 至 until 01-02 08:00 · 李: 施工报备
未送达 Dead letters: 1
  room: 1 (refused)
"""


def test_the_shift_report_is_one_page_that_says_it_all(make: Callable[..., Night]) -> None:
    one = make(routes=[PLAN, {"name": "rest", "targets": ["room"]}])
    first, other = told_event("a", 2, 0), told_event("c", 3, 60, lon=105.0, district="武侯区")
    stuck = told_event("s", 1, 70, rule="stuck", district="武侯区", lon=105.0)
    outage = told_event("", 2, 80, rule="outage", gateway="G7")
    one.take(first, told_event("b", 4, 30)).at(90)
    acknowledge(one.outbox, first.id, "王班长", one.clock())
    one.take(other, stuck, outage)
    over = drill.begin(one.outbox, drill.subject("level", "演练区", "演练点"), 1, "王", one.clock())
    drill.end(one.outbox, replace(over, onset=over.onset), one.clock())
    for now in (400, 800, 1200):
        one.at(now).round()
    silence(
        one.outbox,
        Matcher(kind="noise", district="武侯区"),
        "李",
        "施工报备",
        one.clock(),
        T0 + 86_400 * S,
        one.clock(),
    )
    dead = "UPDATE delivery SET state = 'dead', last_error = 'refused' WHERE alert_id = ?"
    with one.outbox.writing() as db:
        db.execute(dead, (outage.id,))
    found = figures(one.outbox, T0, T0 + 12 * 3600 * S)
    names = {"a": first.id, "c": other.id, "s": stuck.id, "o": outage.id}
    assert page(found, "成都(示范)", ZoneInfo("Asia/Shanghai")) == GOLDEN.format(**names)
    assert len(GOLDEN.splitlines()) < 60
