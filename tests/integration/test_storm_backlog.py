"""Six hours of a flood delivered at once: nobody is called for what is over; every episode stands with its times."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.engines import EngineProcess, site_config, until
from tests.faults_webhook import WELL, Targets
from tests.talk import Talker

MINUTE_MS = 60_000
MINUTES = 360
FLOODED = [f"w{n}" for n in range(10)]
STILL = "still"
BLUE, GAP, PEAK = 10.0, 1.0, 30.0


def triangle(begin: int, half: int) -> list[float]:
    """Dry, up to PEAK within ``half`` minutes from ``begin`` on, down again, dry."""
    return [round(max(0.0, PEAK * (1 - abs(m - begin - half) / half)), 3) for m in range(MINUTES)]


def test_a_backlog_of_six_hours_calls_nobody_for_what_is_over(tmp_path: Path) -> None:
    courses = {point: triangle(10 + 25 * n, 30) for n, point in enumerate(FLOODED)}
    # Dry until five minutes ago, then over the limit: this one is news.
    courses[STILL] = [0.0] * (MINUTES - 5) + [12.0, 14.0, 16.0, 16.0, 16.0]
    with Targets([WELL]) as targets:
        config = site_config(
            tmp_path, {"g1": list(courses)}, kinds=dict.fromkeys(courses, "level"), more=targets.config()
        )
        engine = EngineProcess(tmp_path, config).start()
        begin_ms = (int(time.time()) - MINUTES * 60) * 1000
        with Talker(engine.port) as talker:
            messages = []
            for minute in range(MINUTES):
                rows = [
                    {"id": point, "ts": begin_ms + minute * MINUTE_MS, "v": course[minute]}
                    for point, course in courses.items()
                ]
                messages.append(("t/g1", json.dumps(rows).encode()))
            talker.say_all(messages)
        engine.counted(MINUTES * len(courses))
        engine.until_lake("SELECT count(DISTINCT id) FROM alerts WHERE rule = 'level'", [(len(courses),)])
        until(lambda: engine.vitals()["outbox_waiting"] == 0 and targets.calls[WELL], "all delivered")
        stood = engine.lake(
            f"""SELECT point_id, (epoch_ms(onset) - {begin_ms}) / {MINUTE_MS},
                       (epoch_ms(ended_at) - {begin_ms}) / {MINUTE_MS}, peak
                FROM alerts WHERE rule = 'level'"""
        )
        calls = targets.calls[WELL]
        told = set(targets.heard[WELL])
        still = engine.lake(f"SELECT DISTINCT id FROM alerts WHERE point_id = '{STILL}'")
        assert engine.stop() == 0
    true: dict[str, tuple[float, float | None, float]] = {}
    for point, course in courses.items():
        begun = next(m for m, v in enumerate(course) if v >= BLUE)
        over = next((m for m, v in enumerate(course) if m > begun and v < BLUE - GAP), None)
        true[point] = (float(begun), None if over is None else float(over), max(course))
    assert {row[0]: row[1:] for row in stood} == true, "every episode, with its true times"
    assert told == {row[0] for row in still}, "only what has just begun is told"
    assert calls >= 1
