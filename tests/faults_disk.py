"""Disks that fail on demand: loop-mounted ext4 and XFS whose power can be cut or which can be frozen, a small tmpfs.

Owns mounting and unmounting. Everything here needs root; ``Impossible`` says what is missing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.faults_trial import Impossible

GOING_DOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number."""
NO_LOG_FLUSH = 2
"""Nothing more reaches the disk, not even the file system's own log: what a power cut leaves."""
SIZE = {"ext4": 160 << 20, "xfs": 320 << 20}
"""XFS takes no less than 300 MB."""
BUSY_S_MAX = 60.0


def run(*command: str) -> None:
    """A command that must succeed. Raises Impossible with what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise Impossible(f"{command[0]} is not installed") from missing
    if done.returncode:
        raise Impossible(f"{' '.join(command[:2])}: {done.stderr.strip()[-200:]}")


class LoopDisk:
    """A file system of its own in ``folder``/disk, mounted at ``at``. A context manager."""

    def __init__(self, folder: Path, at: Path, kind: Literal["ext4", "xfs"], size: int | None = None) -> None:
        self.at = at
        self.kind = kind
        self._size = size or SIZE[kind]
        self._image = folder / f"{kind}.img"
        self._mounted = False

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise Impossible("a power cut needs root, to mount a file system in a loop file")
        self._image.parent.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(self._size)
        quick = ["-F"] if self.kind == "ext4" else ["-f"]
        sbin = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        maker = shutil.which(f"mkfs.{self.kind}", path=sbin)
        if maker is None:
            raise Impossible(f"mkfs.{self.kind} is not installed")
        run(maker, "-q", *quick, str(self._image))
        self.at.mkdir(parents=True, exist_ok=True)
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.at)], check=False, capture_output=True)
        self._image.unlink(missing_ok=True)

    def mount(self) -> None:
        """As after a reboot: the file system replays its log."""
        run("mount", "-o", "loop", str(self._image), str(self.at))
        self._mounted = True

    def cut(self) -> None:
        """The power fails: nothing that is not on disk now will ever be."""
        fd = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as refused:
            raise Impossible(f"{self.kind} here cannot be shut down: {refused}") from refused
        finally:
            os.close(fd)

    def remount(self) -> None:
        """The power is back. Whoever had files open must be gone; the last of them may need a moment to die."""
        end = time.monotonic() + BUSY_S_MAX
        while (done := subprocess.run(["umount", str(self.at)], capture_output=True, check=False)).returncode:
            if time.monotonic() > end:
                raise AssertionError(f"cannot unmount: {done.stderr.decode()}")
            time.sleep(0.02)
        self._mounted = False
        self.mount()

    def freeze(self) -> None:
        """Every write waits until ``thaw``: a disk that stalls."""
        run("fsfreeze", "--freeze", str(self.at))

    def thaw(self) -> None:
        """It goes on as if nothing had been."""
        run("fsfreeze", "--unfreeze", str(self.at))


class SmallDisk:
    """A tmpfs of ``size`` bytes at ``at``. A context manager."""

    def __init__(self, at: Path, size: int) -> None:
        self.at = at
        self._size = size

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise Impossible("a full disk needs root, to mount a small tmpfs")
        self.at.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "yuzui-test", str(self.at))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.at)], check=False)


class Filler(threading.Thread):
    """Takes every free byte of a file system, also what the engine gives back, until told to let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._let_go = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        """Write until told to stop, then remove the file."""
        with self._path.open("wb", buffering=0) as file:
            while not self._let_go.is_set():
                try:
                    self.bytes += file.write(bytes(4096))
                except OSError:
                    self._let_go.wait(0.005)
        self._path.unlink()

    def let_go(self) -> None:
        """Free everything; returns when it is free."""
        self._let_go.set()
        self.join(60)
        assert not self.is_alive()
