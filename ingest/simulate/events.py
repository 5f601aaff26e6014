"""Events of the demo city as their systems would send them: appeals, inspections, banquets, findings, alarms, visits.

Owns the cases, their lives and the order of sending; the words are ingest.simulate.event_words. Deterministic by its
seed; asks no clock. Names, places and numbers are invented.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from typing import Any, Final

from ingest.simulate.event_words import DAY_US, SAYS, SOURCES, Case, Site
from ingest.simulate.projects import Project
from storage.batch import US_PER_S
from storage.records import Event

LIFE_DAYS: Final = 60
"""Cases begun up to this long before the span may have steps within it."""
PER_DAY: Final = {
    "appeal": 16_000.0,
    "inspection": 900.0,
    "violation": 120.0,
    "banquet": 90.0,
    "finding": 140.0,
    "approval": 160.0,
    "video_alarm": 2_600.0,
    "visit": 24.0 * 60,
}
"""Cases a day at scale 1. Invented, of the size a city of twenty million has."""
REPORT_DAYS: Final = 30
"""A project reports so often."""
PAST: Final = {
    "appeal": (30, 20.0),
    "inspection": (365, 2.0),
    "violation": (365, 0.7),
    "banquet": (365, 0.3),
    "finding": (90, 2.0),
    "approval": (90, 1.0),
    "project": (90, 0.0),
}
"""What a city that joins today brings along of each type: days back, and cases a day. A few thousand messages, not
millions: enough that every list has something in it."""


@dataclass(frozen=True, slots=True)
class Flood:
    """Water on a road: so many appeals about it within ``km`` of a place, spread over the span. µs since 1970 UTC."""

    site: Site
    begin_us: int
    end_us: int
    appeals: int
    km: float = 0.5


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message of a source.

    at_us    when it is sent: a little after its newest step
    steps    what the lake must hold of it, each once; received_at is 0
    numbers  of persons, in it as it is sent: none may ever be found on disk
    """

    at_us: int
    source: str
    topic: str
    payload: bytes
    steps: tuple[Event, ...]
    numbers: tuple[str, ...] = ()


Life = list[tuple[str, int]]
"""(state, µs) of each step."""


def city_events(
    seed: int,
    begin_us: int,
    end_us: int,
    sites: Sequence[Site],
    *,
    cameras: Sequence[str] = (),
    scale: float = 1.0,
    pace: float = 1.0,
    floods: Sequence[Flood] = (),
    projects: Sequence[Project] = (),
    types: Collection[str] = SOURCES,
) -> Iterator[Spoken]:
    """Every message whose step falls into begin_us … end_us (µs since 1970 UTC), in the order sent.

    sites    where things happen; each as likely as the others
    cameras  point_ids that alarms are about; none: no alarms
    scale    cases a day, in times PER_DAY
    pace     lives in times their length: 0.001 shows whole lives within minutes
    projects  each reports within the first seconds, and again and again; findings and approvals are about them
    types    only these

    The same arguments give the same bytes. Each (source, id, state, time) comes once.
    """
    span = (begin_us, end_us)
    streams = []
    for type_, source in SOURCES.items():
        if type_ not in types:
            continue
        rng = random.Random(f"{seed}/{type_}")
        if type_ == "project":
            streams.append(_reports(rng, projects, span, pace))
            continue
        if type_ == "video_alarm" and not cameras:
            continue
        cases = _cases(rng, type_, span, sites, scale, pace, projects)
        if type_ == "appeal":
            cases = sorted([*cases, *_flooded(seed, floods)], key=lambda one: one.begin_us)
        streams.append(_spoken(rng, type_, source, cases, cameras, span, pace))
    return merge(*streams, key=lambda one: one.at_us)


