"""An outbox that a disk has damaged: set aside, so that the engine starts and new alerts go out.

Owns the test of ``outbox.db`` at a start, and how a new one goes on counting where the lake's logs ended. Knows
SQLite, and nothing of what an alert is. And the other way round: alerts whose file of the lake is damaged come
back from the outbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from anomaly.alerts.outbox import Outbox
from ingest.lakelogs import alerts_table
from storage.logs import ParquetLog
from storage.recovery import Damage

BESIDE: Final = ("-wal", "-shm")
"""Files of SQLite that belong to a database and mean nothing without it."""


def set_aside_if_damaged(path: Path, damage: Damage) -> bool:
    """Rename an outbox SQLite cannot use; True if it was. Raises OSError.

    Lost with it are notifications not sent yet and acknowledgements; what fired since the newest snapshot is
    recorded and sent again under the same ids, the lake keeps the alerts that were exported.
    """
    if not path.exists():
        return False
    why = _damage_of(path)
    if not why:
        return False
    for ending in BESIDE:
        beside = path.with_name(path.name + ending)
        if beside.exists():
            damage.put_aside(beside, f"belongs to {path.name}")
    damage.put_aside(path, f"damaged ({why}); notifications that were waiting in it are lost")
    return True


def _damage_of(path: Path) -> str:
    try:
        with closing(sqlite3.connect(path)) as db:
            said = [str(row[0]) for row in db.execute("PRAGMA quick_check")]
    except sqlite3.DatabaseError as bad:
        return str(bad)
    return "" if said == ["ok"] else "; ".join(said)[:200]


def continue_numbers(path: Path, last: Mapping[str, int]) -> None:
    """Number new rows of each table above ``last``: the lake's logs are exported by row number.

    Tables that are not there, or count further already, are left as they are. Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, number in last.items():
            if table not in tables:
                continue
            known = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            if known is None:
                db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))
            elif known[0] < number:
                db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (number, table))


def bring_back(alerts: ParquetLog, outbox: Outbox, damage: Damage) -> None:
    """Export again what stood in files of the lake's log of alerts that are damaged, as far as the outbox has it."""
    for first, last in alerts.lost:
        rows = [row for row in outbox.export_since(first - 1) if row["rowid"] <= last]
        if rows:
            alerts.append(first, last, alerts_table(rows))
            alerts.sync()
        damage.say(
            f"{len(rows)} of the alerts in rows {first} to {last} are back in the lake from the outbox"
        )
