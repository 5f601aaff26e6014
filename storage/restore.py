"""A data folder made of a backup, for an engine to start on.

Owns the copy back, the mark of one that is not finished, and the order of fsyncs. Starts nothing and knows nothing
of alerts: what is to be done about notifications is the caller's.

The target is written in place, since it may be the root of a disk of its own. Until all of it is there the file
``RESTORING`` stands in it, which keeps an engine from starting; a restore that was killed is begun again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage.backup_manifest import Entry, Manifest, read
from storage.fsync import fsync_dir, fsync_file, make_durably

MARK: Final = "RESTORING"
COPY_BYTES: Final = 1 << 20
ALLOWED: Final = frozenset({"lost+found"})
"""What stands in the root of an empty disk."""


class NotEmpty(RuntimeError):  # noqa: N818 - says what happened
    """The target holds something; a restore never overwrites."""


class NotFinished(RuntimeError):  # noqa: N818 - says what happened
    """A restore into this folder did not come to its end: it is no data folder yet."""


@dataclass(slots=True)
class Restored:
    """What a restore did. faults: files that were not what the manifest says, a sentence each."""

    folder: Path
    manifest: Manifest
    files: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)


def refuse_unfinished(root: Path) -> None:
    """Raise NotFinished if a restore into ``root`` was interrupted."""
    if (root / MARK).exists():
        raise NotFinished(
            f"a restore into {root} was interrupted or found damage. Run `yuzui restore` again: it begins anew"
        )


def restore(
    backup: Path,
    target: Path,
    *,
    finish: Callable[[Path], None],
    damaged_too: bool = False,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Copy the data of ``backup`` into ``target``, each file held against its hash.

    finish       called with the folder before it counts as restored
    damaged_too  a file that does not fit its hash is copied all the same: the engine sets it aside

    Where files are damaged and not asked for, the mark stays. Raises NotEmpty, ManifestBad, OSError.
    """
    manifest = read(backup)
    _empty(target)
    done = Restored(target, manifest)
    for entry in manifest.entries:
        if entry.name.startswith("data/"):
            fault = _copy(backup / entry.name, target / entry.name.removeprefix("data/"), entry, on_bytes)
            done.files += 1
            done.bytes += entry.size
            if fault:
                done.faults.append(f"{entry.name}: {fault}")
    if done.faults and not damaged_too:
        return done
    finish(target)
    for at, _, names in os.walk(target, topdown=False):
        for name in names:
            if name.startswith("outbox.db"):
                fsync_file(Path(at) / name)
        fsync_dir(Path(at))
    (target / MARK).unlink()
    fsync_dir(target)
    fsync_dir(target.absolute().parent)
    return done


def _empty(target: Path) -> None:
    """Make ``target`` and its mark; what a restore that was interrupted left is removed."""
    make_durably(target, 0o700)
    mark = target / MARK
    there = {path.name for path in target.iterdir()} - ALLOWED
    if there and not mark.exists():
        raise NotEmpty(
            f"{target} is not empty ({', '.join(sorted(there)[:5])}): a restore never overwrites. Move it away first "
            f"(mv {target} {target}.old), or name another folder"
        )
    for name in there - {MARK}:
        path = target / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    mark.write_text("yuzui restore is at work here, or was interrupted\n")
    fsync_file(mark)
    fsync_dir(target)


def _copy(source: Path, final: Path, entry: Entry, on_bytes: Callable[[int], None]) -> str:
    """What is wrong with the file, "" for nothing. Raises OSError where the target cannot be written."""
    final.parent.mkdir(parents=True, exist_ok=True)
    found, size = hashlib.sha256(), 0
    try:
        reader = source.open("rb", buffering=0)
    except FileNotFoundError:
        return "it is missing"
    with reader, final.open("xb") as out:
        while block := reader.read(COPY_BYTES):
            out.write(block)
            found.update(block)
            size += len(block)
            on_bytes(len(block))
        out.flush()
        os.fsync(out.fileno())
    if size != entry.size:
        return f"it has {size} bytes of {entry.size}"
    return "" if found.hexdigest() == entry.sha256 else "it is not what was copied: its hash differs"
