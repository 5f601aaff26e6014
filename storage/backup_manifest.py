"""The list of what a backup holds: every file with its length, its SHA-256 and what it was made of.

Owns ``manifest.json`` of a backup and the names of backups in their folder. Knows nothing of how files get there.

The first line says what the whole is, then a line a file, then the SHA-256 of all before it: a manifest that was
torn or changed by one bit is refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
NAME: Final = re.compile(r"\d{8}T\d{6}Z-\d{20}")
"""UTC time, and the journal's last record in it."""
PART: Final = ".part-"
"""Begins the name of a backup that is being made."""


class ManifestBad(RuntimeError):  # noqa: N818 - says what happened
    """No manifest, or one that is damaged."""


class BackupNewer(ManifestBad):
    """Made by a later version."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a backup.

    name   below the backup's folder, such as data/outbox.db
    stamp  [length, time in ns, inode] of the file it was copied from; None for one that is never the same again
    rows   of a Parquet file, else None
    """

    name: str
    size: int
    sha256: str
    stamp: list[int] | None = None
    rows: int | None = None


@dataclass(slots=True)
class Manifest:
    """What a backup is.

    made_at  ISO 8601, UTC
    seq      the last journal record in it: all acknowledged before the backup began, and a little more
    tables   by table: version, seq, files, rows
    damaged  files that were not what had been written when they were copied: damaged at the source
    """

    yuzui: str
    made_at: str
    source: str
    seq: int
    tables: dict[str, dict[str, int]]
    damaged: list[str] = field(default_factory=list)
    format: int = FORMAT
    entries: list[Entry] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def head(self) -> dict[str, Any]:
        """The first line."""
        return {name: value for name, value in asdict(self).items() if name != "entries"}

    def packed(self) -> bytes:
        """The file."""
        lines = [self.head(), *([e.name, e.size, e.sha256, e.stamp, e.rows] for e in self.entries)]
        body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        return body + orjson.dumps({"sha256": hashlib.sha256(body).hexdigest()}) + b"\n"


def read(folder: Path) -> Manifest:
    """The manifest of the backup in ``folder``. Raises ManifestBad, BackupNewer, OSError."""
    path = folder / MANIFEST
    if not path.exists():
        raise ManifestBad(f"{folder} holds no backup: there is no {MANIFEST}")
    whole = path.read_bytes()
    body = whole[: whole.rfind(b"\n", 0, len(whole) - 1) + 1]
    try:
        said = orjson.loads(whole[len(body) :])["sha256"]
        lines = [orjson.loads(line) for line in body.splitlines()]
        head = lines[0]
        newer = int(head["format"]) > FORMAT
    except (ValueError, KeyError, TypeError, IndexError):
        raise ManifestBad(f"{path} is damaged: it cannot be read") from None
    if said != hashlib.sha256(body).hexdigest():
        raise ManifestBad(f"{path} is damaged: its checksum does not fit")
    if newer:
        raise BackupNewer(
            f"{path} has format {head['format']}; this version of Yuzui reads {FORMAT}. Use {head['yuzui']} or later."
        )
    return Manifest(**head, entries=[Entry(*line) for line in lines[1:]])


def backups(folder: Path) -> list[Path]:
    """The backups in ``folder``, oldest first; those being made are not among them."""
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)) if folder.is_dir() else []


def chosen(folder: Path, at: str | None = None) -> Path:
    """The newest backup in ``folder``, or the one named ``at``, or ``folder`` itself where it is one.

    Raises ManifestBad where there is none.
    """
    if at is None and (folder / MANIFEST).exists():
        return folder
    found = backups(folder)
    if at is not None:
        found = [path for path in found if path.name == at]
    if not found:
        known = ", ".join(path.name for path in backups(folder)) or "none"
        raise ManifestBad(f"{folder} holds no backup{f' named {at}' if at else ''}; there: {known}")
    return found[-1]
