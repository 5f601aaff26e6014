"""Real engines for tests: their own process, their own data folder, killed by their own pid."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb

from ingest.cli import main
from ingest.simulate.city import generate, write

ROOT = Path(__file__).resolve().parents[1]
START_S_MAX = 120.0
ANSWER_S_MAX = 30.0
"""Of the operators' port: the machine may be busy with many engines."""


def until(condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
    """The first true result of ``condition``; AssertionError naming ``what`` after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}")


def _lent_first() -> int:
    """First of the ports the kernel lends to whoever asks for any, and to everything that connects."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768


PORT_FIRST = 12_000
"""Above what services of this machine and browsers' lists of forbidden ports have."""
_LENT_FIRST = _lent_first()
_given: set[int] = set()


def free_port() -> int:
    """A TCP port nobody uses now, and nobody is lent by chance until it is used, or while its engine is down.

    None is given twice by one process. Where a port may be 0, that is better still.
    """
    for _ in range(1000):
        port = random.SystemRandom().randrange(PORT_FIRST, _LENT_FIRST) if _LENT_FIRST > 15_000 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
    raise AssertionError("no free port")


class EngineProcess:
    """`yuzui run` on a folder.

    arguments  more of `yuzui run`
    env        added to the environment of every start
    before     words before the command, such as strace and its options
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "yuzui.toml"
        self.config.write_text(config)
        self.log = folder / "engine.log"
        self._arguments = list(arguments)
        self.env = dict(env or {})
        self.before = list(before)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> EngineProcess:
        """Start it; with ``wait`` return once /readyz answers 200."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.before, sys.executable, "-m", "ingest.cli", "run", "-c", str(self.config), *self._arguments],
                cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), **self.env},
            )  # fmt: skip
        if wait:
            self.ready()
        return self

    @property
    def port(self) -> int:
        """Where it listens for gateways."""
        ports = self.ports()
        assert ports is not None
        port: int = ports["listener"][1]
        return port

    def lake(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query by an analyst who has only DuckDB and the file lake.sql."""
        with duckdb.connect() as con:
            con.execute((self.data / "lake.sql").read_text())
            rows: list[tuple[Any, ...]] = con.execute(sql).fetchall()
            return rows

    def until_lake(self, sql: str, rows: list[tuple[Any, ...]], timeout_s: float = 60.0) -> None:
        """Wait until a query of the lake answers ``rows``."""
        seen: list[list[tuple[Any, ...]]] = [[]]

        def stands() -> bool:
            seen[0] = self.lake(sql)
            return seen[0] == rows

        try:
            until(stands, sql, timeout_s)
        except AssertionError as late:
            raise AssertionError(f"{late}\nexpected {rows[:5]}\nfound    {seen[0][:5]}") from None

    def page(self, path: str) -> str:
        """Text of a GET on the operator's port."""
        ports = self.ports()
        assert ports is not None
        with urllib.request.urlopen(
            f"http://127.0.0.1:{ports['ops_port']}{path}", timeout=ANSWER_S_MAX
        ) as answer:
            text: str = answer.read().decode()
            return text

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Exit code of the process, None while it lives."""
        assert self._process is not None
        return self._process.poll()

    def ready(self, status: int = 200) -> None:
        """Wait until /readyz answers ``status``; fails with the log's end if the engine ended."""

        def answers() -> bool:
            if not self.running:
                raise AssertionError(f"engine ended:\n{self.log.read_text()[-3000:]}")
            return self.get("/readyz") == status

        until(answers, f"/readyz answers {status}\n{self.log.read_text()[-3000:]}", START_S_MAX)

    def ports(self) -> dict[str, Any] | None:
        """engine.json, None until it is written by this process."""
        try:
            found: dict[str, Any] = json.loads((self.data / "engine.json").read_text())
        except (OSError, ValueError):
            return None
        return found if found["pid"] == self.pid else None

    def get(self, path: str) -> int:
        """Status of a GET on the operator's port; 0 where nothing answers."""
        ports = self.ports()
        if ports is None:
            return 0
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{ports['ops_port']}{path}", timeout=ANSWER_S_MAX
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    def vitals(self) -> dict[str, Any]:
        """/healthz."""
        ports = self.ports()
        assert ports is not None
        try:
            answer = urllib.request.urlopen(
                f"http://127.0.0.1:{ports['ops_port']}/healthz", timeout=ANSWER_S_MAX
            )
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def quiet(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until all that was received is judged and visible; returns the vitals then."""

        def judged() -> dict[str, Any] | None:
            now = self.vitals()
            before = now["journal_seq"] - now["judge_lag_records"]
            settled = now["judge_lag_records"] <= 2 and now["journal_pending_bytes"] < 2000
            return now if settled and before > 0 else None

        first = until(judged, "journal judged", timeout_s)
        target = first["journal_seq"] + 2
        # A hot file is written at every TICK: two of them later everything received before is in one.
        settled: dict[str, Any] = until(
            lambda: (now := self.vitals())["judged_seq"] > target and now,
            "a TICK after the last reading",
            timeout_s,
        )
        return settled

    def counted(self, received: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until ``received`` readings came since the start and each is accounted for; the vitals then."""
        ways = ("main", "late_pending", "repeats", "events", "quarantined", "retained_ignored")
        seen: dict[str, Any] = {}

        def all_found() -> bool:
            seen.update(self.vitals())
            return bool(seen["received"] == received == sum(seen.get(way, 0) for way in ways))

        try:
            until(all_found, f"{received} readings received and accounted for", timeout_s)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{ {k: seen.get(k) for k in ('received', *ways)} }") from None
        return seen

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)


def city_config(folder: Path, listener_port: int, *, points: int, more: str = "") -> str:
    """Config and registry of a small Chengdu in ``folder``; ``listener_port`` 0 is no listener."""
    folder.mkdir(parents=True, exist_ok=True)
    city = ROOT / "configs" / "chengdu"
    write(generate(city, points, 1, 1.0), folder / "points.parquet")
    drop_in = folder / "yuzui.d"
    drop_in.mkdir(exist_ok=True)
    (drop_in / "kinds.toml").write_text((city / "yuzui.d" / "kinds.toml").read_text())
    sources = "\n".join(
        f'[[source]]\nname = "{name}"\ngateway_topic = "cd/{{gateway}}/batch"'
        for name in (
            "chengdu-flood",
            "chengdu-env",
            "chengdu-urban",
            "chengdu-emergency",
            "chengdu-food",
            "chengdu-traffic",
        )
    )
    listener = f"[listener]\nenabled = true\nport = {listener_port}" if listener_port else ""
    return (
        f'[city]\ntime_zone = "Asia/Shanghai"\n[data]\ndir = "data"\n[points]\nfile = "points.parquet"\n'
        f'{listener}\n[ops]\nport = 0\n[log]\nformat = "text"\n{sources}\n{more}\n'
    )


def site_config(
    folder: Path,
    gateways: Mapping[str, Sequence[str]],
    *,
    kinds: Mapping[str, str] | None = None,
    on_receipt: Collection[str] = (),
    interval_s: float = 0.0,
    listener: str = "",
    source: str = "",
    more: str = "",
) -> str:
    """Config and registry in ``folder`` of a few points, listening on a free port.

    gateways    gateway id → its points; each publishes to ``t/GATEWAY/POINT``, the gateway to ``t/GATEWAY``
    kinds       point → kind, where it is not "plain" (no limits); "level" has levels 10, 15, 25, 40
    on_receipt  points without a time of their own
    interval_s  how often a point should speak; 0 is never dead
    listener, source, more  TOML lines for these tables, and for behind them
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["point_id,name,gateway_id,source,kind,unit,topic,expected_interval_s,time_from"]
    rows += [
        f"{point},点 {point},{gateway},site,{(kinds or {}).get(point, 'plain')},cm,t/{gateway}/{point},{interval_s:g},"
        + ("receive" if point in on_receipt else "device")
        for gateway, points in gateways.items()
        for point in points
    ]
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    return (
        '[city]\ntime_zone = "Asia/Shanghai"\n[data]\ndir = "data"\n[points]\nfile = "points.csv"\n'
        f"[listener]\nenabled = true\nport = 0\n{listener}\n[ops]\nport = 0\n"
        f'[log]\nformat = "text"\n[[source]]\nname = "site"\ngateway_topic = "t/{{gateway}}"\n{source}\n'
        "[kinds.plain]\n[kinds.level]\nlevel_blue = 10.0\nlevel_yellow = 15.0\nlevel_orange = 25.0\n"
        f"level_red = 40.0\nlevel_gap = 1.0\n{more}\n"
    )


def run_yuzui(
    *arguments: str, stdin: str | None = None, timeout_s: float = 120.0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command as a person runs it; its exit code and both outputs."""
    return subprocess.run(
        [sys.executable, "-m", "ingest.cli", *arguments],
        cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )  # fmt: skip


def yuzui_here(
    *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Like ``run_yuzui`` in this process: from argv to the exit code, without the second of imports."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        mock.patch.object(sys, "argv", ["yuzui", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        mock.patch.dict(os.environ, env or {}),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as leave:
            code = leave.code
    assert isinstance(code, int)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(arguments, code, *said)
