"""`python -m tests.console_fake`: the map's server over a city that is made up, to work on the page without an engine.

A storm wanders over the city; its alerts come and go; some points are offline, some doubtful. User `duty`, password
`duty`, may act; `guest`, `guest` may look.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from anomaly.alerts.event import FIRING, RESOLVED, UPDATED, AlertEvent, alert_id
from anomaly.subjects import Subjects
from console.server import Console
from storage.passwords import hash_password
from tests.console_city import MadeUp, made_up

HOSTILE = "<img src=x onerror=alert(1)>\u202eRTL\u2066"


def _storm(city: MadeUp, second: int) -> list[AlertEvent]:
    """Flooded points: those near where the storm is now; events of those that changed."""
    points = city.engine.points
    angle = second / 60.0
    lon = np.nanmean(points.lon) + 0.25 * np.cos(angle)
    lat = np.nanmean(points.lat) + 0.2 * np.sin(angle)
    km = np.hypot((points.lon - lon) * 95, (points.lat - lat) * 111)
    wet = np.isfinite(points.level[0]) & (points.level[3] > points.level[0])
    target = np.zeros(len(points), np.uint8)
    for severity, reach in ((1, 9.0), (2, 6.0), (3, 3.5), (4, 1.5)):
        target[wet & (km < reach) & (city.rng.random(len(points)) < 0.9)] = severity
    target = np.where(city.rng.random(len(points)) < 0.2, target, city.severity).astype(np.uint8)
    subjects, events, now = Subjects(points, {}), [], int(time.time() * 1e6)
    for number in np.flatnonzero(target != city.severity)[:300].tolist():
        before, after = int(city.severity[number]), int(target[number])
        city.severity[number] = after
        onset = city.onset.setdefault(number, now)  # type: ignore[attr-defined]
        revision = city.revision[number] = city.revision.get(number, 0) + 1  # type: ignore[attr-defined]
        kind = RESOLVED if not after else FIRING if not before else UPDATED
        limit = float(points.level[(after or before) - 1, number])
        city.value[number] = limit if after else points.level[0, number] * 0.5
        events.append(
            AlertEvent(
                alert_id("level", points.point_id[number], onset), revision, kind, "level", "event",
                max(before, after), after, subjects.of("level", number), onset, now, now, limit, limit, limit, True,
                False, False, ((now, after, limit),), pos=city.seq << 24,
            )
        )  # fmt: skip
        if not after:
            del city.onset[number], city.revision[number]  # type: ignore[attr-defined]
    return events


async def _run(console: Console, city: MadeUp, stop_at: float) -> None:
    city.onset, city.revision = {}, {}  # type: ignore[attr-defined]
    points = city.engine.points
    points.name[0] = HOSTILE
    city.silent[city.rng.random(len(points)) < 0.02] = True
    city.flag[city.rng.random(len(points)) < 0.01] = 3
    city.fault[city.rng.random(len(points)) < 0.003] = True
    city.tick(1.0, int(time.time() * 1e6))
    async with console:
        print(f"map at {console.address}  (duty/duty may act, guest/guest may look)", flush=True)
        second = 0
        while time.monotonic() < stop_at:
            events = _storm(city, second)
            if events:
                await console.act(lambda outbox, found=events: outbox.record(found, None))
            city.tick(0.3, int(time.time() * 1e6))
            second += 1
            await asyncio.sleep(1.0)


def main() -> None:
    """Body of the command."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--points", type=int, default=116_200)
    ask.add_argument("--port", type=int, default=9182)
    ask.add_argument("--seconds", type=float, default=3600.0)
    ask.add_argument("--login", action="store_true", help="nobody may look without a login")
    given = ask.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="console-fake-"))
    try:
        users = folder / "users.toml"
        rows = (("duty", "operate"), ("guest", "view"))
        users.write_text(
            "".join(
                f'[[user]]\nname = "{n}"\nrole = "{r}"\npassword = "{hash_password(n)}"\n' for n, r in rows
            )
        )
        console, city = made_up(
            folder, given.points, port=given.port, users_file=str(users), anonymous_view=not given.login
        )
        asyncio.run(_run(console, city, time.monotonic() + given.seconds))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
