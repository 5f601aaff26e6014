"""A Delta log that a disk has damaged, made whole again from the files it speaks of.

Owns what is done at a start about entries and checkpoints that are bad or gone. Only the sealer's process may call
it, before it opens a table. What can be told from the disk alone: names carry journal ranges or the number of a
compaction, compacted files say what they replaced, and files of a commit were on disk before its entry was.

- The newest entry, if it was never synced, is torn: set aside, its rows are still hot.
- Any other entry was committed: it is written anew with the files that only it can have brought.
- Without a whole checkpoint and all entries behind it the log is begun anew from the files on disk.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from storage.deltalog import sync_entries
from storage.deltastate import LOG_NAME, Action, LogState, read_log
from storage.fsync import fsync_dir, replace_durably
from storage.recovery import Damage, States
from storage.schema import META_REPLACES
from storage.scrub_parquet import READ_FAULTS
from storage.seal_plan import COMPACT_APP, COMPACTED_NAME, SEALED_NAME, FileStats

SEAL_APP: Final = "yuzui"
REPAIR_APP: Final = "yuzui-repair"
"""App id under which a table's transactions count repairs."""
NO_SEQ: Final = 1 << 62
"""Above every journal seq and every number of a compaction."""


def mend_log(root: Path, folder: Path, damage: Damage) -> bool:
    """Make the log of the table in ``folder`` whole; what was done is said in ``damage``.

    False if it cannot be: no checkpoint leads to its newest entry. ``begin_anew`` can. Raises OSError.
    """
    if not (folder / LOG_NAME).exists():
        return True
    states = States(root)
    state = read_log(folder, states.fits)
    newest = _entry(folder, state.version)
    if state.missing == [state.version] and newest in state.bad and not states.was_synced(newest):
        return True  # torn: storage.deltalog sets it aside
    for path in state.bad:
        if path.suffix == ".parquet" and states.was_synced(path):
            damage.put_aside(path, "damaged; the table is read from the one before it")
    if state.metadata is None or state.protocol is None:
        return False
    gone = [version for version in state.missing if not _entry(folder, version).exists()]
    if len(gone) > 1:
        return False  # forgotten behind a checkpoint that is lost, not damaged one by one
    for version in state.missing:
        _write_anew(root, folder, state, version, damage)
    return True


def _entry(folder: Path, version: int) -> Path:
    return folder / LOG_NAME / f"{version:020d}.json"


