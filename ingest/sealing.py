"""The sealer in a process of its own, at low priority: seals when told, compacts in between.

Owns that process and the few words exchanged with it: one JSON object a line. Sorting four million rows
takes seconds of CPU; in the engine's own process every thread of Python would feel them. What the
process does can be cut off anywhere (storage.sealed, storage.compact), so it is killed with the engine, never waited
for; a lock keeps a new engine from sealing beside the last breath of an old one's sealer.

A compaction goes on in steps of well below a second and looks for an order between two of them, so a seal waits for
one step at most. What fails in a compaction is told and never stops seals.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ingest.family import die_with_engine
from ingest.fulldisk import is_full
from ingest.memory import give_back, without_absent
from storage.compact import Compactor, CompactReport, Steps
from storage.compact_plan import Job
from storage.recovery import Damage
from storage.repair import mend_tables
from storage.retire import Retirer, RetireReport
from storage.sealed import Sealer, SealReport
from storage.settings import CompactionSettings, RetentionSettings, SealedSettings

NICE: Final = 10
"""A seal may take longer; a reading and an alert may not. The process stays in the engine's session: with a session of
its own Linux would weigh it against the engine as a whole (autogroup), whatever its niceness."""
LOCK_NAME: Final = "SEALING"
LOCK_S_MAX: Final = 30.0
"""An old sealer dies with its engine; this long is a kernel that is stuck on the disk."""
LOOK_S: Final = 0.05
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES: Final = 256 << 20
LARGE_BYTES: Final = 32 << 20
"""What glibc keeps of freed memory, and from what size it asks the kernel. By default it gives back and takes again
with every piece of a merge, and fresh pages cost more than the sort does."""
ONE_THREAD: Final = dict.fromkeys(
    ("TOKIO_WORKER_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)
"""Pools of the libraries it uses. What it does it does in one thread, with the others' leave; a pool as wide as the
machine would only take memory, and on a machine of many cores a lot."""
RETIRE_EVERY_S: Final = 3600.0
"""Retention takes at most two partition-days a run: twice a day would do, hourly catches up after a long stop."""
COMPACT_RETRY_S: Final = 60.0
"""After a compaction found the disk full, or no hour to blame, the next one waits this long."""


class SealFailed(RuntimeError):  # noqa: N818 - says what happened
    """The process ended or could not seal; nothing is lost, the hot files still stand.

    full  the disk is
    """

    def __init__(self, message: str, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


@dataclass(frozen=True, slots=True)
class CompactFault:
    """A compaction, or a run of retention, that failed: nothing of it counts, sealing goes on.

    full  for want of room on the disk
    """

    why: str
    full: bool


class SealProcess:
    """One sealer for the data folder ``root``. Make it in the thread that lives as long as the engine.

    ``begin`` and ``result`` belong to one thread. A process that died is made again by ``begin``.
    """

    def __init__(
        self,
        root: Path,
        settings: SealedSettings,
        compaction: CompactionSettings,
        retention: RetentionSettings,
    ) -> None:
        first = {
            "root": str(root),
            "settings": settings.model_dump(),
            "compaction": compaction.model_dump(),
            "retention": retention.model_dump(),
            "grace_s": settings.grace_s,
        }
        self._first = json.dumps(first).encode() + b"\n"
        self._said = b""
        self.damage = Damage()
        """What the process found damaged in the tables when it started, and mended."""
        self._start()

    def _start(self) -> None:
        self._said = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ingest.sealing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | ONE_THREAD,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._tell(self._first)

    @property
    def pid(self) -> int:
        """Of the process, for whoever adds up CPU and memory."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """The process has not ended."""
        return self._process.poll() is None

    def ready(self) -> tuple[int, int]:
        """Wait until it stands; the watermarks (main, late), -1 for none. Raises SealFailed."""
        end = time.monotonic() + LOCK_S_MAX * 2
        while time.monotonic() < end:
            said = self._hear()
            if said is not None:
                mended = said["mended"]
                self.damage.add(
                    Damage([Path(p) for p in mended["set_aside"]], mended["lost_rows"], mended["said"])
                )
                return said["main_seq"], said["late_seq"]
            assert self._process.stdout is not None
            select.select([self._process.stdout], [], [], 1.0)
        raise SealFailed("the sealer does not answer")

    def begin(self, upto_seq: int, *, grace_s: float) -> None:
        """Have everything up to ``upto_seq`` sealed; ``result`` tells when it is. Raises SealFailed."""
        if not self.lives:
            self.close()
            self._start()
            self.ready()
        self._tell(json.dumps({"upto_seq": upto_seq, "grace_s": grace_s}).encode() + b"\n")

    def result(self) -> SealReport | CompactReport | RetireReport | CompactFault | None:
        """The next thing it says: of the seal begun, of a compaction, of retention; None while it says nothing.

        Raises SealFailed: the seal did, or the process ended.
        """
        said = self._hear()
        if said is None:
            return None
        if "sealed" in said:
            return SealReport(**said["sealed"])
        if "compacted" in said:
            return CompactReport(**said["compacted"])
        if "retired" in said:
            return RetireReport(**said["retired"])
        if said["what"] != "seal":
            return CompactFault(said["fault"], said["full"])
        raise SealFailed(said["fault"], said["full"])

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
        if b"\n" not in self._said:
            try:
                heard = os.read(self._process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return None
            if not heard:
                raise SealFailed(f"the sealer ended with code {self._process.wait()}")
            self._said += heard
        line, found, rest = self._said.partition(b"\n")
        if not found:
            return None
        self._said = rest
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


def _keep_memory() -> None:
    # None where the C library has no such call: then it is only slower.
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_TRIM_THRESHOLD, KEPT_BYTES)
        tune(_M_MMAP_THRESHOLD, LARGE_BYTES)


def _say(said: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
    sys.stdout.buffer.flush()


class _Orders:
    """Lines of stdin, without waiting where there is other work."""

    def __init__(self) -> None:
        self._heard = b""
        self.ended = False

    def next(self, *, wait: bool) -> dict[str, Any] | None:
        """The next order; None if there is none yet (never with ``wait``) or will be none."""
        while b"\n" not in self._heard:
            ready, _, _ = select.select([0], [], [], None if wait else 0)
            if not ready:
                return None
            heard = os.read(0, 1 << 16)
            if not heard:
                self.ended = True
                return None
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        order: dict[str, Any] = json.loads(line)
        return order


class _Compacting:
    """One compaction after the other, a step at a time, and between two of them retention, once an hour."""

    def __init__(
        self, root: Path, settings: CompactionSettings, retention: RetentionSettings, grace_s: float
    ) -> None:
        self._root = root
        self._settings = settings
        self._retention = retention
        self._grace_s = grace_s
        self._retirer: Retirer | None = None
        self._retired_at = time.monotonic()
        self._compactor: Compactor | None = None
        self._job: Job | None = None
        self._steps: Steps | None = None
        self._not_before = 0.0
        self._looked = False

    @property
    def busy(self) -> bool:
        """There may be something to do now."""
        return not self._looked and time.monotonic() >= self._not_before

    def look_again(self) -> None:
        """Something was sealed."""
        self._looked = False

    def step(self) -> None:
        """Do a little; say what was finished or failed."""
        try:
            self._step(time.monotonic())
        except Exception as fault:  # told to the engine; seals must go on whatever it is
            if self._compactor is not None and self._job is not None and not is_full(fault):
                self._compactor.set_aside(self._job.hour, time.monotonic())
            else:
                self._not_before = time.monotonic() + COMPACT_RETRY_S
            hour = f"hour {self._job.hour}: " if self._job else ""
            self._job = self._steps = None
            _say_fault("compaction", fault, hour)

    def _step(self, now: float) -> None:
        if self._compactor is None:
            self._compactor = Compactor(self._root, self._settings)
        if self._steps is None:
            self._compactor.tidy(self._grace_s, now)
            if self._retention != RetentionSettings() and now - self._retired_at >= RETIRE_EVERY_S:
                self._retired_at = now
                self._retire(now)
                return
            jobs = self._compactor.look(now)
            self._looked = not jobs
            if jobs:
                # One at a time: what is done and sealed meanwhile changes the rest.
                self._job, self._steps = jobs[0], self._compactor.run(jobs[0])
            return
        try:
            next(self._steps)
        except StopIteration as done:
            report: CompactReport = done.value
            self._job = self._steps = None
            _say({"compacted": asdict(report)})

    def _retire(self, now: float) -> None:
        try:
            self._retirer = self._retirer or Retirer(self._root, self._retention)
            self._retirer.tidy(self._grace_s, now)
            _say({"retired": asdict(self._retirer.run())})
        except Exception as fault:  # told to the engine; tried again in an hour, with new eyes
            self._retirer = None
            _say_fault("retention", fault)


def _say_fault(what: str, fault: Exception, where: str = "") -> None:
    _say({"what": what, "fault": f"{where}{type(fault).__name__}: {fault}", "full": is_full(fault)})


def main() -> None:
    """Body of the process: seal on every line of stdin until it ends, compact meanwhile."""
    die_with_engine()
    without_absent()
    os.nice(NICE)
    _keep_memory()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    orders = _Orders()
    first = orders.next(wait=True)
    if first is None:
        return
    root = Path(first["root"])
    lock = _lock(root)
    settings = SealedSettings(**first["settings"])
    mended = mend_tables(root)
    sealer: Sealer | None = Sealer(root, settings)
    assert sealer is not None
    main_seq, late_seq = sealer.watermarks()
    words = {
        "set_aside": [str(path) for path in mended.set_aside],
        "lost_rows": mended.lost_rows,
        "said": mended.said,
    }
    _say({"main_seq": main_seq, "late_seq": late_seq, "mended": words})
    compacting = _Compacting(
        root,
        CompactionSettings(**first["compaction"]),
        RetentionSettings(**first["retention"]),
        first["grace_s"],
    )
    while not orders.ended:
        if not compacting.busy:
            give_back()
        order = orders.next(wait=not compacting.busy)
        if order is None:
            if not orders.ended:
                compacting.step()
            continue
        try:
            # Made anew after a fault, which removes what the broken seal left: on a full disk it is needed.
            sealer = sealer or Sealer(root, settings)
            report = sealer.seal(order["upto_seq"])
            sealer.drop_replaced(order["grace_s"], time.monotonic())
        except Exception as fault:  # told to the engine, which decides; the sealer itself stays
            sealer = None
            _say_fault("seal", fault)
        else:
            _say({"sealed": asdict(report)})
        compacting.look_again()
    os.close(lock)


if __name__ == "__main__":
    main()
