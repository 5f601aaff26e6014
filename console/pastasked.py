"""What a replay asks the lake: which days there are, one day as bytes, what points showed at a minute.

Owns the SQL of these questions, in a process of console.lakeside; the story is told by console.pastday. A day is
made of the alerts log by the rule ``map_counts_at`` counts by: of each alert the newest revision recorded by then.
"""

from __future__ import annotations

import base64
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import orjson

from console.pastday import (
    DAY_BYTES_MAX,
    STEPS_S,
    Answer,
    Course,
    Day,
    Span,
    Step,
    Story,
    chosen,
    group_json,
    packed,
)
from storage.batch import US_PER_S
from storage.query import HOUR_0

BYTES: Final = "application/octet-stream"
JSON: Final = "application/json"
HOUR_S: Final = 3600
LEVELS_SPAN_S: Final = 600
"""A level is shown of points that spoke within so long before the minute."""
WORDS: Final = ("zh", "en", "value", "limit", "unit")

_STEPS: Final = """
WITH step AS (
    SELECT id, revision, "class" = 'event' AS city, rule, point_id, gateway_id, kind, district,
           coalesce(severity_now, 0) AS severity, epoch_us(onset) AS onset, epoch_us(recorded_at) AS told
    FROM yuzui_alert_steps
    WHERE recorded_at <= make_timestamptz($until::BIGINT) AND ("class" <> 'event' OR pos IS NOT NULL)
), before AS (
    SELECT * FROM step WHERE told <= $begin QUALIFY row_number() OVER (PARTITION BY id ORDER BY revision DESC) = 1
)
SELECT * FROM before WHERE severity > 0 OR id IN (SELECT id FROM step WHERE told > $begin)
UNION ALL SELECT * FROM step WHERE told > $begin
ORDER BY told, revision
"""
"""Drills have no ``pos`` and are no part of the city's past."""

_LOG: Final = """
SELECT step, alert_id, detail, epoch_us("at"), who
FROM read_parquet(yuzui_files(getvariable('yuzui').alert_log), hive_partitioning = false)
WHERE "at" <= make_timestamptz($until::BIGINT)
  AND (step IN ('merged', 'answered') OR step = 'grouped' AND alert_id IN (SELECT unnest($alerts)))
ORDER BY id
"""
"""Of the files and not of the view: rows that stand twice do no harm here, and a filter reaches the files."""

_WORDS: Final = """
SELECT DISTINCT ON (id, revision) id, revision, summary_zh, summary_en, value, level, unit
FROM yuzui_alert_steps SEMI JOIN (SELECT unnest($ids) AS id, unnest($revisions) AS revision) USING (id, revision)
"""

_ALERT_DAYS: Final = """
SELECT strftime(recorded_at, '%Y-%m-%d') AS date, epoch(min(recorded_at)), epoch(max(recorded_at)),
       count(DISTINCT id) FILTER ("class" = 'event' AND severity_now > 0),
       coalesce(max(severity_now) FILTER ("class" = 'event'), 0)
FROM yuzui_alert_steps WHERE "class" <> 'event' OR pos IS NOT NULL GROUP BY 1
"""

_HOURS: Final = f"""
SELECT DISTINCT CAST(f[1:10] AS BIGINT) - {HOUR_0}, CAST(f[11:20] AS BIGINT) - {HOUR_0}
FROM (SELECT unnest(yuzui_list(getvariable('yuzui').plain)) AS f
      UNION ALL SELECT unnest(yuzui_list(getvariable('yuzui').touched))
      UNION ALL SELECT unnest(yuzui_list(getvariable('yuzui').rollup_1m)))
WHERE f[11:20] <> '9999999999'
"""

_LAST: Final = """
SELECT point, arg_max("last", "time")
FROM yuzui_minutes(make_timestamptz($since::BIGINT), make_timestamptz($until::BIGINT))
WHERE "last" IS NOT NULL GROUP BY point
"""


