"""Words: an alert, or a group of them, as one line to be read aloud, in Chinese and English.

Owns all wording of notifications. Knows nothing of JSON, targets or how things came about.

How bad, where, what, how much, against which limit, how fast, how soon. It states what was measured; it never issues a
warning, which is the weather service's to do. Drills and replays say so first, in every text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from anomaly.alerts.event import RESOLVED, AlertEvent
from storage.units import US_PER_S

TEXT_MAX: Final = 200
"""Characters of a name or unit taken into a notification; ids are kept whole."""
NAMED_MAX = 3
"""Points named in the words of an outage; the alert's members have more."""
RISE_S: Final = (60, 900)
"""A change is worth telling when it took at least and at most this long."""
RISE: Final = "rise"
"""The rule whose value is minutes, and whose limit is the level reached then."""
ETA_S_MAX: Final = 3 * 3600
"""Further ahead nobody believes a straight line."""

COLOURS_ZH: Final = ("", "蓝色", "黄色", "橙色", "红色")
COLOURS_EN: Final = ("", "Blue", "Yellow", "Orange", "Red")
FAULTS_ZH: Final = {
    "dead": "失联",
    "stuck": "读数卡滞",
    "outage": "网关失联",
    "device_outage": "设备失联",
    "video": "画面异常",
    "spike": "读数尖刺",
    "drift": "读数漂移",
    "device": "设备自报故障",
}
FAULTS_EN: Final = {
    "dead": "No data",
    "stuck": "Stuck",
    "outage": "Gateway out",
    "device_outage": "Device out",
    "video": "Picture at fault",
    "spike": "Spikes",
    "drift": "Drift",
    "device": "Device reports a fault",
}

