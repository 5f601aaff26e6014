"""What the two sealed tables must agree on: their logs, the files these name, the pointer to a checkpoint.

Owns the comparison of a Delta log with the disk. Changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from storage.deltastate import CHECKPOINT, LogState, log_files, read_log
from storage.hotlist import HotList
from storage.scrub_parquet import READ_FAULTS

TABLES: Final = ("readings", "late")
LOOKS_LIVE: Final = 3
"""A log read while the engine makes a checkpoint and forgets entries can seem to have a hole; not three times."""
LOOK_S: Final = 0.2


def table_folders(root: Path) -> list[Path]:
    """The folders of the tables that stand."""
    return [root / "lake" / name for name in TABLES if (root / "lake" / name / "_delta_log").exists()]


def check_tables(root: Path, looks: int) -> Iterator[tuple[Path, str]]:
    """(file, what is wrong) of logs with holes and of files a table names that are gone or of another length.

    looks  how often a log is read until it is believed to be damaged
    """
    for folder in table_folders(root):
        for look in range(looks):
            if look:
                time.sleep(LOOK_S)
            found = list(_check(folder))
            if not found:
                break
        yield from found


def _check(folder: Path) -> Iterator[tuple[Path, str]]:
    state = read_log(folder)
    for path in state.bad:
        yield path, "it cannot be read"
    for version in state.missing:
        path = folder / "_delta_log" / f"{version:020d}.json"
        if path not in state.bad:
            yield path, "this entry of the log is missing"
    yield from wrong_files(folder, state)


def wrong_files(folder: Path, state: LogState) -> Iterator[tuple[Path, str]]:
    """(file, what is wrong) of the files ``state`` names, by a look at their lengths."""
    for name, add in state.adds.items():
        try:
            size = (folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            yield folder / name, "the table names it and it is not there"
            continue
        except ValueError:
            # A flipped bit turned "-00" of an entry into "%00", and no file's name has that byte.
            yield folder / name.replace("\0", "%00"), "the table names it and no file can have that name"
            continue
        if size != add["size"]:
            yield folder / name, f"its length is {size}, the table says {add['size']}"


def named_files(root: Path) -> set[Path]:
    """All files the tables name now."""
    return {folder / name for folder in table_folders(root) for name in read_log(folder).adds}


def check_hot_list(path: Path) -> str:
    """What is wrong with the list of hot files, which changes every second and so has no hash; "" for nothing."""
    said = HotList(path.parent)
    if not said.load():
        return "it cannot be read"
    names = [("main", name) for name in said.main] + [("late", name) for name in said.late]
    gone = [name for folder, name in names if not (path.parent / folder / name).exists()]
    return f"it names {gone[0]}, which is not there" if gone else ""


def check_pointer(path: Path) -> str:
    """What is wrong with a ``_last_checkpoint``, which is replaced in place and so has no hash; "" for nothing.

    Every number in it follows from the checkpoint it names.
    """
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        version = int(said["version"])
        checkpoints = log_files(path.parent.parent, CHECKPOINT)
        if version != max(checkpoints, default=-1):
            return f"it names checkpoint {version}, the newest is {max(checkpoints, default=-1)}"
        named = checkpoints[version]
        with pq.ParquetFile(named) as file:
            rows = file.metadata.num_rows
            adds = file.read(columns=["add.path"], use_threads=False)["add"]
        must = {
            "size": rows,
            "sizeInBytes": named.stat().st_size,
            "numOfAddFiles": len(adds) - adds.null_count,
        }
    except (*READ_FAULTS, KeyError, TypeError) as fault:
        return f"it cannot be followed: {type(fault).__name__}"
    wrong = [
        f"{key} {said.get(key)} and not {value}" for key, value in must.items() if said.get(key) != value
    ]
    return f"it says {', '.join(wrong)}" if wrong else ""
