"""Targets, routes and inhibitions in the config: what cannot work is refused with its path. An old outbox goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from anomaly.alerts.event import RESOLVED
from anomaly.alerts.outbox import Outbox
from anomaly.settings import WebhookSettings
from ingest.configfaults import ConfigFaults
from ingest.configfile import load
from tests.anomaly_events import event

HOOK = '[[webhook]]\nname = "room"\nurl = "http://127.0.0.1:1/"\n'


def paths(folder: Path, text: str) -> list[str]:
    (folder / "y.toml").write_text(text)
    try:
        load(folder / "y.toml", env={})
    except ConfigFaults as refused:
        return [one.path for one in refused.faults]
    return []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (HOOK, []),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://broker:1883"', []),
        ('[[mqtt_target]]\nname = "b"\nurl = "http://broker"', ["$.mqtt_target[0].url"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://u:p@broker"', ["$.mqtt_target[0].url"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://169.254.169.254"', ["$.mqtt_target[0].url"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://[::ffff:169.254.169.254]"', ["$.mqtt_target[0].url"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://0.0.0.0"', ["$.mqtt_target[0].url"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://b"\ntopic = "a/#"', ["$.mqtt_target[0].topic"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://b"\ntopic = "a/{password}"', ["$.mqtt_target[0].topic"]),
        (
            '[[mqtt_target]]\nname = "b"\nurl = "mqtt://b"\ntopic = "a"\nretain = true',
            ["$.mqtt_target[0].topic"],
        ),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://b"\npassword = "x"', ["$.mqtt_target[0].user"]),
        ('[[mqtt_target]]\nname = "b"\nurl = "mqtt://b"\nformat = "wecom"', ["$.mqtt_target[0].format"]),
        (HOOK + 'format = "template"', ["$.webhook[0].template_file"]),
        (HOOK + 'template_file = "x.json"', ["$.webhook[0].template_file"]),
        (HOOK + 'format = "wecom"\nsecret = "x"', ["$.webhook[0].secret"]),
        (HOOK + 'format = "teams"', ["$.webhook[0].format"]),
        (HOOK + '[[file_target]]\nname = "room"\ndir = "x"', ["$.file_target[0].name"]),
        (HOOK + '[[route]]\nname = "r"\ntargets = ["rom"]', ["$.route[0].targets[0]"]),
        (HOOK + '[[route]]\nname = "r"\nescalate_to = ["rom"]\nanswer_s = 9', ["$.route[0].escalate_to[0]"]),
        (HOOK + '[[route]]\nname = "r"\nescalate_to = ["room"]', ["$.route[0].escalate_to"]),
        (HOOK + '[[route]]\nname = "r"\nseverity_min = 3\nseverity_max = 2', ["$.route[0].severity_min"]),
        (HOOK + '[[route]]\nname = "r"\nanswer_by = ["a", "b"]', ["$.route[0].answer_by"]),
        (HOOK + '[[route]]\nname = "r"\n[[route]]\nname = "r"', ["$.route[1].name"]),
        ('[[inhibit]]\nby = ["a"]\nrules = ["a", "b"]', ["$.inhibit[0].rules"]),
        ('[[inhibit]]\nby = []\nrules = ["b"]', ["$.inhibit[0].by"]),
    ],
)
def test_what_cannot_work_is_refused_with_its_path(tmp_path: Path, text: str, where: list[str]) -> None:
    assert paths(tmp_path, text) == where


VERSION_1 = """
CREATE TABLE alert_event (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL, revision INTEGER NOT NULL, type TEXT NOT NULL,
    rule TEXT NOT NULL, class TEXT NOT NULL, severity INTEGER NOT NULL, severity_now INTEGER NOT NULL,
    point_id TEXT, gateway_id TEXT, kind TEXT, district TEXT,
    onset INTEGER NOT NULL, at INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
    value REAL, level REAL, peak REAL, unit TEXT, summary_zh TEXT, summary_en TEXT,
    replay INTEGER NOT NULL, drill INTEGER NOT NULL, notify INTEGER NOT NULL,
    body BLOB NOT NULL, newest INTEGER NOT NULL DEFAULT 1,
    UNIQUE (id, revision)
);
CREATE INDEX alert_newest ON alert_event (id) WHERE newest = 1;
CREATE TABLE delivery (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id TEXT NOT NULL UNIQUE, target TEXT NOT NULL, type TEXT NOT NULL,
    alert_id TEXT NOT NULL, revision INTEGER NOT NULL, event INTEGER, body BLOB,
    state TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL, next_at INTEGER NOT NULL, done_at INTEGER, last_error TEXT
);
CREATE INDEX delivery_alert ON delivery (alert_id, target);
CREATE INDEX delivery_state ON delivery (state, rowid);
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('judged_seq', 7);
INSERT INTO alert_event (id, revision, type, rule, class, severity, severity_now, point_id, kind, district, onset, at,
    recorded_at, unit, summary_zh, summary_en, replay, drill, notify, body)
    VALUES ('0000000000000001', 1, 'firing', 'level', 'event', 3, 3, 'P8', 'waterlogging', 'D', 1, 1, 1, 'cm', 'z', 'e',
    0, 0, 1, x'7b7d');
INSERT INTO delivery (webhook_id, target, type, alert_id, revision, event, state, created_at, next_at)
    VALUES ('0000000000000001.1.room', 'room', 'alert.firing', '0000000000000001', 1, 1, 'queued', 1, 1);
PRAGMA user_version = 1;
"""


def test_an_outbox_of_version_1_is_taken_over_with_what_waits_in_it_and_what_is_open(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "o.db")) as db:
        db.executescript(VERSION_1)
    outbox = Outbox(tmp_path / "o.db", [WebhookSettings(name="room", url="http://127.0.0.1:1/")])
    assert outbox.judged_seq() == 7
    assert bytes(outbox.rows("SELECT body FROM delivery")[0][0]) == b"{}"
    assert [row["id"] for row in outbox.alerts(open_only=True)] == [event(1).id]
    assert outbox.record([event(1, 2, RESOLVED)], 8).queued == 1, (
        "who heard that it fired hears that it is over"
    )
    assert [(d["revision"], d["type"], d["state"]) for d in outbox.deliveries()] == [
        (2, "alert.resolved", "queued"),
        (1, "alert.firing", "superseded"),
    ]
    outbox.close()
    Outbox(tmp_path / "o.db").close()


def test_an_outage_that_was_open_in_version_1_stops_no_alert(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "o.db")) as db:
        db.executescript(
            VERSION_1.replace("'level', 'event', 3, 3, 'P8'", "'outage', 'fault', 3, 3, NULL").replace(
                "'waterlogging'", "NULL"
            )
        )
    outbox = Outbox(tmp_path / "o.db", [WebhookSettings(name="room", url="http://127.0.0.1:1/")])
    assert outbox.record([event(2)], 8).queued == 1
    outbox.close()
