"""How the systems of the demo city word a step of an event, and what the lake must hold of it.

Owns the bodies that configs/chengdu/events/*.toml map. Knows nothing of when what happens (ingest.simulate.events).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from storage.batch import US_PER_S
from storage.records import Event

SURNAMES: Final = "王李张刘陈杨赵黄周吴"
ZONE: Final = ZoneInfo("Asia/Shanghai")
DAY_US: Final = 86_400 * US_PER_S


@dataclass(frozen=True, slots=True)
class Site:
    """Where something may happen: a district's name and a place in it, degrees WGS 84."""

    district: str
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class Case:
    """One event from its begin (µs since 1970 UTC) to its end; ``own``: what its type says of it beside the kind."""

    number: str
    site: Site
    begin_us: int
    kind: str
    own: Mapping[str, Any]


Say = Callable[[random.Random, Case, str, int], tuple[Any, Event, tuple[str, ...]]]
"""(random, case, state, µs) to (body, the step the lake must hold, numbers of persons in the body)."""
SOURCES: Final = {
    "appeal": "hotline-12345",
    "inspection": "food-inspections",
    "violation": "food-violations",
    "banquet": "village-banquets",
    "finding": "project-findings",
    "approval": "project-approvals",
    "project": "project-register",
    "video_alarm": "video-alarms",
    "visit": "service-visits",
}
"""Type to the source that says it: the name of its file in configs/chengdu/events."""
_CATEGORY: Final = {
    "积水内涝": "waterlogging", "噪声扰民": "noise", "工地扬尘": "dust", "道路交通": "traffic", "物业管理": "property",
    "食品安全": "food", "网络餐饮": "online_catering", "学校食堂": "school_kitchen", "餐馆": "restaurant",
    "供货商": "supplier",
}  # fmt: skip
_CHANNEL: Final = {"窗口": "window", "网上": "online", "掌上": "app", "自助终端": "terminal"}


def _step(type_: str, case: Case, state: str, time: int, **more: Any) -> Event:
    return Event(
        case.number, SOURCES[type_], type_, state, time,
        category=more.pop("category", _CATEGORY.get(case.kind, case.kind)), **more,
    )  # fmt: skip


def _clock(us: int) -> str:
    return datetime.fromtimestamp(us / US_PER_S, UTC).astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S")


def _phone(rng: random.Random) -> str:
    return f"1{rng.choice('356789')}{rng.randrange(10**9):09d}"


def _written(rng: random.Random, phone: str) -> str:
    """A number as people write it."""
    match rng.randrange(5):
        case 0:
            return f"{phone[:3]}-{phone[3:7]}-{phone[7:]}"
        case 1:
            return f"+86 {phone[:3]} {phone[3:7]} {phone[7:]}"
        case 2:
            return "".join(chr(0xFF10 + int(d)) for d in phone)
        case _:
            return phone


