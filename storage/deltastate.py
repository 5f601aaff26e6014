"""What the log of a Delta table says, read by ourselves and without giving up at the first bad byte.

Owns the reading of entries and checkpoints as plain actions. Writes nothing. The library refuses a whole table
for one bad entry; whoever has to find out what is still known reads it here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow.parquet as pq

from storage.scrub_parquet import READ_FAULTS

LOG_NAME: Final = "_delta_log"
ENTRY = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")

Action = dict[str, Any]


@dataclass(slots=True)
class LogState:
    """A table as far as its log can be read.

    base      version of the checkpoint it begins at; -1 where it begins with entry 0
    version   the newest version any file of the log speaks of
    adds      by path: the add action, as in JSON, of each file of the table
    txns      by app id: its version
    metadata, protocol  the last actions of these kinds
    bad       files of the log that cannot be read or do not fit their kept hash
    missing   versions between base and version whose entry is not there or bad
    base_txns by app id: its version as of base
    entries   by version: the actions of each entry that was followed, ascending
    """

    base: int = -1
    version: int = -1
    adds: dict[str, Action] = field(default_factory=dict)
    txns: dict[str, int] = field(default_factory=dict)
    metadata: Action | None = None
    protocol: Action | None = None
    bad: list[Path] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    base_txns: dict[str, int] = field(default_factory=dict)
    entries: dict[int, list[Action]] = field(default_factory=dict)

    def take(self, actions: list[Action]) -> None:
        """Follow the actions of one version."""
        for action in actions:
            if add := action.get("add"):
                self.adds[unquote(add["path"])] = add
            elif remove := action.get("remove"):
                self.adds.pop(unquote(remove["path"]), None)
            elif txn := action.get("txn"):
                self.txns[txn["appId"]] = int(txn["version"])
            elif action.get("metaData"):
                self.metadata = action
            elif action.get("protocol"):
                self.protocol = action


def log_files(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Entries or checkpoints of the table in ``folder`` by version, ascending."""
    log = folder / LOG_NAME
    names = sorted(os.listdir(log)) if log.exists() else []
    return {int(match[1]): log / name for name in names if (match := pattern.fullmatch(name))}


def read_log(folder: Path, trusted: Callable[[Path], bool] = lambda _: True) -> LogState:
    """The table in ``folder`` from its newest whole checkpoint on; bad and missing entries are passed over.

    trusted  says of a file of the log whether it is as it was written; one that is not counts as bad
    Raises OSError where the disk does not answer.
    """
    state = LogState()
    checkpoints = log_files(folder, CHECKPOINT)
    for version in reversed(checkpoints):
        path = checkpoints[version]
        actions = read_checkpoint(path) if trusted(path) else None
        if actions is None:
            state.bad.append(path)
            continue
        state.base = state.version = version
        state.take(actions)
        state.base_txns = dict(state.txns)
        break
    entries = log_files(folder, ENTRY)
    newest = max([*entries, *checkpoints], default=-1)
    for version in range(state.base + 1, newest + 1):
        entry = entries.get(version)
        found = read_entry(entry) if entry is not None and trusted(entry) else None
        if found is None:
            state.missing.append(version)
            if entry is not None:
                state.bad.append(entry)
        else:
            state.entries[version] = found
            state.take(found)
    state.version = newest
    return state


def read_entry(path: Path) -> list[Action] | None:
    """The actions of one entry; None for one that is torn, damaged or gone."""
    try:
        actions = [json.loads(line) for line in path.read_bytes().splitlines() if line]
    except (ValueError, FileNotFoundError):
        return None
    return actions if actions and all(_sound(action) for action in actions) else None


def _sound(action: Any) -> bool:
    """Whether an action has what is read of it: a flipped bit can turn a key into another one."""
    if not isinstance(action, dict) or not all(isinstance(body, dict) for body in action.values()):
        return False
    add, remove, txn = (action.get(kind) for kind in ("add", "remove", "txn"))
    if add is not None and not (
        isinstance(add.get("path"), str)
        and isinstance(add.get("size"), int)
        and isinstance(add.get("partitionValues"), dict)
    ):
        return False
    if remove is not None and not isinstance(remove.get("path"), str):
        return False
    return txn is None or (isinstance(txn.get("appId"), str) and isinstance(txn.get("version"), int))


def read_checkpoint(path: Path) -> list[Action] | None:
    """The actions of a checkpoint, as JSON would say them; None for one that cannot be read."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            rows = file.read(use_threads=False).to_pylist()
    except READ_FAULTS:
        return None
    found = []
    for row in rows:
        action = {name: value for name, value in row.items() if value is not None}
        for body in action.values():
            for key in ("partitionValues", "configuration"):
                if isinstance(body.get(key), list):
                    body[key] = dict(body[key])
        found.append(action)
    return found if all(_sound(action) for action in found) else None