def city_past(
    seed: int, now_us: int, sites: Sequence[Site], projects: Sequence[Project], scale: float = 1.0
) -> list[Spoken]:
    """What a city that joins now brings along, in the order of its steps; ``scale`` in times PAST."""
    found: list[Spoken] = []
    for type_, (days, per_day) in PAST.items():
        usual = PER_DAY.get(type_, 1.0)
        found += city_events(
            seed, now_us - days * DAY_US, now_us, sites, scale=per_day * scale / usual, projects=projects,
            types=(type_,),
        )  # fmt: skip
    return sorted(found, key=lambda one: one.at_us)


def _reports(
    rng: random.Random, projects: Sequence[Project], span: tuple[int, int], pace: float
) -> Iterator[Spoken]:
    """Each project says how far it is: first within the first seconds of the span or of its own."""
    found = []
    for number, one in enumerate(projects):
        begin, every = max(span[0], one.begin_us), max(US_PER_S, round(REPORT_DAYS * DAY_US * pace))
        begin += number % 3 * US_PER_S
        for time in range(begin - begin % US_PER_S, span[1], every - every % US_PER_S):
            if time < span[0]:
                continue
            own = {
                "name": one.name, "done": one.done(time), "plan": one.planned(time), "due_us": one.end_us,
                "devices": one.devices,
            }  # fmt: skip
            case = Case(one.number, one.site, one.begin_us, one.kind, own)
            body, step, _ = SAYS["project"](rng, case, "accepted", time)
            payload = json.dumps(body, ensure_ascii=False).encode()
            sent = time + rng.randrange(1, US_PER_S)
            found.append(Spoken(sent, SOURCES["project"], TOPICS["project"], payload, (step,)))
    return iter(sorted(found, key=lambda said: said.at_us))


def _cases(
    rng: random.Random,
    type_: str,
    span: tuple[int, int],
    sites: Sequence[Site],
    scale: float,
    pace: float,
    projects: Sequence[Project] = (),
) -> list[Case]:
    """Cases that may have a step in the span, in the order of their begin."""
    begin, end = span[0] - round(LIFE_DAYS * DAY_US * pace), span[1]
    if type_ == "visit":
        begin = span[0]
    mean_us = DAY_US / (PER_DAY[type_] * scale)
    cases: list[Case] = []
    at = float(begin)
    while (at := at + rng.expovariate(1 / mean_us)) < end:
        number, time = f"{type_[:2].upper()}{begin // DAY_US}-{len(cases):07d}", round(at)
        # To the second: sources write their times so.
        time -= time % US_PER_S
        site, kind, own = rng.choice(sites), rng.choice(KINDS[type_]), _own(rng, type_)
        if projects and "project" in own:
            about = rng.choice(projects)
            site, own = about.site, {"project": about.number}
        cases.append(Case(number, site, time, kind, own))
    return cases


def _own(rng: random.Random, type_: str) -> dict[str, Any]:
    if type_ == "inspection":
        return {"violations": rng.choice((0, 0, 0, 0, 1, 2)), "business": f"B-{rng.randrange(40_000):05d}"}
    if type_ in ("finding", "approval"):
        return {"project": f"CD-{rng.randrange(300):04d}"}
    if type_ == "banquet":
        tables = rng.randrange(5, 80)
        return {"tables": tables, "guests": tables * rng.randrange(6, 11)}
    return {}


def _flooded(seed: int, floods: Sequence[Flood]) -> Iterator[Case]:
    for place, flood in enumerate(floods):
        rng = random.Random(f"{seed}/flood/{place}")
        for number in range(flood.appeals):
            time = rng.randrange(flood.begin_us, flood.end_us)
            degrees = flood.km / 111.2
            lon = flood.site.lon + rng.uniform(-degrees, degrees) / 2
            lat = flood.site.lat + rng.uniform(-degrees, degrees) / 2
            site = Site(flood.site.district, round(lon, 6), round(lat, 6))
            yield Case(f"FL{place}-{number:05d}", site, time - time % US_PER_S, "积水内涝", {})


