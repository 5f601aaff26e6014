"""What the rooms of supervision ask of the lake: projects and sites, source systems and districts, appeals and food.

Owns these questions and the form of their answers; the sums are macros of storage/sql/lake.sql. Runs in the processes
of console.lakeside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import duckdb
import orjson

JSON: Final = "application/json"
SITES_MAX: Final = 2_000
"""More is no list that people walk."""
OF_SITE_MAX: Final = 300
"""Points, findings and approvals of one site."""
SYSTEMS_MAX: Final = 2_000

Answer = tuple[str, bytes]


def projects(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> Answer:
    """Every project and site; ``video`` is the kind of cameras."""
    sql = f"FROM sites_by_project(video := {_text(asked['video'])}) LIMIT {SITES_MAX + 1}"
    rows = list(_rows(con, sql))
    return _json({"sites": rows[:SITES_MAX], "more": len(rows) > SITES_MAX})


def project(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> Answer:
    """One of them, ``project``: its points with their last word, findings and approvals, open ones first."""
    name = _text(asked["project"])
    points = _rows(
        con,
        f"""SELECT s.point_id, s.name, s.kind, s.unit, l.value, l.time, l.flag, s.interval_s,
                   coalesce(a.severity, 0) AS severity
            FROM (SELECT * EXCLUDE site FROM yuzui_site_points WHERE site = {name}) s
            LEFT JOIN latest l USING (point)
            LEFT JOIN (SELECT point_id, max(severity_now) AS severity FROM alerts
                       WHERE state = 'firing' AND "class" = 'event' AND NOT drill GROUP BY point_id) a
                ON a.point_id = s.point_id
            ORDER BY severity DESC, s.kind, s.point_id LIMIT {OF_SITE_MAX}""",
    )
    cases = {kind: list(_rows(con, _cases_of(kind, name))) for kind in ("finding", "approval")}
    return _json({"project": asked["project"], "points": list(points), **cases})


def systems(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> Answer:
    """Source systems and districts over ``since`` to ``until``, s."""
    span = _span(asked)
    return _json(
        {
            "sources": list(_rows(con, f"FROM health_by_source({span}) LIMIT {SYSTEMS_MAX}")),
            "districts": list(_rows(con, f"FROM health_by_district({span}) LIMIT {SYSTEMS_MAX}")),
        }
    )


def services(con: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> Answer:
    """Appeals of ``since`` to ``until``, s, by district and category; food supervision of the last twelve months."""
    year = "date_trunc('month', now()) - INTERVAL 11 MONTH, now()"
    return _json(
        {
            "appeals": list(_rows(con, f"FROM appeals_by({_span(asked)})")),
            "rates": list(_rows(con, f"FROM violation_rate({year})")),
            "violations": list(_rows(con, f"FROM violations_by({year})")),
            "banquets": list(_rows(con, f"FROM banquets_by({year})")),
        }
    )


def _cases_of(kind: str, project_: str) -> str:
    return f"""SELECT id, state, category, opened, due, over, outcome,
                      over IS NULL AND coalesce(due < now(), false) AS overdue
               FROM yuzui_cases('{kind}') WHERE project = {project_}
               ORDER BY over IS NULL DESC, due NULLS LAST, opened DESC LIMIT {OF_SITE_MAX}"""


QUESTIONS: Final = {"projects": projects, "project": project, "systems": systems, "services": services}


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> Iterator[dict[str, Any]]:
    """Times as seconds since 1970, dates as text, what is no number as null."""
    found = con.execute(sql)
    names = [column[0] for column in found.description or []]
    for row in found.fetchall():
        yield {name: _plain(value) for name, value in zip(names, row, strict=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "timestamp"):
        return value.timestamp()
    return value if value is None or isinstance(value, str | int) else str(value)


def _span(asked: dict[str, Any]) -> str:
    return ", ".join(
        f"make_timestamptz({round(float(asked[name]) * 1e6)}::BIGINT)" for name in ("since", "until")
    )


def _text(value: str) -> str:
    return "'" + str(value).replace("'", "''").replace("\0", "") + "'"


def _json(body: dict[str, Any]) -> Answer:
    return JSON, orjson.dumps(body)