def days(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> tuple[str, bytes]:
    """City days that have readings or alerts: ``zone`` of the city, ``until`` s: nothing later is told."""
    zone, until = ZoneInfo(asked["zone"]), float(asked["until"])
    found: dict[str, dict[str, Any]] = {}

    def grow(date: str, since: float, to: float) -> dict[str, Any]:
        day = found.setdefault(date, {"date": date, "from": since, "until": to, "alerts": 0, "worst": 0})
        day["from"], day["until"] = min(day["from"], since), max(day["until"], to)
        return day

    for date, first, last, alerts, worst in con.execute(_ALERT_DAYS).fetchall():
        day = grow(date, first, last)
        day["alerts"], day["worst"] = alerts, worst
    for first, last in con.execute(_HOURS).fetchall():
        for hour in range(first, last + 1):
            for since, to in _parts(hour * HOUR_S, min((hour + 1) * HOUR_S, until), zone):
                grow(datetime.fromtimestamp(since, zone).date().isoformat(), since, to)
    return JSON, orjson.dumps({"days": [found[date] for date in sorted(found)]})


def _parts(since: float, until: float, zone: ZoneInfo) -> Iterable[tuple[float, float]]:
    """An hour in two where midnight of the city lies in it: there are zones half an hour off."""
    while since < until:
        here = datetime.fromtimestamp(since, zone)
        after = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        yield since, min(until, after)
        since = after


def day(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> tuple[str, bytes]:
    """A day's bytes. ``begin``, ``until`` s: first and last picture; ``version``, ``numbers`` of the display;
    ``about``: told in its JSON too."""
    numbers = np.frombuffer(base64.b64decode(asked["numbers"]), np.int32)
    begin, until = round(asked["begin"] * US_PER_S), round(asked["until"] * US_PER_S)
    index, members = _places(con, numbers)
    steps = [Step(*row) for row in con.execute(_STEPS, {"begin": begin, "until": until}).fetchall()]
    group_of, answers = _groups(con, until, {step.id for step in steps})
    for step_s in STEPS_S:
        span = Span(asked["begin"], step_s, int((until - begin) // US_PER_S) // step_s + 1)
        story = Story(span, index, members, group_of, len(numbers))
        told = _told(story, steps, answers)
        groups, more = chosen(told)
        words = _words(con, groups)
        lines = [group_json(group, words) for group in groups]
        body = packed(told, asked["version"], len(numbers), asked["about"], lines, more)
        if len(body) <= DAY_BYTES_MAX:
            break
    return BYTES, body


def _told(story: Story, steps: list[Step], answers: list[Answer]) -> Day:
    turns: list[Iterable[tuple[int, Callable[[Any], None], Any]]] = [
        ((step.at, story.step, step) for step in steps),
        ((answer.at, story.answer, answer) for answer in answers),
    ]
    for _, tell, row in heapq.merge(*turns, key=lambda turn: turn[0]):
        tell(row)
    return story.end()


def _places(
    con: duckdb.DuckDBPyConnection, numbers: np.ndarray
) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Display index of each point_id, and display indices of each gateway's points."""
    at = np.full(int(numbers.max(initial=-1)) + 1, -1, np.int64)
    at[numbers] = np.arange(len(numbers))
    index: dict[str, int] = {}
    members: dict[str, list[int]] = defaultdict(list)
    for point_id, point, gateway in con.execute("SELECT point_id, point, gateway_id FROM points").fetchall():
        if point < len(at) and at[point] >= 0:
            index[point_id] = int(at[point])
            if gateway:
                members[gateway].append(int(at[point]))
    return index, members


def _groups(
    con: duckdb.DuckDBPyConnection, until: int, alerts: set[str]
) -> tuple[dict[str, str], list[Answer]]:
    """The group of each alert that is not its own, as it was at the end of the day; and the answers."""
    into: dict[str, str] = {}
    said: list[Answer] = []
    for step, alert, detail, at, who in con.execute(
        _LOG, {"until": until, "alerts": list(alerts)}
    ).fetchall():
        if step == "answered":
            said.append(Answer(alert, at, who or "", detail or ""))
        elif detail and detail != alert:
            into[alert] = detail

    def last(name: str) -> str:
        seen = {name}
        while (after := into.get(name)) is not None and after not in seen:
            seen.add(after)
            name = after
        return name

    said = [answer._replace(group=last(answer.group)) for answer in said]
    return {alert: last(alert) for alert in alerts}, sorted(set(said), key=lambda answer: answer.at)


def _words(con: duckdb.DuckDBPyConnection, groups: list[Course]) -> dict[tuple[str, int], dict[str, Any]]:
    wanted = [(alert, revision) for group in groups for _, alert, revision in group.says]
    given = {"ids": [alert for alert, _ in wanted], "revisions": [revision for _, revision in wanted]}
    if not wanted:
        return {}
    rows = con.execute(_WORDS, given).fetchall()
    return {(row[0], row[1]): dict(zip(WORDS, row[2:], strict=True)) for row in rows}


def levels(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> tuple[str, bytes]:
    """float64 of each point number below ``points``: its last value in the minutes before ``t`` s, NaN without one."""
    until = round(asked["t"] * US_PER_S)
    found = con.execute(_LAST, {"since": until - LEVELS_SPAN_S * US_PER_S, "until": until}).fetchnumpy()
    values = np.full(asked["points"], np.nan)
    point, last = (np.asarray(column) for column in found.values())
    known = point < len(values)
    values[point[known]] = last[known]
    return BYTES, values.tobytes()
