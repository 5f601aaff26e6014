"""The outbox's file: its tables, and one connection to them.

Owns the schema of ``outbox.db``, its durability (WAL, synchronous FULL) and transactions. Knows nothing of
what an alert or a target is; anomaly.alerts.outbox says that.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

SCHEMA_VERSION: Final = 1
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
    body BLOB NOT NULL, newest INTEGER NOT NULL DEFAULT 1,
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
"""


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
        if version not in (0, SCHEMA_VERSION):
            raise ValueError(f"{path} has version {version}, this program knows {SCHEMA_VERSION}")
        if version == 0:
            with self.writing() as db:
                for statement in filter(str.strip, _SCHEMA.split(";")):
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

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
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
