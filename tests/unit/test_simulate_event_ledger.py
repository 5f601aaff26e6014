"""Claims about the verdict on what the offices said: each way of going wrong is counted exactly, by message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ingest.simulate.event_ledger import EventLedger, EventVerdict, event_verdict
from ingest.simulate.events import Spoken
from storage.query import write_lake_sql
from storage.records import Event
from tests.events_city import T0, keep

MESSAGES = 20


def messages() -> list[Spoken]:
    """Each a case with two steps."""
    return [
        Spoken(T0, "s", "events/s", b"%d" % n, (step(f"c{n}", "opened"), step(f"c{n}", "closed")))
        for n in range(MESSAGES)
    ]


def step(name: str, state: str) -> Event:
    return Event(name, "s", "appeal", state, T0)


def without(steps: Sequence[Event], *gone: int) -> list[Event]:
    return [step for number, step in enumerate(steps) if number not in gone]


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (lambda steps: steps, EventVerdict(20, 19, 20)),
        (lambda steps: [*steps, *steps[4:9]], EventVerdict(20, 19, 20)),
        (lambda steps: without(steps, 3), EventVerdict(20, 19, 19, lost=1)),
        (lambda steps: without(steps, 2, 3, 4), EventVerdict(20, 19, 18, lost=2)),
        (lambda steps: without(steps, 38, 39), EventVerdict(20, 19, 19)),
        (lambda steps: [*steps, step("x", "opened")], EventVerdict(20, 19, 20, invented=1)),
    ],
    ids=["whole", "received twice", "half a message", "two messages", "not acknowledged", "made up"],
)  # fmt: skip
def test_messages_are_counted_one_by_one(
    tmp_path: Path, stored: Callable[[Sequence[Event]], list[Event]], found: EventVerdict
) -> None:
    """The last message was never acknowledged; the third was told twice, as after a kill."""
    ledger, said = EventLedger(), messages()
    for one in [*said, said[2]]:
        ledger.sent(one)
    for one in [*said[:-1], said[2]]:
        ledger.acked(one)
    ledger.write(tmp_path / "ledger")
    keep(tmp_path / "data", stored([step for one in said for step in one.steps]))
    write_lake_sql(tmp_path / "data", "UTC", 7200)
    verdict = event_verdict(tmp_path / "data", tmp_path / "ledger")
    assert (len(verdict.examples) > 0) == (not verdict.clean) == (not found.clean)
    verdict.examples.clear()
    assert verdict == found


def test_offices_that_said_nothing_lost_nothing(tmp_path: Path) -> None:
    EventLedger().write(tmp_path)
    keep(tmp_path / "data", [messages()[0].steps[0]])
    write_lake_sql(tmp_path / "data", "UTC", 7200)
    assert event_verdict(tmp_path / "data", tmp_path).invented == 1
