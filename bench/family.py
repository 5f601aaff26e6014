"""What a process and all it started have used: CPU seconds and memory, from /proc.

Owns the adding up. The engine is several processes (sealer, delivery, more to come): all of them count.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MB = 1_000_000


def machine_busy_s() -> float:
    """CPU seconds that all processes of the machine have used since it started, interrupts included."""
    first = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in first[1:8])
    return (user + nice + system + irq + softirq) / TICKS_PER_S


@dataclass(slots=True)
class Member:
    """One process of the family. ``cpu_s`` has its own and its dead children's, user and system."""

    pid: int
    name: str
    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class Family:
    """The process ``pid`` and its descendants.

    peak_pss_mb, peak_rss_mb  the largest sums that ``sample`` saw; at_peak: the first by process, at that moment
    """

    pid: int
    peak_pss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    at_peak: dict[str, float] = field(default_factory=dict)

    def pids(self) -> list[int]:
        """All of them now, the first first."""
        found = [self.pid]
        for pid in found:
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(p) for p in (task / "children").read_text().split()]
            except OSError:
                continue  # it ended meanwhile
        return found

    def members(self) -> list[Member]:
        """Each of them."""
        return [m for pid in self.pids() if (m := _member(pid)) is not None]

    def cpu_s(self) -> float:
        """CPU seconds of all so far."""
        return sum(member.cpu_s for member in self.members())

    def sample(self) -> None:
        """Note the proportional and the resident memory of all together."""
        pss: dict[str, float] = {}
        rss = 0.0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                name = _name(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
            except OSError:
                continue
            sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 / MB for line in lines[1:]}
            pss[name] = pss.get(name, 0.0) + sizes["Pss"]
            rss += sizes["Rss"]
        self.peak_rss_mb = max(self.peak_rss_mb, rss)
        if sum(pss.values()) > self.peak_pss_mb:
            self.peak_pss_mb = sum(pss.values())
            self.at_peak = {name: round(mb, 1) for name, mb in pss.items()}


def _member(pid: int) -> Member | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    peak = sum(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024 / MB
    cpu = sum(int(stat[place]) for place in (11, 12, 13, 14)) / TICKS_PER_S
    return Member(pid, _name(command), cpu, round(peak, 1))


def _name(command: list[bytes]) -> str:
    """The module of ``python -m module``, without its package; else the program."""
    words = [word.decode(errors="replace") for word in command if word]
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1].rpartition(".")[2]
    return Path(words[0]).name if words else ""
