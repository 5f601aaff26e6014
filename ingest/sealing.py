"""The sealer in a process of its own, at low priority.

Owns that process and the few words exchanged with it: one JSON object a line. Sorting four million rows
takes seconds of CPU; in the engine's own process every thread of Python would feel them. What the
process does can be cut off anywhere (storage.sealed), so it is killed with the engine, never waited for;
a lock keeps a new engine from sealing beside the last breath of an old one's sealer.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ingest.family import die_with_engine
from ingest.fulldisk import is_full
from storage.sealed import Sealer, SealReport
from storage.settings import SealedSettings

NICE: Final = 10
"""A seal may take longer; a reading and an alert may not. The process stays in the engine's session: with a session of
its own Linux would weigh it against the engine as a whole (autogroup), whatever its niceness."""
LOCK_NAME: Final = "SEALING"
LOCK_S_MAX: Final = 30.0
"""An old sealer dies with its engine; this long is a kernel that is stuck on the disk."""
LOOK_S: Final = 0.05


class SealFailed(RuntimeError):  # noqa: N818 - says what happened
    """The process ended or could not seal; nothing is lost, the hot files still stand.

    full  the disk is
    """

    def __init__(self, message: str, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class SealProcess:
    """One sealer for the data folder ``root``. Make it in the thread that lives as long as the engine.

    ``begin`` and ``result`` belong to one thread. A process that died is made again by ``begin``.
    """

    def __init__(self, root: Path, settings: SealedSettings) -> None:
        self._first = json.dumps({"root": str(root), "settings": settings.model_dump()}).encode() + b"\n"
        self._said = b""
        self._start()

    def _start(self) -> None:
        self._said = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ingest.sealing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._tell(self._first)

    @property
    def pid(self) -> int:
        """Of the process, for whoever adds up CPU and memory."""
        return self._process.pid

    def ready(self) -> tuple[int, int]:
        """Wait until it stands; the watermarks (main, late), -1 for none. Raises SealFailed."""
        end = time.monotonic() + LOCK_S_MAX * 2
        while time.monotonic() < end:
            said = self._hear()
            if said is not None:
                return said["main_seq"], said["late_seq"]
            assert self._process.stdout is not None
            select.select([self._process.stdout], [], [], 1.0)
        raise SealFailed("the sealer does not answer")

    def begin(self, upto_seq: int, *, grace_s: float) -> None:
        """Have everything up to ``upto_seq`` sealed; ``result`` tells when it is. Raises SealFailed."""
        if self._process.poll() is not None:
            self.close()
            self._start()
            self.ready()
        self._tell(json.dumps({"upto_seq": upto_seq, "grace_s": grace_s}).encode() + b"\n")

    def result(self) -> SealReport | None:
        """The report of the seal begun, once it is done. Raises SealFailed."""
        said = self._hear()
        if said is None:
            return None
        if "fault" in said:
            raise SealFailed(said["fault"], said["full"])
        return SealReport(**said)

    def close(self) -> None:
        """Kill it, at whatever it is, and wait."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
        except BrokenPipeError:
            raise SealFailed(f"the sealer ended with code {self._process.wait()}") from None

    def _hear(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        try:
            heard = os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return None
        if not heard:
            raise SealFailed(f"the sealer ended with code {self._process.wait()}")
        self._said += heard
        line, found, self._said = self._said.partition(b"\n")
        if not found:
            self._said = line
            return None
        said: dict[str, Any] = json.loads(line)
        return said


def _lock(root: Path) -> int:
    """Hold the sealing lock; waits for the last breath of a sealer whose engine was killed."""
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    end = time.monotonic() + LOCK_S_MAX
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(LOOK_S)


def _say(said: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Body of the process: seal on every line of stdin until it ends."""
    die_with_engine()
    os.nice(NICE)
    first = json.loads(sys.stdin.buffer.readline())
    root = Path(first["root"])
    lock = _lock(root)
    settings = SealedSettings(**first["settings"])
    sealer: Sealer | None = Sealer(root, settings)
    assert sealer is not None
    main_seq, late_seq = sealer.watermarks()
    _say({"main_seq": main_seq, "late_seq": late_seq})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            # Made anew after a fault, which removes what the broken seal left: on a full disk it is needed.
            sealer = sealer or Sealer(root, settings)
            report = sealer.seal(asked["upto_seq"])
            sealer.drop_replaced(asked["grace_s"], time.monotonic())
        except Exception as fault:  # told to the engine, which decides; the sealer itself stays
            sealer = None
            _say({"fault": f"{type(fault).__name__}: {fault}", "full": is_full(fault)})
        else:
            _say(asdict(report))
    os.close(lock)


if __name__ == "__main__":
    main()
