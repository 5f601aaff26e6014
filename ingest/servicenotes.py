"""What systemd is told: ready, how it is, alive, stopping. The protocol of sd_notify(3), which is one datagram each.

Owns the socket systemd names in the environment and when the watchdog is fed. Knows no part of the engine: it asks
whether it lives. Without systemd all of it does nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final

STATUS_S: Final = 5.0
"""How often `systemctl status` gets a new line."""
START_STEP_S: Final = 2.0
START_MORE_S: Final = 60
"""Asked for at each step of a start: a long journal takes longer to replay than any fixed time."""


class ServiceNotes:
    """Notes to the service manager that started this process.

    watchdog_s  the time within which it wants to hear that we live; 0 where it does not ask
    """

    def __init__(self, env: MutableMapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        # Taken out: processes beside the engine must not speak for it.
        self._address = env.pop("NOTIFY_SOCKET", "")
        usec, pid = env.pop("WATCHDOG_USEC", "0"), env.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() and ours and self._address else 0.0

    @property
    def wanted(self) -> bool:
        """Whether anyone listens."""
        return bool(self._address)

    def say(self, **words: str | int) -> None:
        """One note, such as ``READY=1, STATUS="…"``. A manager that does not hear is no reason to stop."""
        if not self._address:
            return
        note = "\n".join(f"{name}={value}".replace("\n", " ") for name, value in words.items())
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
                speaker.setblocking(False)
                speaker.sendto(note.encode(), address)
        except OSError:
            return

    async def while_starting(self) -> None:
        """Ask for more time again and again, until cancelled."""
        while self.wanted:
            self.say(STATUS="starting: replaying the journal", EXTEND_TIMEOUT_USEC=START_MORE_S * 1_000_000)
            await asyncio.sleep(START_STEP_S)

    async def while_running(self, lives: Callable[[], bool], line: Callable[[], str]) -> None:
        """Say ready, then feed the watchdog while ``lives`` and show ``line``, until cancelled.

        An engine that only cannot store just now lives: a restart would not give it room.
        """
        self.say(READY=1, STATUS=_said(line))
        step_s = min(self.watchdog_s / 3, STATUS_S) if self.watchdog_s else STATUS_S
        told_s = 0.0
        while self.wanted:
            await asyncio.sleep(step_s)
            if self.watchdog_s and lives():
                self.say(WATCHDOG=1)
            told_s += step_s
            if told_s >= STATUS_S:
                told_s = 0.0
                self.say(STATUS=_said(line))


def _said(line: Callable[[], str]) -> str:
    """A line for people that cannot be had, out of descriptors say, is no reason to let the watchdog starve."""
    try:
        return line()
    except Exception as fault:
        return f"no status: {type(fault).__name__}: {fault}"
