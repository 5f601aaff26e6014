"""Lake: questions to DuckDB, in processes of their own, so that none of them can hold up a reading or an alert.

Owns how many are asked at once and for how long; a process that does not answer is killed. What can be asked stands in
console.lakeside and storage.sqlsession.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import orjson

from console.guard import Refused
from console.settings import Options

START_S_MAX: Final = 30.0
KILL_AFTER_S: Final = 5.0
"""Beyond the time limit: DuckDB stops by itself within milliseconds, or it is not going to."""
LINE_BYTES_MAX: Final = 1 << 16
QUERY_BYTES_MAX: Final = 8 << 20
"""Of one answer of a query; a larger one is refused, not cut."""
TOOK_KEPT: Final = 256
NICE: Final = 5
"""Below the engine: readings come first."""


class _Asker:
    def __init__(self, module: str, first: bytes, answer_s_max: float) -> None:
        self._module = module
        self._first = first
        self._answer_s_max = answer_s_max
        self._process: asyncio.subprocess.Process | None = None

    async def ask(self, line: bytes, more_s: float = 0.0) -> tuple[int, str, bytes]:
        try:
            if self._process is None or self._process.returncode is not None:
                await self._start()
            return await asyncio.wait_for(self._exchange(line), self._answer_s_max + more_s)
        except TimeoutError:
            await self.kill()
            raise Refused(
                503, "the lake did not answer in time: ask for less", {"Retry-After": "5"}
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.kill()
            raise Refused(503, "the lake cannot be asked now", {"Retry-After": "5"}) from None
        except BaseException:
            await self.kill()  # half an answer must not be read as the next one's
            raise

    async def _start(self) -> None:
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LANG") if key in os.environ}
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=kept, limit=LINE_BYTES_MAX,
        )  # fmt: skip
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self._first + b"\n")
        if not await asyncio.wait_for(process.stdout.readline(), START_S_MAX):
            raise Refused(503, "the lake cannot be opened", {"Retry-After": "5"})

    async def _exchange(self, line: bytes) -> tuple[int, str, bytes]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()
        head = orjson.loads(await self._process.stdout.readuntil(b"\n"))
        return head["status"], head["type"], await self._process.stdout.readexactly(head["bytes"])

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


class Lake:
    """The askers of one console. Close it when done. ``for_histories`` and ``for_queries`` say of which kind.

    asked, refused  how many questions came, and how many had no answer in time or none at all
    took_ms         of the newest answers
    """

    def __init__(
        self, module: str, first: dict[str, Any], *, time_s_max: float, concurrency_max: int, waiting_max: int
    ) -> None:
        line = orjson.dumps(first)
        askers = [_Asker(module, line, time_s_max + KILL_AFTER_S) for _ in range(concurrency_max)]
        self._askers = askers
        self._free: asyncio.LifoQueue[_Asker] = asyncio.LifoQueue()
        for asker in askers:
            self._free.put_nowait(asker)
        self._wait_s_max = time_s_max
        self._waiting_max = waiting_max
        self._waiting = 0
        self.asked = 0
        self.refused = 0
        self.took_ms: deque[float] = deque(maxlen=TOOK_KEPT)

    @classmethod
    def for_histories(cls, root: Path, options: Options) -> Lake:
        """Questions of ours (console.lakeside)."""
        limits = {"memory_bytes": options.history_memory_bytes, "time_s_max": options.history_time_s_max}
        return cls(
            "console.lakeside", {"root": str(root.resolve()), **limits}, time_s_max=options.history_time_s_max,
            concurrency_max=options.history_concurrency_max, waiting_max=options.history_waiting_max,
        )  # fmt: skip

    @classmethod
    def for_queries(cls, root: Path, options: Options) -> Lake:
        """SQL of whoever wrote it, in a cage (storage.sqlsession)."""
        limits = {
            "threads": 1, "memory_bytes": options.query_memory_bytes, "time_s_max": options.query_time_s_max,
            "rows_max": options.query_rows_max, "bytes_max": QUERY_BYTES_MAX,
        }  # fmt: skip
        return cls(
            "console.queryside", {"root": str(root.resolve()), "limits": limits}, time_s_max=options.query_time_s_max,
            concurrency_max=options.query_concurrency_max, waiting_max=options.history_waiting_max,
        )  # fmt: skip

    async def ask(
        self, question: str, arguments: dict[str, Any], more_s: float = 0.0
    ) -> tuple[int, str, bytes]:
        """(HTTP status, media type, body). Raises Refused where there is no answer now.

        more_s  what it may take beyond DuckDB's own time, where much is made of the rows
        """
        self.asked += 1
        try:
            return await self._ask(orjson.dumps({"ask": question, **arguments}), more_s)
        except Refused:
            self.refused += 1
            raise

    async def _ask(self, line: bytes, more_s: float) -> tuple[int, str, bytes]:
        if self._free.empty() and self._waiting >= self._waiting_max:
            raise Refused(503, "too many questions at once: try again in a moment", {"Retry-After": "2"})
        self._waiting += 1
        try:
            asker = await asyncio.wait_for(self._free.get(), self._wait_s_max)
        except TimeoutError:
            raise Refused(503, "other questions took all the time", {"Retry-After": "2"}) from None
        finally:
            self._waiting -= 1
        began = time.perf_counter()
        try:
            return await asker.ask(line, more_s)
        finally:
            self._free.put_nowait(asker)
            self.took_ms.append((time.perf_counter() - began) * 1000)

    async def close(self) -> None:
        """End the processes."""
        for asker in self._askers:
            await asker.kill()
