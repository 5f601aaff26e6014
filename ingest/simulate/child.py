"""A process of the simulator: started with one JSON line, heard line by line, stopped politely.

Owns how the simulator's parent and its processes find each other and never outlive one another. What is
said is the processes' own business.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

Said = dict[str, Any]


class ChildDiedError(RuntimeError):
    """A process of the simulator ended without its report."""


class Child:
    """``python -m module`` with ``first`` as its first line on stdin; a context manager.

    It has a session of its own, so a terminal's Ctrl-C reaches only the parent; the end of its stdin tells
    it that the parent is gone. ``ready`` is true once it said so, ``report`` is its last word.
    """

    def __init__(self, module: str, first: str, name: str = "") -> None:
        self.name = name or module.rpartition(".")[2]
        self.ready: Said | None = None
        self.report: Said | None = None
        self.latest: Said = {}
        self._heard = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self.tell(first)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        """However we leave, no process stays."""
        if self.report is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """What to wait on for its next words."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def tell(self, line: str) -> None:
        """Send it one line. Raises ChildDiedError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise self._death() from None

    def stop(self) -> None:
        """Ask it to end (SIGTERM); its report follows."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def hear(self) -> bool:
        """Take what it said; True where it was more than ``ready`` and ``report``. Raises ChildDiedError."""
        data = os.read(self.fileno(), 1 << 16)
        if not data and self.report is None:
            raise self._death()
        *lines, self._heard = (self._heard + data).split(b"\n")
        news = False
        for line in lines:
            said: Said = json.loads(line)
            if "ready" in said:
                self.ready = said
            elif "report" in said:
                self.report = said["report"]
            else:
                self.latest = said
                news = True
        return news

    def _death(self) -> ChildDiedError:
        return ChildDiedError(f"the {self.name} process died with code {self._process.wait()}")

    def until_ready(self, seconds_max: float) -> Said:
        """Wait until it is ready; what it said then. Raises ChildDiedError."""
        listen([self], lambda: self.ready is not None, seconds_max)
        assert self.ready is not None
        return self.ready

    def finish(self, seconds_max: float) -> Said:
        """Stop it and wait for its report. Raises ChildDiedError."""
        self.stop()
        listen([self], lambda: self.report is not None, seconds_max)
        assert self.report is not None
        return self.report


def listen(
    children: Sequence[Child],
    done: Callable[[], bool],
    seconds_max: float,
    on_news: Callable[[Child], None] | None = None,
) -> None:
    """Hear ``children`` until ``done``. Raises ChildDiedError when one dies or ``seconds_max`` pass."""
    limit = time.monotonic() + seconds_max
    with selectors.DefaultSelector() as selector:
        for child in children:
            if child.report is None:
                selector.register(child.fileno(), selectors.EVENT_READ, child)
        while not done():
            if time.monotonic() > limit:
                raise ChildDiedError(
                    f"no answer within {seconds_max:g} s from {', '.join(c.name for c in children)}"
                )
            for key, _ in selector.select(0.5):
                child = key.data
                if child.hear() and on_news is not None:
                    on_news(child)
                if child.report is not None:
                    selector.unregister(key.fileobj)


@contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop`` while this lasts; outside the main thread nothing changes."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    except ValueError:
        pass  # not the main thread: who runs us there stops us by other means
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