def _spoken(
    rng: random.Random,
    type_: str,
    source: str,
    cases: Sequence[Case],
    cameras: Sequence[str],
    span: tuple[int, int],
    pace: float,
) -> Iterator[Spoken]:
    found = []
    for case in cases:
        for state, time in _life(rng, type_, case, pace):
            if not span[0] <= time < span[1]:
                continue
            body, step, numbers = SAYS[type_](rng, case, state, time)
            if cameras and type_ == "video_alarm":
                step = replace(step, point_id=rng.choice(cameras))
                body["alarm"]["channel"] = step.point_id
            payload = json.dumps(body, ensure_ascii=rng.random() < 0.3).encode()
            sent = time + rng.randrange(1, 4 * US_PER_S)
            found.append(Spoken(sent, source, TOPICS[type_], payload, (step,), numbers))
    return iter(sorted(found, key=lambda one: one.at_us))


def _life(rng: random.Random, type_: str, case: Case, pace: float) -> Life:
    """The steps of a case, each at least a second after the one before."""
    life = [("accepted" if type_ != "visit" else "closed", case.begin_us)]
    for state, share, mean_days in LIVES[type_]:
        ended = life[-1][0] in ("refused", "cancelled")
        if rng.random() >= share or ended:
            if state in ("refused", "cancelled") or ended:
                continue
            break
        wait = max(1, round(rng.expovariate(1 / (mean_days * 86_400 * pace))))
        life.append((state, life[-1][1] + min(wait, round(LIFE_DAYS * 86_400 * pace)) * US_PER_S))
    return life


TOPICS: Final = {
    "appeal": "events/hotline/orders",
    "inspection": "events/food/inspections",
    "violation": "events/food/violations",
    "banquet": "events/banquets",
    "finding": "events/projects/findings",
    "approval": "events/projects/approvals",
    "project": "events/projects/register",
    "video_alarm": "events/video/alarms",
    "visit": "events/services/visits",
}
LIVES: Final[dict[str, tuple[tuple[str, float, float], ...]]] = {
    "appeal": (
        ("cancelled", 0.02, 0.05), ("assigned", 0.99, 0.05), ("handled", 0.97, 2.5), ("closed", 0.98, 0.5),
        ("rated", 0.8, 1.0),
    ),
    "inspection": (("cancelled", 0.03, 0.5), ("assigned", 0.99, 1.0), ("closed", 0.98, 1.0)),
    "violation": (("closed", 0.9, 6.0),),
    "banquet": (("cancelled", 0.04, 0.5), ("assigned", 0.9, 1.5), ("closed", 0.97, 1.0)),
    "finding": (("assigned", 0.98, 1.0), ("handled", 0.9, 7.0), ("closed", 0.95, 2.0)),
    "approval": (("assigned", 0.99, 1.0), ("closed", 0.95, 9.0)),
    "video_alarm": (("cancelled", 0.3, 0.01), ("assigned", 0.95, 0.005), ("closed", 0.95, 0.1)),
    "visit": (),
}  # fmt: skip
"""(state, share of cases that get there, mean days after the step before), after the first step. Invented, but for the
hotline: 89.48 % solved, 91.5 % satisfied."""
KINDS: Final = {
    "appeal": ("积水内涝", "噪声扰民", "工地扬尘", "道路交通", "物业管理", "食品安全", "其他"),
    "inspection": ("网络餐饮", "学校食堂", "餐馆", "供货商"),
    "violation": ("网络餐饮", "学校食堂", "餐馆", "供货商"),
    "banquet": ("",),
    "finding": ("安全", "质量", "进度", "扬尘"),
    "approval": ("立项", "用地规划", "施工许可", "竣工验收"),
    "video_alarm": ("smoke", "no_helmet", "rat", "crowd", "dumping"),
    "visit": ("窗口", "网上", "掌上", "自助终端"),
}
