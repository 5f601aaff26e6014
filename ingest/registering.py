"""A registry read, checked and merged into the map of points, in a process that ends with it.

Owns that process and the two lines exchanged with it. What comes of it stands on disk (storage.pointmap), numbers and
all, before it says so. To read and join a city's rows takes memory many times that of what is kept, and libraries that
are needed for nothing else: they go with the process, and an engine that reloads is not held up by it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from ingest.config import Config
from ingest.family import die_with_engine
from ingest.registryfaults import FoundFaults, RegistryFaults, RowFault
from storage import pointmap
from storage.points import PointTable

CONCERNS: Final = ("source", "kinds")
"""Tables of the config that rows are checked against."""


class RegistryUnread(RuntimeError):  # noqa: N818 - says what happened
    """The process could not do it; the map is as it was. The text says why."""


class Registering:
    """The registry ``path`` on its way into the map of the data folder ``root``. ``points`` waits for it."""

    def __init__(self, root: Path, path: Path, config: Config) -> None:
        """Starts the process. Raises OSError."""
        self._root, self._path = root, path
        self._process: subprocess.Popen[bytes] | None = None
        said = config.model_dump(mode="json", by_alias=True, include=set(CONCERNS))
        stamp = _stamp(path, said)
        if stamp and stamp == pointmap.made_of(root):
            return  # the map was made of this very registry: an engine that starts again need not read it again
        first = {"root": str(root), "path": str(path), "config": said, "stamp": stamp}
        # In a file, not a pipe: it need not be read before this goes on.
        fd = os.memfd_create("registering")
        with open(fd, "w+b", buffering=0) as told:
            told.write(json.dumps(first).encode())
            told.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ingest.registering"], stdin=told, stdout=subprocess.PIPE
            )

    @property
    def pid(self) -> int | None:
        """Of the process, while it lives; None where the map stands as this registry makes it."""
        return self._process.pid if self._process else None

    def points(self) -> PointTable:
        """All points by number. Raises RegistryFaults, RegistryUnread, OSError."""
        if self._process is not None:
            self._hear(self._process)
        merged = pointmap.load(self._root)
        assert merged is not None
        return pointmap.point_table(merged)

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        answer, _ = process.communicate()
        if process.returncode or not answer:
            raise RegistryUnread(
                f"{self._path}: the process that reads it ended with code {process.returncode}"
            )
        said: dict[str, Any] = json.loads(answer)
        if said["refused"]:
            raise RegistryUnread(said["refused"])
        if said["faults_count"]:
            faults = [RowFault(*fault) for fault in said["faults"]]
            raise RegistryFaults(FoundFaults(self._path, faults, said["faults_count"]))

    def close(self) -> None:
        """Nobody waits for it any more."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def _stamp(path: Path, config: dict[str, Any]) -> str:
    """What a map is made of: this version, what of the config rows are checked against, every byte of the file.

    "" where the file cannot be read: whoever reads it says why.
    """
    told = hashlib.sha256(f"{version('yuzui')} {json.dumps(config, sort_keys=True)}\n".encode())
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: told).hexdigest()
    except OSError:
        return ""


def _register(first: dict[str, Any]) -> dict[str, Any]:
    from ingest.points import read_registry

    config = Config.model_validate(first["config"])
    registry = read_registry(Path(first["path"]), config)
    # A file that was changed while it was read is read again next time.
    stamp = first["stamp"] if first["stamp"] == _stamp(Path(first["path"]), first["config"]) else ""
    said = {"refused": "", "faults": registry.faults, "faults_count": registry.faults_count}
    if not registry.faults_count:
        root = Path(first["root"])
        root.mkdir(parents=True, exist_ok=True)
        # Only one merges: the last breath of one whose engine was killed is waited for. The folder itself is locked.
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            pointmap.merge(root, registry.table.to_arrow(), time.time_ns() // 1000, stamp)
        except (OSError, ValueError) as refused:
            said["refused"] = str(refused)
    return said


def main() -> None:
    """Body of the process."""
    die_with_engine()
    said = _register(json.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(json.dumps(said).encode())


if __name__ == "__main__":
    main()