def _write_anew(root: Path, folder: Path, state: LogState, version: int, damage: Damage) -> None:
    """Put an entry in place of a bad or missing one, with what can be told of it from the disk."""
    actions = _guess(folder, state, version)
    path = _entry(folder, version)
    if path.exists():
        damage.put_aside(path, "damaged")
    adds = sum("add" in action for action in actions)
    # lake.sql counts entries by actions it knows: an entry that did nothing else must not look like a hole.
    actions.append({"txn": {"appId": REPAIR_APP, "version": state.txns.get(REPAIR_APP, -1) + 1}})
    info: Action = {"commitInfo": {"timestamp": time.time_ns() // 1_000_000, "operation": "yuzui repair"}}
    tmp = path.with_name(f".{path.name}.tmp")
    tmp.write_text("".join(json.dumps(action) + "\n" for action in [info, *actions]), encoding="utf-8")
    replace_durably(tmp, path)
    sync_entries(folder, version, version)
    state.entries[version] = actions
    damage.say(
        f"{path}: written anew from the files on disk: {adds} files added, {len(actions) - adds} other actions"
    )


def _guess(folder: Path, state: LogState, version: int) -> list[Action]:
    named = set(state.adds)
    seal_after, compact_after = state.base_txns.get(SEAL_APP, -1), state.base_txns.get(COMPACT_APP, -1)
    seal_before, compact_before = NO_SEQ, NO_SEQ
    for at, actions in sorted(state.entries.items()):
        paths = [action["add"]["path"] for action in actions if action.get("add")]
        named |= set(paths)
        named |= {action["remove"]["path"] for action in actions if action.get("remove")}
        txns = {a["txn"]["appId"]: int(a["txn"]["version"]) for a in actions if a.get("txn")}
        if at < version:
            seal_after = max(seal_after, txns.get(SEAL_APP, -1))
            compact_after = max(compact_after, txns.get(COMPACT_APP, -1))
        else:
            firsts = [
                int(m[1]) for p in paths if SEAL_APP in txns and (m := SEALED_NAME.fullmatch(Path(p).name))
            ]
            seal_before = min([seal_before, *firsts])
            compact_before = min(compact_before, txns.get(COMPACT_APP, NO_SEQ))
    unnamed = [path for path in data_files(folder) if path.relative_to(folder).as_posix() not in named]
    seal = _seal(folder, unnamed, seal_after, seal_before)
    return seal or _compaction(folder, unnamed, compact_after, compact_before)


def data_files(folder: Path) -> list[Path]:
    """Every data file that stands below the table, named or not."""
    return sorted(folder.glob("date=*/hour=*/*.parquet"))


def _seal(folder: Path, unnamed: Iterable[Path], after: int, before: int) -> list[Action]:
    """The one seal whose files no other entry names: all its files have the same range."""
    ranges: dict[tuple[int, int], list[Path]] = {}
    for path in unnamed:
        name = SEALED_NAME.fullmatch(path.name)
        if name and int(name[3]) == 0 and int(name[1]) > after and int(name[2]) < before:
            ranges.setdefault((int(name[1]), int(name[2])), []).append(path)
    if not ranges:
        return []
    first = min(ranges)
    adds = [add_of(folder, path) for path in ranges[first]]
    return [*adds, {"txn": {"appId": SEAL_APP, "version": first[1]}}]


def _compaction(folder: Path, unnamed: Iterable[Path], after: int, before: int) -> list[Action]:
    """The one compaction whose files no other entry names; [] where all it replaced still stands.

    Then it need not have happened: readers see the same rows in what it replaced.
    """
    numbers: dict[int, list[Path]] = {}
    for path in unnamed:
        name = COMPACTED_NAME.fullmatch(path.name)
        if name and after < int(name[1]) < before:
            numbers.setdefault(int(name[1]), []).append(path)
    if not numbers:
        return []
    number = min(numbers)
    replaced = replaced_by(numbers[number][0])
    if all((folder / path).exists() for path in replaced):
        return []
    now = time.time_ns() // 1_000_000
    removes = [{"remove": {"path": p, "deletionTimestamp": now, "dataChange": True}} for p in replaced]
    adds = [add_of(folder, path) for path in numbers[number]]
    return [*removes, *adds, {"txn": {"appId": COMPACT_APP, "version": number}}]


def replaced_by(path: Path) -> list[str]:
    """What a compacted file says it replaced, below the table's folder; [] where it cannot be read."""
    try:
        words: dict[bytes, bytes] = pq.read_metadata(path).metadata or {}
        found: list[str] = json.loads(words.get(META_REPLACES, b"[]"))
    except READ_FAULTS:
        return []
    return found


def add_of(folder: Path, path: Path) -> dict[str, Any]:
    """The JSON action that adds a file: its partition from its folder, its statistics from its rows."""
    stats = FileStats()
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            stats.add(pa.table(file.read_row_group(group, columns=["point", "time"], use_threads=False)))
    about = path.stat()
    return {
        "add": {
            "path": path.relative_to(folder).as_posix(),
            "partitionValues": {
                "date": path.parent.parent.name.removeprefix("date="),
                "hour": str(int(path.parent.name.removeprefix("hour="))),
            },
            "size": about.st_size,
            "modificationTime": about.st_mtime_ns // 1_000_000,
            "dataChange": True,
            "stats": stats.json(),
        }
    }


def put_log_aside(folder: Path, damage: Damage) -> None:
    """Rename the whole log, durably: the table is begun anew from the files it named."""
    bad = folder / f"{LOG_NAME}.bad"
    number = 1
    while bad.exists():
        number += 1
        bad = folder / f"{LOG_NAME}.bad{number}"
    os.replace(folder / LOG_NAME, bad)
    fsync_dir(folder)
    damage.set_aside.append(bad)
    damage.say(
        f"{folder / LOG_NAME} leads to no whole state; set aside as {bad.name}, begun anew from the files on disk"
    )


def live_on_disk(folder: Path, watermark: int) -> list[Path]:
    """The files below a table that make up its rows up to journal seq ``watermark``, each row once.

    A compacted or gathered file counts where anything it replaced is gone; else what it replaced does.
    """
    files = {path.relative_to(folder).as_posix(): path for path in data_files(folder)}
    replaces = {name: replaced_by(path) for name, path in files.items()}
    dead = {name for name, path in files.items() if not _upto(path, watermark)}

    def bury(name: str) -> None:
        if name in files and name not in dead:
            dead.add(name)
            for older in replaces[name]:
                bury(older)

    # The newest first: an older one may be among what it replaced.
    for name in sorted(files, key=_age, reverse=True):
        if name in dead or not replaces[name]:
            continue
        if all(older in files for older in replaces[name]):
            dead.add(name)
        else:
            for older in replaces[name]:
                bury(older)
    return [path for name, path in files.items() if name not in dead]


def _upto(path: Path, watermark: int) -> bool:
    """A file of a seal up to ``watermark``, or of a compaction."""
    name = SEALED_NAME.fullmatch(path.name)
    return int(name[2]) <= watermark if name else COMPACTED_NAME.fullmatch(path.name) is not None


def _age(name: str) -> tuple[int, int]:
    """Compacted after gathered after sealed, each by its number."""
    compacted = COMPACTED_NAME.fullmatch(Path(name).name)
    if compacted:
        return 1, int(compacted[1])
    sealed = SEALED_NAME.fullmatch(Path(name).name)
    return 0, int(sealed[3]) if sealed else 0
