"""The SQL door: read-only SQL over HTTP for people and programs that are not trusted with more.

Owns POST and GET /sql: who may ask, how many at once, for how long. Each statement runs in a process of its own kind
(ingest.sqldoor_session), which is killed where it does not answer in time; this one opens no file of the lake.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from ingest import oplog, ops
from ingest.config import LogSettings, SqlSettings
from ingest.family import die_with_engine, end
from storage.certificates import Elsewhere, ServerTls, renewed, server_files
from storage.sqlrules import SQL_CHARS_MAX

log = logging.getLogger("yuzui.sql")

START_S_MAX: Final = 30.0
KILL_AFTER_S: Final = 5.0
"""Beyond the time limit: DuckDB stops by itself within milliseconds, or it is not going to. Also for the refresh before
a statement and for turning rows into text after it."""
RESTART_S: Final = 5.0
STOP_S_MAX: Final = 3.0
BODY_BYTES_MAX: Final = 4 * SQL_CHARS_MAX + 1024
FORMS: Final = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}
_LINE_BYTES_MAX: Final = 1 << 16


class Refused(Exception):  # noqa: N818 - says what happened
    """A request that gets an error: HTTP status and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Session:
    """One session process; a new one after it was killed."""

    def __init__(self, first: bytes, answer_s_max: float) -> None:
        self._first = first
        self._answer_s_max = answer_s_max
        self._process: asyncio.subprocess.Process | None = None

    async def _start(self) -> asyncio.subprocess.Process:
        # Without our environment: secrets stand in it that no session needs.
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LANG") if key in os.environ}
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ingest.sqldoor_session",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=kept, limit=_LINE_BYTES_MAX,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self._first + b"\n")
        ready = await asyncio.wait_for(process.stdout.readline(), START_S_MAX)
        if not ready:
            raise Refused(503, "the lake cannot be opened: has the engine run on this data folder?")
        if not orjson.loads(ready)["enclosed"]:
            log.warning(
                "this kernel has no Landlock: SQL sessions rely on DuckDB's own limits and on writing nothing"
            )
        return process

    async def ask(self, sql: str, form: str) -> tuple[int, str, bytes]:
        """(HTTP status, media type, body). Raises Refused where the session did not answer."""
        try:
            process = self._process
            if process is None or process.returncode is not None:
                process = await self._start()
            return await asyncio.wait_for(self._exchange(process, sql, form), self._answer_s_max)
        except TimeoutError:
            await self.kill()
            raise Refused(408, "the statement did not end in time and was killed: ask for less") from None
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError):
            await self.kill()
            raise Refused(500, "the session ended while it worked on this statement: ask for less") from None
        except BaseException:
            # Cancelled: the asker is gone, and half an answer must not be read as the next one's.
            await self.kill()
            raise

    async def _exchange(
        self, process: asyncio.subprocess.Process, sql: str, form: str
    ) -> tuple[int, str, bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orjson.dumps({"sql": sql, "format": form}) + b"\n")
        await process.stdin.drain()
        head = orjson.loads(await process.stdout.readuntil(b"\n"))
        return head["status"], head["type"], await process.stdout.readexactly(head["bytes"])

    async def kill(self) -> None:
        """End the process, at whatever it is."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


class Door:
    """The routes, and the sessions behind them. Close it when done."""

    def __init__(self, root: Path, settings: SqlSettings) -> None:
        self._settings = settings
        limits: dict[str, Any] = {
            name: getattr(settings, name)
            for name in ("threads", "memory_bytes", "time_s_max", "rows_max", "bytes_max")
        }
        first = orjson.dumps({"root": str(root.resolve()), "limits": limits})
        answer_s_max = settings.time_s_max + KILL_AFTER_S
        self._sessions = [_Session(first, answer_s_max) for _ in range(settings.concurrency_max)]
        self._free: asyncio.LifoQueue[_Session] = asyncio.LifoQueue()
        for session in self._sessions:
            self._free.put_nowait(session)
        self._waiting = 0
        self._tokens = read_tokens(settings.token_file)

    def app(self) -> web.Application:
        """POST /sql with the statement as text or as JSON {"sql": …, "format": …}; GET /sql?q=…&format=…."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/sql", self._answer)
        app.router.add_get("/sql", self._answer)
        return app

    async def close(self) -> None:
        """End all sessions."""
        for session in self._sessions:
            await session.kill()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            self._admit(request)
            sql, form = await _question(request)
            status, kind, body = await self._run(sql, form)
        except Refused as refused:
            headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(refused.status, {})
            body = orjson.dumps({"error": str(refused)})
            return web.Response(
                body=body, status=refused.status, headers=headers, content_type="application/json"
            )
        return web.Response(
            body=body,
            status=status,
            headers={"Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )

    def _admit(self, request: web.Request) -> None:
        """A page in somebody's browser must not ask in their name: hence Host and Origin."""
        host = urlsplit(f"//{request.host}").hostname or ""
        if not (_is_address(host) or host == "localhost" or host in self._settings.hosts):
            raise Refused(403, f"unknown host {host!r}: name it in [sql] hosts")
        if "Origin" in request.headers:
            raise Refused(403, "not for web pages of other sites")
        if self._tokens:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            known = [hmac.compare_digest(given.strip().encode(), token) for token in self._tokens]
            if scheme.lower() != "bearer" or not any(known):
                raise Refused(401, "send Authorization: Bearer TOKEN, with a line of [sql] token_file")

    async def _run(self, sql: str, form: str) -> tuple[int, str, bytes]:
        if self._free.empty() and self._waiting >= self._settings.waiting_max:
            raise Refused(503, "too many statements at once: try again in a moment")
        self._waiting += 1
        try:
            session = await asyncio.wait_for(self._free.get(), self._settings.time_s_max)
        except TimeoutError:
            raise Refused(503, "other statements took all the time: try again in a moment") from None
        finally:
            self._waiting -= 1
        try:
            return await session.ask(sql, form)
        finally:
            self._free.put_nowait(session)


async def _question(request: web.Request) -> tuple[str, str]:
    """(statement, format) of a request."""
    asked: dict[str, Any] = dict(request.query)
    if request.method == "POST":
        text = await request.text()
        if request.content_type == "application/json":
            try:
                told = orjson.loads(text)
            except orjson.JSONDecodeError:
                told = None
            if not isinstance(told, dict):
                raise Refused(400, 'the body says it is JSON: send {"sql": "SELECT …"}')
            asked |= told
        else:
            asked["sql"] = text
    sql = asked.get("sql", asked.get("q"))
    if not isinstance(sql, str) or not sql.strip():
        raise Refused(400, 'no statement: POST it as text, as JSON {"sql": …}, or GET /sql?q=…')
    form = asked.get("format") or _accepted(request.headers.get("Accept", ""))
    if form not in FORMS.values():
        raise Refused(406, f"format must be one of {', '.join(FORMS.values())}")
    return sql, form


def _accepted(accept: str) -> str:
    """The first form a client names that we have; JSON where it takes anything."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in FORMS:
            return FORMS[kind]
    return "json"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def read_tokens(path: str | None) -> list[bytes]:
    """Lines of the token file that are not empty; none without a file. Raises OSError, ValueError where it has none."""
    if path is None:
        return []
    found = [line.strip() for line in Path(path).read_bytes().splitlines() if line.strip()]
    if not found:
        raise ValueError(f"{path} holds no token: one a line, at least one")
    return found


def tls_of(settings: SqlSettings) -> ServerTls | None:
    """None without a certificate. Raises CertificateFault."""
    files = server_files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    return ServerTls(files) if files is not None else None


async def serve(
    root: Path, settings: SqlSettings, on_port: Callable[[int], None], until: Sequence[signal.Signals]
) -> None:
    """Answer until one of the signals comes; ``on_port`` is told the port taken. Raises OSError, ValueError."""
    door = Door(root, settings)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in until:
        loop.add_signal_handler(number, ended.set)
    tls = tls_of(settings)
    if tls is not None:
        loop.add_signal_handler(signal.SIGHUP, lambda: renewed("SQL door", tls))
    runner, port = await ops.serve(door.app(), settings.host, settings.port, tls)
    on_port(port)
    try:
        await ended.wait()
    finally:
        await runner.cleanup()
        await door.close()


class SqlDoor:
    """The engine's side: the door in a process of its own, made again when it dies. ``run`` on the loop.

    port      taken; 0 until it is known
    restarts  how often it died
    """

    def __init__(self, root: Path, settings: SqlSettings, logging_: LogSettings) -> None:
        said = {"root": str(root), "settings": settings.model_dump(), "log": logging_.model_dump()}
        self._first = orjson.dumps(said) + b"\n"
        tls = tls_of(settings)
        self.certificates = {"SQL door": Elsewhere(tls, self._renew)} if tls is not None else {}
        self.port = 0
        self.restarts = 0
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep the process alive until ``stop``."""
        while not self._stopping:
            try:
                await self._one_life()
            except OSError as fault:
                # No reason to end the engine: readings and alerts do not pass this door.
                log.error("the SQL door cannot be opened: %s", fault)
            if not self._stopping:
                self.restarts += 1
                log.error("the SQL door ended by itself; opening it again in %g s", RESTART_S)
                await asyncio.sleep(RESTART_S)

    async def _one_life(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ingest.sqldoor",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._first)
        self._process.stdin.close()
        while line := await self._process.stdout.readline():
            self.port = orjson.loads(line)["port"]
            log.info("SQL door on port %d", self.port)
        await self._process.wait()

    def _renew(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Close the door."""
        self._stopping = True
        if self._process is not None:
            await end(self._process, STOP_S_MAX)


def _say_port(port: int) -> None:
    sys.stdout.buffer.write(orjson.dumps({"port": port}) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Body of the door's process."""
    die_with_engine()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to renew
    first = orjson.loads(sys.stdin.buffer.readline())
    oplog.set_up(first["log"]["level"], first["log"]["format"])
    try:
        asyncio.run(
            serve(Path(first["root"]), SqlSettings(**first["settings"]), _say_port, (signal.SIGTERM,))
        )
    except (OSError, ValueError) as fault:
        log.error("the SQL door stays shut: %s", fault)
        sys.exit(1)


if __name__ == "__main__":
    main()
