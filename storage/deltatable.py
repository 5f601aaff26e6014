"""One handle on a Delta table: what lives in it, and how a commit is made exactly once.

Owns the commit: the look at the table before it, the one log entry, its fsync, and when a checkpoint follows.
Knows nothing of readings or of why files come and go.

The version of an application's transaction says how far it has come. The library answers that by reading the log from
its last checkpoint on, a thread for each entry; so it is asked once, and what follows is read from each new entry here.

On a fresh handle the library accepts a
repeated or lower version, and the removal of a file that is not there any more: both checks are ours. A handle
that is behind is refused, so a commit always stands on the snapshot it looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, CommitProperties, PostCommitHookProperties, RemoveAction

from storage.deltalog import CHECKPOINT_EVERY, checkpoint, last_checkpoint, log_dir, sync_entries
from storage.deltastate import read_entry
from storage.schema import PARTITIONS

COMMIT_ATTEMPTS: Final = 5
"""Each begins with a refresh. Another writer can win a race or two; five losses are a fault."""


class Vanished(DeltaError):  # type: ignore[misc, unused-ignore]  # noqa: N818 - says what happened
    """A file to be removed is not in the table any more: the work was planned on what is gone."""


class TableHandle:
    """The Delta table in ``folder``; one thread at a time. Raises DeltaError where it cannot be opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._table = DeltaTable(str(folder))
        self._apps: dict[str, int] = {}
        self._followed = self._table.version()

    def version_of(self, app: str) -> int:
        """The newest version ``app`` committed, -1 for none; looks at the log."""
        self._look()
        if app not in self._apps:
            version = self._table.transaction_version(app)
            self._apps[app] = -1 if version is None else int(version)
        return self._apps[app]

    def _look(self) -> None:
        """Take in entries that are new, and which application came how far in them."""
        now = self._table.version()
        # Old entries are cleaned away from the oldest on: while this one stands, the next is missing only if not made.
        if self._entry(now + 1).exists() or not self._entry(now).exists():
            self._table.update_incremental()
        for version in range(self._followed + 1, self._table.version() + 1):
            actions = read_entry(self._entry(version))
            if actions is None:
                # Cleaned away already: the library knows from a checkpoint.
                self._apps.clear()
                break
            self._apps |= {a["txn"]["appId"]: int(a["txn"]["version"]) for a in actions if "txn" in a}
        self._followed = self._table.version()

    def _entry(self, version: int) -> Path:
        return log_dir(self.folder) / f"{version:020d}.json"

    def live(self) -> pa.Table:
        """The files in the table as of the last look, a row each.

        ``path`` below the folder, ``size_bytes``, ``num_records``, ``partition.date``, ``partition.hour``, and the
        bounds that stand in the log, such as ``max.time``.
        """
        return pa.table(self._table.get_add_actions(flatten=True))

    def paths(self) -> list[Path]:
        """Where the files in the table stand, as of the last look."""
        return [self.folder / path for path in self.live()["path"].to_pylist()]

    def commit(self, app: str, version: int, actions: Sequence[AddAction | RemoveAction]) -> bool:
        """Put ``actions`` into the table as one entry that says ``app`` came to ``version``; on disk on return.

        False if ``version`` or a later one was committed before. Raises Vanished, OSError, and DeltaError after too
        many lost races: then nothing was committed.
        """
        lost: DeltaError | None = None
        removed = {action.path for action in actions if isinstance(action, RemoveAction)}
        for _ in range(COMMIT_ATTEMPTS):
            if self.version_of(app) >= version:
                return False
            if removed and not removed <= set(self.live()["path"].to_pylist()):
                raise Vanished(f"{self.folder.name}: files to replace are no longer in the table")
            before = self._table.version()
            try:
                self._table.create_write_transaction(
                    list(actions),
                    "append",
                    self._table.schema(),
                    PARTITIONS.names,
                    commit_properties=CommitProperties(
                        max_commit_retries=0, app_transactions=[Transaction(app, version)]
                    ),
                    post_commithook_properties=PostCommitHookProperties(
                        create_checkpoint=False, cleanup_expired_logs=False
                    ),
                )
            except DeltaError as error:
                lost = error
                continue
            self._look()
            sync_entries(self.folder, before + 1, self._table.version())
            self._checkpoint_when_due()
            return True
        raise lost or DeltaError("no attempt")

    def _checkpoint_when_due(self) -> None:
        if self._table.version() - (last_checkpoint(self.folder) or 0) >= CHECKPOINT_EVERY:
            checkpoint(self._table, self.folder, clean=True)
            # A handle slows down with every commit it takes in; a fresh one starts at the checkpoint.
            self._table = DeltaTable(str(self.folder))
