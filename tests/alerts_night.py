"""An outbox with a clock that the test sets, the rounds beside it, and what people were told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from anomaly.alerts.event import AlertEvent
from anomaly.alerts.outbox import Outbox
from anomaly.alerts.rounds import Rounds
from anomaly.settings import AlertSettings, InhibitSettings, RouteSettings, WebhookSettings
from tests.anomaly_city import T0, S

HOOKS = [
    WebhookSettings.model_validate({"name": name, "url": "http://127.0.0.1:1/"})
    for name in ("room", "chief", "mayor")
]


class Night:
    """An outbox with a clock that the test sets, in s after T0, and the rounds beside it."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.now = 0
        alerts = AlertSettings.model_validate(settings.pop("alerts", {}))
        policy = {
            "routes": [RouteSettings.model_validate(one) for one in settings.pop("routes", [])],
            "inhibits": [InhibitSettings.model_validate(one) for one in settings.pop("inhibits", [])],
        }
        self.outbox = Outbox(path / "o.db", HOOKS, alerts, now_us=self.clock, **policy)
        # What is tested is what is told; that it survives a power cut is the outbox's own test.
        self.outbox.rows("PRAGMA synchronous = OFF")
        self.rounds = Rounds(self.outbox, self.outbox.policy, self.outbox.link)

    def clock(self) -> int:
        return T0 + self.now * S

    def at(self, now: int) -> Night:
        self.now = now
        return self

    def take(self, *events: AlertEvent) -> Night:
        self.outbox.record(events, None)
        return self

    def round(self) -> Night:
        self.rounds.make(self.clock())
        return self

    def told(self, target: str = "room") -> list[tuple[str, int, str]]:
        """(group, revision, why) of all that was queued for a target, oldest first."""
        rows = self.outbox.rows("SELECT body FROM delivery WHERE target = ? ORDER BY rowid", (target,))
        bodies = [json.loads(row[0])["data"] for row in rows]
        return [(one["id"], one["revision"], one["group"]["reason"]) for one in bodies]

    def why(self, target: str = "room") -> list[str]:
        return [reason for _, _, reason in self.told(target)]

    def newest(self) -> dict[str, Any]:
        row = self.outbox.rows("SELECT body FROM delivery ORDER BY rowid DESC LIMIT 1")[0]
        body: dict[str, Any] = json.loads(row[0])["data"]
        return body

    def steps(self) -> Counter[str]:
        return Counter(row[0] for row in self.outbox.rows("SELECT step FROM alert_log"))

    def groups(self) -> set[frozenset[str]]:
        """The partition of all alerts."""
        found: dict[str, set[str]] = {}
        for member, group in self.outbox.rows("SELECT id, grp FROM member"):
            found.setdefault(group, set()).add(member)
        return {frozenset(one) for one in found.values()}


def nights(folder: Path) -> Iterator[Callable[..., Night]]:
    """Body of a fixture: makes nights, closes them at the end."""
    made: list[Night] = []

    def one(**settings: Any) -> Night:
        made.append(Night(folder / str(len(made)), **settings))
        return made[-1]

    yield one
    for night in made:
        night.outbox.close()
