"""The outbox: what is recorded once stays once, and what operators see of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly.alerts.event import RESOLVED, UPDATED
from anomaly.alerts.lane import Settlement
from anomaly.alerts.letters import Letters
from anomaly.alerts.outbox import Outbox
from anomaly.settings import WebhookSettings
from storage.schema import ALERTS
from tests.anomaly_events import event

HOOKS = [
    WebhookSettings.model_validate({"name": "room", "url": "http://127.0.0.1:1/"}),
    WebhookSettings.model_validate({"name": "mayor", "url": "http://127.0.0.1:1/", "severity_min": 4}),
]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "data" / "outbox.db", HOOKS)
    yield made
    made.close()


def test_events_and_the_judged_position_are_one_transaction(outbox: Outbox) -> None:
    assert outbox.judged_seq() == 0
    outbox.record([event(1)], 7)
    with pytest.raises(AttributeError):
        outbox.record([event(3), object()], 9)  # type: ignore[list-item]
    assert outbox.judged_seq() == 7
    assert [a["id"] for a in outbox.alerts()] == [event(1).id]
    outbox.mark(12)
    assert outbox.judged_seq() == 12


def test_a_replay_records_nothing_twice(outbox: Outbox) -> None:
    course = [event(1), event(1, 2, UPDATED, severity=4)]
    first, again = outbox.record(course, 7), outbox.record(course, 7)
    assert (first.events, first.queued, first.superseded) == (2, 3, 1)
    assert (again.events, again.queued, again.superseded) == (0, 0, 0)
    assert len(outbox.export_since(0)) == 2


def test_what_pages_nobody_is_recorded_and_not_queued(outbox: Outbox) -> None:
    made = outbox.record([event(1, notify=False)], 7)
    assert (made.events, made.queued) == (1, 0)


def test_a_target_hears_of_a_course_that_reached_its_severity_until_its_end(outbox: Outbox) -> None:
    outbox.record([event(1), event(1, 2, UPDATED, severity=4), event(1, 3, RESOLVED, severity=4)], 7)
    found = {(d["target"], d["revision"], d["state"]) for d in outbox.deliveries()}
    assert found == {
        ("room", 1, "superseded"),
        ("room", 2, "superseded"),
        ("room", 3, "queued"),
        ("mayor", 2, "superseded"),
        ("mayor", 3, "queued"),
    }


def test_exported_rows_have_the_columns_of_the_lakes_log(outbox: Outbox) -> None:
    outbox.record([event(1), event(1, 2, RESOLVED)], 7)
    rows = outbox.export_since(0)
    assert set(rows[0]) == {"rowid", *ALERTS.names}
    assert [row["type"] for row in rows] == ["firing", "resolved"]
    assert rows[0]["level"] == 30.0
    assert outbox.export_since(rows[0]["rowid"]) == rows[1:]


def test_listing_shows_the_newest_revision_and_open_ones_on_request(outbox: Outbox) -> None:
    outbox.record([event(1), event(2), event(1, 2, RESOLVED)], 7)
    assert [(a["id"], a["revision"]) for a in outbox.alerts()] == [(event(1).id, 2), (event(2).id, 1)]
    assert [a["id"] for a in outbox.alerts(open_only=True)] == [event(2).id]
    shown = outbox.show(event(1).id)
    assert shown is not None
    assert [r["revision"] for r in shown["revisions"]] == [1, 2]
    assert [d["state"] for d in shown["deliveries"]] == ["superseded", "queued"]
    assert outbox.show("unknown") is None


def settle(outbox: Outbox, rowid: int, state: str) -> None:
    Letters(outbox).settle([Settlement(rowid, state, 3, 5, "refused")], 5, 0)


def test_dead_letters_can_be_sent_again_unless_their_alert_moved_on(outbox: Outbox) -> None:
    outbox.record([event(1), event(2)], 7)
    for row in outbox.deliveries():
        settle(outbox, row["rowid"], "dead")
    outbox.record([event(2, 2, UPDATED, severity=4)], 8)
    assert outbox.retry() == 1
    assert {(d["alert_id"], d["revision"]) for d in outbox.deliveries("queued")} == {
        (event(1).id, 1),
        (event(2).id, 2),
    }
    assert outbox.counts()["dead"] == 1


def test_a_failed_call_does_not_wake_what_was_superseded_or_dropped_meanwhile(outbox: Outbox) -> None:
    outbox.record([event(1), event(2)], 7)
    rows = {d["alert_id"]: d for d in outbox.deliveries()}
    outbox.record([event(1, 2, UPDATED, severity=4)], 8)
    assert outbox.drop([rows[event(2).id]["webhook_id"]]) == 1
    for row in rows.values():
        settle(outbox, row["rowid"], "queued")
    assert outbox.counts() == {"queued": 2, "sent": 0, "superseded": 1, "dead": 0, "dropped": 1}
    settle(outbox, rows[event(1).id]["rowid"], "sent")
    assert outbox.counts()["sent"] == 1, "but what arrived has arrived"


def test_trimming_keeps_open_alerts_dead_letters_and_what_is_not_exported(outbox: Outbox) -> None:
    far = 1 << 60
    outbox.record([event(1), event(1, 2, RESOLVED), event(2), event(3)], 7)
    by_alert = {(d["alert_id"], d["revision"]): d["rowid"] for d in outbox.deliveries()}
    settle(outbox, by_alert[event(1).id, 2], "sent")
    settle(outbox, by_alert[event(2).id, 1], "sent")
    settle(outbox, by_alert[event(3).id, 1], "dead")
    assert outbox.trim(far, exported_rowid=1) == 2 + 1
    assert outbox.trim(far, exported_rowid=99) == 1
    assert {a["id"] for a in outbox.alerts()} == {event(2).id, event(3).id}
    assert [d["state"] for d in outbox.deliveries()] == ["dead", "sent"], (
        "who heard of 2 shall hear of its end"
    )


def test_another_process_may_read_and_write_meanwhile(outbox: Outbox) -> None:
    outbox.record([event(1)], 7)
    code = (
        "import sys; from pathlib import Path; from anomaly.alerts.outbox import Outbox\n"
        "o = Outbox(Path(sys.argv[1])); print(o.judged_seq(), len(o.alerts()), len(o.send_test(['room'])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(outbox.path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["7", "1", "1"]
    assert {d["type"] for d in outbox.deliveries()} == {"test", "alert.firing"}


def test_every_transaction_is_on_disk_when_it_returns(outbox: Outbox) -> None:
    """WAL with synchronous FULL (2): a power cut loses nothing that was recorded."""
    assert outbox.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert outbox.rows("PRAGMA synchronous")[0][0] == 2


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "o.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ValueError, match="version 99"):
        Outbox(tmp_path / "o.db")