FIRST: Final = "first"
STEP: Final = "step"
REOPENED: Final = "reopened"
FLAPPING: Final = "flapping"
DIGEST: Final = "digest"
ESCALATED: Final = "escalated"
OVER: Final = "over"
MERGED: Final = "merged"
REASONS: Final = (FIRST, STEP, REOPENED, FLAPPING, DIGEST, ESCALATED, OVER, MERGED)
"""Why a group is told: its first alert; a worse step; back after it was over; back too often; what changed meanwhile;
nobody answered; all its alerts are over; it became part of another group."""


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as a notification tells it.

    members, open, worst  alerts in it, those not over, the worst severity of its course
    joined, ended, stepped  what changed since it was told before
    answer_by, answer_s   who must answer within how long; "" and 0 where nobody must
    """

    id: str
    revision: int
    reason: str
    scope: str
    onset: int
    members: int
    open: int
    worst: int
    joined: int = 0
    ended: int = 0
    stepped: int = 0
    answer_by: str = ""
    answer_s: int = 0
    merged_into: str | None = None


def mode_of(event: AlertEvent) -> str:
    """live, drill or replay; a drill on a recording is a drill."""
    return "drill" if event.drill else "replay" if event.replay else "live"


def summaries(event: AlertEvent, group: GroupView | None = None) -> tuple[str, str]:
    """(zh, en): one line each, to be read aloud; of the group the event speaks for, where one is given."""
    zh, en = (_zh(event), _en(event)) if group is None else (_group_zh(event, group), _group_en(event, group))
    told = tuple(" | ".join(part for part in parts if part) for parts in (zh, en))
    mode = mode_of(event)
    if mode == "live":
        return told[0], told[1]
    return ("【演练】" if mode == "drill" else "【演练·回放】") + told[0], f"[{mode.upper()}] {told[1]}"


def _group_zh(event: AlertEvent, group: GroupView) -> tuple[str, ...]:
    others = f"同组共 {group.members} 处,未结束 {group.open} 处" if group.members > 1 else ""
    answer = ""
    if group.answer_s and group.reason in (FIRST, STEP, REOPENED, ESCALATED):
        answer = f"请{clipped(group.answer_by) or '值班人员'}在 {_span_zh(group.answer_s * US_PER_S)}内应答"
    if group.reason == OVER:
        if group.members == 1:
            return _zh(event)
        lasted = f"历时 {_span_zh(event.at - group.onset)}"
        return (
            "已解除",
            f"{_what_zh(event)} {group.members} 处全部结束",
            f"最重{COLOURS_ZH[group.worst]}",
            lasted,
        )
    if group.reason == MERGED:
        return "已并入同一场", f"{_what_zh(event)} 由 {group.merged_into} 继续通知"
    if group.reason == DIGEST:
        changed = (("新增", group.joined), ("升降级", group.stepped), ("结束", group.ended))
        news = ",".join(f"{word} {n}" for word, n in changed if n)
        state = f"{_what_zh(event)} 共 {group.members} 处,未结束 {group.open} 处"
        return "汇总", state, news, f"最重{COLOURS_ZH[group.worst]}", *_zh(event)[:2]
    first = {ESCALATED: "升级:无人应答", FLAPPING: "反复波动,平稳前不再通知", REOPENED: "再次"}
    return first.get(group.reason, ""), *_zh(event), others, answer


def _group_en(event: AlertEvent, group: GroupView) -> tuple[str, ...]:
    others = f"{group.members} in this group, {group.open} still open" if group.members > 1 else ""
    answer = ""
    if group.answer_s and group.reason in (FIRST, STEP, REOPENED, ESCALATED):
        answer = f"{clipped(group.answer_by) or 'duty officer'} to answer within {_span_en(group.answer_s * US_PER_S)}"
    if group.reason == OVER:
        if group.members == 1:
            return _en(event)
        lasted = f"lasted {_span_en(event.at - group.onset)}"
        return "Over", f"{_what_en(event)}: all {group.members}", f"worst {COLOURS_EN[group.worst]}", lasted
    if group.reason == MERGED:
        return "Joined", f"{_what_en(event)}: told as {group.merged_into} from now on"
    if group.reason == DIGEST:
        changed = (("new", group.joined), ("changed", group.stepped), ("over", group.ended))
        news = ", ".join(f"{n} {word}" for word, n in changed if n)
        state = f"{_what_en(event)}: {group.members}, {group.open} still open"
        return "Digest", state, news, f"worst {COLOURS_EN[group.worst]}", *_en(event)[:2]
    first = {
        ESCALATED: "Escalated: nobody answered",
        FLAPPING: "Flapping, held until it is quiet",
        REOPENED: "Again",
    }
    return first.get(group.reason, ""), *_en(event), others, answer


def _what_zh(event: AlertEvent) -> str:
    if event.alert_class == "fault":
        return FAULTS_ZH.get(event.rule) or event.subject.title_zh or event.rule
    return event.subject.title_zh or event.rule


def _what_en(event: AlertEvent) -> str:
    if event.alert_class == "fault":
        return FAULTS_EN.get(event.rule) or event.subject.title_en or event.rule
    return event.subject.title_en or event.rule


def _place_zh(event: AlertEvent) -> str:
    return _place(event, "网关")


def _place_en(event: AlertEvent) -> str:
    return _place(event, "gateway")


def _place(event: AlertEvent, gateway: str) -> str:
    """District and name; a name that begins with its district says it already."""
    subject = event.subject
    name = f"{gateway} {clipped(subject.gateway_id)}" if event.rule == "outage" else clipped(subject.name)
    district = clipped(subject.district)
    return name if not district or name.startswith(district) else f"{district} {name}"


def _titled(place: str, title: str) -> str:
    """A place and what is measured there; many names end with it."""
    return place if not title or place.endswith(title) else f"{place} {title}"


def _zh(event: AlertEvent) -> tuple[str, ...]:
    over = event.type == RESOLVED
    lasted = f"历时 {_span_zh(event.at - event.onset)}"
    if event.alert_class == "fault":
        fault = _what_zh(event)
        return (
            f"{fault}已恢复" if over else fault,
            _place_zh(event),
            "" if over else _fault_zh(event),
            (lasted if over else ""),
        )
    return _city_zh(event, over, lasted)


def _city_zh(event: AlertEvent, over: bool, lasted: str) -> tuple[str, ...]:
    subject = event.subject
    place = _titled(_place_zh(event), subject.title_zh)
    if event.words_zh or event.members:
        if over:
            return "已解除", place, lasted
        return COLOURS_ZH[event.severity_now], place, clipped(event.words_zh), _change_zh(event)
    if event.rule == RISE:
        soon = f"{_place_zh(event)} 约 {event.value:.0f} 分钟到 {event.limit:g}"
        return (
            ("已解除", f"{_place_zh(event)} 涨势已缓", lasted)
            if over
            else (COLOURS_ZH[event.severity_now], soon)
        )
    now = f"{place} {_amount(event.value, subject.unit)}".rstrip()
    if over:
        peak = f"{'最低' if _falls(event) else '最高'} {_amount(event.peak, subject.unit)}"
        return "已解除", now, "" if math.isnan(event.peak) else peak, lasted
    limit = "" if math.isnan(event.limit) else f"(限 {event.limit:g})"
    return COLOURS_ZH[event.severity_now], f"{now}{limit}", _rise_zh(event), _eta_zh(event), _change_zh(event)


def _en(event: AlertEvent) -> tuple[str, ...]:
    over = event.type == RESOLVED
    lasted = f"lasted {_span_en(event.at - event.onset)}"
    if event.alert_class == "fault":
        fault = _what_en(event)
        return (
            f"{fault}: over" if over else fault,
            _place_en(event),
            "" if over else _fault_en(event),
            (lasted if over else ""),
        )
    return _city_en(event, over, lasted)


def _city_en(event: AlertEvent, over: bool, lasted: str) -> tuple[str, ...]:
    subject = event.subject
    place = _titled(_place_en(event), subject.title_en)
    if event.words_en or event.members:
        if over:
            return "Over", place, lasted
        return COLOURS_EN[event.severity_now], place, clipped(event.words_en), _change_en(event)
    if event.rule == RISE:
        soon = f"{_place_en(event)} reaches {event.limit:g} in about {event.value:.0f} min"
        return (
            ("Over", f"{_place_en(event)} rises less", lasted)
            if over
            else (COLOURS_EN[event.severity_now], soon)
        )
    now = f"{place} {_amount(event.value, subject.unit)}".rstrip()
    if over:
        peak = f"{'lowest' if _falls(event) else 'highest'} {_amount(event.peak, subject.unit)}"
        return "Over", now, "" if math.isnan(event.peak) else peak, lasted
    limit = "" if math.isnan(event.limit) else f" (limit {event.limit:g})"
    return COLOURS_EN[event.severity_now], f"{now}{limit}", _rise_en(event), _eta_en(event), _change_en(event)


def _fault_zh(event: AlertEvent) -> str:
    subject = event.subject
    if event.words_zh:
        return clipped(event.words_zh)
    if event.rule in ("outage", "device_outage"):
        return f"{event.value:g} 个点无数据" + _members(event, ":", "、", " 等")
    if event.rule == "dead":
        return f"已 {_span_zh(event.at - event.onset)}无数据"
    if event.rule == "stuck":
        return f"{subject.title_zh} {_amount(event.value, subject.unit)} 长时间不变"
    return f"{subject.title_zh} {_amount(event.value, subject.unit)}".strip()


def _fault_en(event: AlertEvent) -> str:
    subject = event.subject
    if event.words_en:
        return clipped(event.words_en)
    if event.rule in ("outage", "device_outage"):
        return f"{event.value:g} points without data" + _members(event, ": ", ", ", " …")
    if event.rule == "dead":
        return f"silent for {_span_en(event.at - event.onset)}"
    if event.rule == "stuck":
        return f"{subject.title_en} {_amount(event.value, subject.unit)} unchanged"
    return f"{subject.title_en} {_amount(event.value, subject.unit)}".strip()


def _members(event: AlertEvent, before: str, between: str, more: str) -> str:
    """The first points an event names, and a mark where there are others."""
    if not event.members:
        return ""
    names = between.join(clipped(name) for name in event.members[:NAMED_MAX])
    return before + names + (more if event.value > NAMED_MAX else "")


def _rise(event: AlertEvent) -> tuple[float, int] | None:
    """(change, over how many µs) as the event says it, else between steps of its course; None where unknown."""
    if not (math.isnan(event.rise) or math.isnan(event.rise_s)):
        return event.rise, round(event.rise_s * US_PER_S)
    for at, _, value in reversed(event.history[:-1]):
        took = event.at - at
        if RISE_S[0] * US_PER_S <= took <= RISE_S[1] * US_PER_S and math.isfinite(event.value - value):
            return event.value - value, took
    return None


def _rise_zh(event: AlertEvent) -> str:
    found = _rise(event)
    return f"{_span_zh(found[1])} {found[0]:+.3g} {clipped(event.subject.unit)}".rstrip() if found else ""


def _rise_en(event: AlertEvent) -> str:
    found = _rise(event)
    return f"{found[0]:+.3g} {clipped(event.subject.unit)} in {_span_en(found[1])}" if found else ""


def _eta_known(event: AlertEvent) -> bool:
    return 0 <= event.eta_s <= ETA_S_MAX and math.isfinite(event.eta_limit)


def _eta_zh(event: AlertEvent) -> str:
    if not _eta_known(event):
        return ""
    return f"约 {_span_zh(round(event.eta_s * US_PER_S))}到 {_amount(event.eta_limit, event.subject.unit)}"


def _eta_en(event: AlertEvent) -> str:
    if not _eta_known(event):
        return ""
    return (
        f"{_amount(event.eta_limit, event.subject.unit)} in about {_span_en(round(event.eta_s * US_PER_S))}"
    )


def _change_zh(event: AlertEvent) -> str:
    before = _severity_before(event)
    return f"此前{COLOURS_ZH[before]}" if before and before != event.severity_now else ""


def _change_en(event: AlertEvent) -> str:
    before = _severity_before(event)
    return f"was {COLOURS_EN[before]}" if before and before != event.severity_now else ""


def _severity_before(event: AlertEvent) -> int:
    return event.history[-2][1] if len(event.history) > 1 else 0


def _falls(event: AlertEvent) -> bool:
    levels = [level for level in event.subject.levels if not math.isnan(level)]
    return len(levels) > 1 and levels[0] > levels[-1]


def _amount(value: float, unit: str) -> str:
    return "" if math.isnan(value) else f"{value:.6g} {clipped(unit)}".rstrip()


def _span_zh(us: int) -> str:
    count, unit = _span(us)
    return f"{count} {('秒', '分钟', '小时', '天')[unit]}"


def _span_en(us: int) -> str:
    count, unit = _span(us)
    return f"{count} {('s', 'min', 'h', 'd')[unit]}"


def _span(us: int) -> tuple[int, int]:
    """(count, unit): seconds below two minutes, minutes below two hours, hours below two days, else days."""
    seconds = max(us, 0) // US_PER_S
    for unit, size, until in ((0, 1, 120), (1, 60, 7_200), (2, 3_600, 172_800)):
        if seconds < until:
            return seconds // size, unit
    return seconds // 86_400, 3


def clipped(text: str) -> str:
    """At most TEXT_MAX characters, the cut shown."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
