"""The outbox's file: its tables, and one connection to them.

Owns the schema of ``outbox.db``, its durability (WAL, synchronous FULL) and transactions. Knows nothing of
what an alert or a target is; anomaly.alerts.outbox says that.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

SCHEMA_VERSION: Final = 3
BUSY_S_MAX: Final = 30.0
"""Wait for another writer: far above any transaction here, below what a watchdog calls dead."""

QUEUED: Final = "queued"
SENT: Final = "sent"
SUPERSEDED: Final = "superseded"
DEAD: Final = "dead"
DROPPED: Final = "dropped"
"""States of a notification. Superseded: a newer revision of its alert took its place. Dead: given up, can be
queued again. Dropped: an operator gave it up for good."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS alert_event (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL, revision INTEGER NOT NULL, type TEXT NOT NULL,
    rule TEXT NOT NULL, class TEXT NOT NULL, severity INTEGER NOT NULL, severity_now INTEGER NOT NULL,
    point_id TEXT, gateway_id TEXT, kind TEXT, district TEXT,
    onset INTEGER NOT NULL, at INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
    value REAL, level REAL, peak REAL, unit TEXT, summary_zh TEXT, summary_en TEXT,
    replay INTEGER NOT NULL, drill INTEGER NOT NULL, notify INTEGER NOT NULL,
    newest INTEGER NOT NULL DEFAULT 1, packed BLOB, pos INTEGER,
    UNIQUE (id, revision)
);
CREATE INDEX IF NOT EXISTS alert_newest ON alert_event (id) WHERE newest = 1;
CREATE TABLE IF NOT EXISTS delivery (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id TEXT NOT NULL UNIQUE, target TEXT NOT NULL, type TEXT NOT NULL,
    alert_id TEXT NOT NULL, revision INTEGER NOT NULL, event INTEGER, body BLOB,
    state TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL, next_at INTEGER NOT NULL, done_at INTEGER, last_error TEXT
);
CREATE INDEX IF NOT EXISTS delivery_alert ON delivery (alert_id, target);
CREATE INDEX IF NOT EXISTS delivery_state ON delivery (state, rowid);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alert_group (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, scope TEXT NOT NULL, rule TEXT NOT NULL, class TEXT NOT NULL,
    kind TEXT NOT NULL, district TEXT NOT NULL, mode TEXT NOT NULL, onset INTEGER NOT NULL,
    active_at INTEGER NOT NULL, revision INTEGER NOT NULL, members INTEGER NOT NULL, open INTEGER NOT NULL,
    worst INTEGER NOT NULL, told INTEGER NOT NULL, told_at INTEGER NOT NULL, over_told INTEGER NOT NULL,
    joined INTEGER NOT NULL, ended INTEGER NOT NULL, stepped INTEGER NOT NULL,
    flaps TEXT NOT NULL, flapping INTEGER NOT NULL, merged_into TEXT,
    lon_min REAL, lon_max REAL, lat_min REAL, lat_max REAL, first_at INTEGER NOT NULL,
    repeat_us INTEGER NOT NULL, route TEXT NOT NULL, answer_due INTEGER, escalated INTEGER NOT NULL,
    answered INTEGER NOT NULL, answered_at INTEGER, answered_by TEXT, answer_note TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS group_active ON alert_group (active_at);
CREATE INDEX IF NOT EXISTS group_changed ON alert_group (told_at) WHERE joined + ended + stepped > 0;
CREATE INDEX IF NOT EXISTS group_due ON alert_group (answer_due) WHERE answer_due IS NOT NULL;
CREATE INDEX IF NOT EXISTS group_merged ON alert_group (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX IF NOT EXISTS group_flapping ON alert_group (id) WHERE flapping > 0;
CREATE TABLE IF NOT EXISTS member (
    id TEXT PRIMARY KEY, grp TEXT NOT NULL, open INTEGER NOT NULL, severity INTEGER NOT NULL,
    severity_now INTEGER NOT NULL, rule TEXT NOT NULL, class TEXT NOT NULL, kind TEXT NOT NULL,
    district TEXT NOT NULL, point_id TEXT NOT NULL, gateway_id TEXT NOT NULL, onset INTEGER NOT NULL,
    lon REAL, lat REAL, held TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS member_group ON member (grp, severity DESC, onset);
CREATE INDEX IF NOT EXISTS member_rule ON member (rule) WHERE open = 1;
CREATE INDEX IF NOT EXISTS member_held ON member (id) WHERE open = 1 AND held <> '' AND held <> 'old';
CREATE TABLE IF NOT EXISTS silence (
    id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, kind TEXT NOT NULL, district TEXT NOT NULL,
    point_id TEXT NOT NULL, gateway_id TEXT NOT NULL, severity_max INTEGER NOT NULL,
    begins INTEGER NOT NULL, ends INTEGER NOT NULL, made_at INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS silence_ends ON silence (ends);
CREATE TABLE IF NOT EXISTS alert_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, alert_id TEXT, step TEXT NOT NULL,
    who TEXT, target TEXT, detail TEXT
);
CREATE INDEX IF NOT EXISTS log_at ON alert_log (at);
"""

_FROM_1: Final = """
UPDATE delivery SET body = (SELECT body FROM alert_event WHERE rowid = delivery.event) WHERE body IS NULL;
ALTER TABLE alert_event DROP COLUMN body;
ALTER TABLE alert_event ADD COLUMN packed BLOB;
"""
"""Version 1 kept a notification with every event ..."""
_GROUPS_OF_1: Final = """
INSERT INTO alert_group (id, key, scope, rule, class, kind, district, mode, onset, active_at, revision, members, open,
    worst, told, told_at, over_told, joined, ended, stepped, flaps, flapping, first_at, repeat_us, route, escalated,
    answered)
SELECT id, id, 'single', rule, class, coalesce(kind, ''), coalesce(district, ''), 'live', onset, recorded_at, revision,
    1, 1, severity, severity, recorded_at, 0, 0, 0, 0, '', 0, recorded_at, 0, '', 0, 0
FROM alert_event WHERE newest = 1 AND type <> 'resolved';
INSERT INTO member (id, grp, open, severity, severity_now, rule, class, kind, district, point_id, gateway_id, onset,
    held)
SELECT id, id, 1, severity, severity_now, rule, class, coalesce(kind, ''), coalesce(district, ''),
    coalesce(point_id, ''), coalesce(gateway_id, ''), onset, ''
FROM alert_event WHERE newest = 1 AND type <> 'resolved';
"""
"""... and knew no groups: each alert still open becomes one by itself, so that its end is told."""
_FROM_2: Final = "ALTER TABLE alert_event ADD COLUMN pos INTEGER;"
"""Version 2 did not say at which place of the journal a step was caused."""


class OutboxFile:
    """One connection. May be used from several threads, one call at a time."""

    def __init__(self, path: Path) -> None:
        """Open, and make what is missing. Raises ValueError for a file of another version."""
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=BUSY_S_MAX, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in range(SCHEMA_VERSION + 1):
            raise ValueError(f"{path} has version {version}, this program knows {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION:
            self._make()

    def _make(self) -> None:
        with self.writing() as db:
            # Asked again inside: another process may have been faster.
            version = db.execute("PRAGMA user_version").fetchone()[0]
            old = version == 1
            script = "" if version == SCHEMA_VERSION else _FROM_1 * old + _SCHEMA + _GROUPS_OF_1 * old
            script += _FROM_2 * (version in (1, 2))
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed and on disk at the end, or undone."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite has undone it already, or the COMMIT itself has failed.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for several queries; nothing is to be written."""
        with self._lock:
            yield self._db

    def rows(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def meta(self, key: str, default: Any = None) -> Any:
        """One value of the outbox's own notes."""
        found = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else default

    def set_meta(self, key: str, value: Any) -> None:
        """Keep one of the outbox's own notes; call within ``writing``."""
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def touch(self) -> None:
        """Tell a running deliverer, maybe in another process, that an operator changed something.

        Call within ``writing``.
        """
        self._db.execute(
            "INSERT INTO meta (key, value) VALUES ('touched', 1) "
            "ON CONFLICT (key) DO UPDATE SET value = value + 1"
        )