def _appeal(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    words = {
        "accepted": "已受理", "assigned": "已派单", "handled": "已办理", "closed": "已办结", "cancelled": "已撤单",
        "rated": "已回访",
    }  # fmt: skip
    phone, name = _phone(rng), rng.choice(SURNAMES)
    solved, satisfied = rng.random() < 0.8948, rng.random() < 0.915
    rated, due = state == "rated", case.begin_us + 3 * DAY_US
    body = {
        "order": {
            "no": case.number, "status": words[state], "updated": _clock(time), "deadline": _clock(due),
            "channel": "12345",
        },
        "caller": {"name": f"{name}某某", "phone": phone, "idcard": f"51010119{rng.randrange(50, 99)}0101{phone[-4:]}"},
        "content": {
            "kind": case.kind, "area": case.site.district, "place": f"{case.site.district}某路口",
            "gps": {"lng": case.site.lon, "lat": case.site.lat},
            "text": f"反映{case.kind},请尽快处理,联系人{name}女士{_written(rng, phone)}。",
        },
    }  # fmt: skip
    if rated:
        body["visit"] = {
            "solved": "是" if solved else "否",
            "satisfied": ("满意" if rng.random() < 0.9 else "基本满意") if satisfied else "不满意",
        }
    attributes: dict[str, str | float | None] = {
        "text": f"反映{case.kind},请尽快处理,联系人{name}女士***。",
        "channel": "12345",
        "solved": float(solved) if rated else None,
        "satisfied": float(satisfied) if rated else None,
    }
    step = _step(
        "appeal", case, state, time, district=case.site.district, name=f"{case.site.district}某路口",
        lon=case.site.lon, lat=case.site.lat, attributes=attributes, due_us=due,
    )  # fmt: skip
    return body, step, (phone,)


def _inspection(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    stages = {"accepted": 10, "assigned": 20, "closed": 30, "cancelled": 90}
    phone = _phone(rng)
    done = state == "closed"
    body = {
        "inspectionId": case.number, "stage": stages[state], "ts": time // 1000,
        "business": {"type": case.kind, "region": case.site.district, "place": "某街", "code": case.own["business"]},
        "inspector": {"name": f"{rng.choice(SURNAMES)}某", "mobile": int(phone)},
        "result": {"violations": case.own["violations"]} if done else None,
    }  # fmt: skip
    said = {"violations": float(case.own["violations"]) if done else None, "business": case.own["business"]}
    step = _step("inspection", case, state, time, district=case.site.district, name="某街", attributes=said)
    return body, step, (phone,)


def _violation(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    what, due = ("过期食材", "无证经营", "环境不洁")[int(case.number[-1]) % 3], case.begin_us + 7 * DAY_US
    body = {
        "business_type": case.kind, "region": case.site.district, "inspection": f"IN-{case.number}",
        "list": [{"id": case.number, "what": what, "corrected": state == "closed", "at": time // US_PER_S,
                  "by": due // US_PER_S}],
    }  # fmt: skip
    said = {"violation": what, "inspection": f"IN-{case.number}"}
    step = _step("violation", case, state, time, district=case.site.district, attributes=said, due_us=due)
    return body, step, ()


def _banquet(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    words = {"accepted": "申报", "assigned": "核查", "closed": "办席", "cancelled": "取消"}
    phone = _phone(rng)
    body = {
        "filing": {"number": case.number, "step": words[state], "time": f"{_clock(time)}+08:00"},
        "where": {"county": case.site.district, "village": "某村"},
        "host": f"{rng.choice(SURNAMES)}某 {phone}", **case.own,
    }  # fmt: skip
    said = {name: float(number) for name, number in case.own.items()}
    step = _step("banquet", case, state, time, district=case.site.district, name="某村", attributes=said)
    return body, step, (phone,)


def _finding(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    words = {"accepted": "发现", "assigned": "交办", "handled": "整改", "closed": "销号"}
    due = case.begin_us + 10 * DAY_US
    body = {
        "uid": case.number, "s": words[state], "t": time // 1000, "deadline": due // 1000, "class": case.kind,
        "district": case.site.district, "project_code": case.own["project"], "note": f"{case.kind}问题",
    }  # fmt: skip
    said = {"project": case.own["project"], "text": f"{case.kind}问题"}
    step = _step("finding", case, state, time, district=case.site.district, attributes=said, due_us=due)
    return body, step, ()


def _approval(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    words = {"accepted": "收件", "assigned": "审查", "closed": "办结"}
    one = {
        "bizNo": case.number, "node": words[state], "time": time // 1000, "matter": case.kind,
        "area": case.site.district, "project": case.own["project"],
    }  # fmt: skip
    step = _step("approval", case, state, time, district=case.site.district, attributes=dict(case.own))
    return {"data": {"items": [one]}}, step, ()


def _project(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    own, site = case.own, case.site
    done, plan, devices = own["done"], own["plan"], " ".join(own["devices"])
    body = {
        "code": case.number, "phase": "在建", "reported": time // 1000, "planned_end": own["due_us"] // 1000,
        "title": own["name"], "class": case.kind, "area": site.district, "lon": site.lon, "lat": site.lat,
        "done": done, "plan": plan, "equipment": devices,
    }  # fmt: skip
    said: dict[str, str | float | None] = {"progress": done, "planned": plan, "devices": devices}
    step = _step(
        "project", case, state, time, district=site.district, name=own["name"], lon=site.lon, lat=site.lat,
        attributes=said, due_us=own["due_us"],
    )  # fmt: skip
    return body, step, ()


def _video_alarm(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    words = {"accepted": "new", "assigned": "confirmed", "closed": "done", "cancelled": "false"}
    score = round(rng.uniform(0.5, 1.0), 2)
    body = {
        "alarm": {"id": case.number, "status": words[state], "time": time // 1000, "type": case.kind,
                  "area": case.site.district, "score": score},
    }  # fmt: skip
    step = _step(
        "video_alarm", case, state, time, district=case.site.district, attributes={"confidence": score}
    )
    return body, step, ()


def _visit(
    rng: random.Random, case: Case, state: str, time: int
) -> tuple[dict[str, Any], Event, tuple[str, ...]]:
    service, visits = f"S{rng.randrange(572):03d}", rng.randrange(1, 400)
    body = {
        "hour": time // US_PER_S,
        "rows": [{"key": case.number, "channel": case.kind, "service": service, "n": visits}],
    }
    said = {"channel": _CHANNEL[case.kind], "service": service, "visits": float(visits)}
    return body, _step("visit", case, state, time, category="", attributes=said), ()


SAYS: Final[dict[str, Say]] = {
    "appeal": _appeal,
    "inspection": _inspection,
    "violation": _violation,
    "banquet": _banquet,
    "finding": _finding,
    "approval": _approval,
    "project": _project,
    "video_alarm": _video_alarm,
    "visit": _visit,
}
