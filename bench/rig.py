"""The things a case is measured with, each a process of its own: engine, broker, webhook receiver, instruments, load.

Owns their start and end, the engine's config, and the folder of one measurement. Knows the engine only as its user
does: its config, its ports, its lake. What is measured is bench.end_to_end's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.case import Case
from bench.family import Family
from bench.load.plan import LoadPlan
from bench.load.pulse import PulseOptions
from bench.load.registry import CLOCK, PULSE, bench_registry
from ingest.commands.common import ENGINE_FILE, engine_vitals
from ingest.simulate.child import Child
from ingest.simulate.city import write
from ingest.simulate.receiver import ReceiverOptions

ROOT: Final = Path(__file__).resolve().parent.parent
CITY_DIR: Final = ROOT / "configs" / "chengdu"
MOSQUITTO_CONF: Final = ROOT / "configs" / "mosquitto.conf"
START_S_MAX: Final = 180.0
CHILD_S_MAX: Final = 120.0
SECRET: Final = "bench"
_PLACES: Final = "/usr/sbin:/usr/local/sbin:/usr/local/bin"


class CannotMeasure(RuntimeError):  # noqa: N818 - says what happened
    """A part did not start or died; the text says which and why."""


def end_in_order() -> None:
    """SIGTERM ends this process as an exception does: what it started, in sessions of their own, is stopped."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def mosquitto() -> str | None:
    """The broker's program; None where it is not installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_PLACES)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(folder: Path) -> Iterator[tuple[int, Family]]:
    """mosquitto with the shipped configuration: its port, and what it uses. Raises CannotMeasure."""
    program = mosquitto()
    if program is None:
        raise CannotMeasure("mosquitto is not installed")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    # Started by root it runs as another user, who must be able to write there.
    folder.chmod(0o777)
    with (folder / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen(
            [program, "-c", str(MOSQUITTO_CONF), "-p", str(port)], cwd=folder, stdout=log, stderr=log
        )
    try:
        _until_listening(process, port)
        yield port, Family(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(CHILD_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise CannotMeasure(f"mosquitto ended with code {process.poll()}")


class Rig:
    """Everything of one case, up and ready, after ``__enter__``. The folder is emptied first.

    case            whose load is next; another of the same shape may take its place
    engine, broker  Family of each; ``broker`` None without one
    arguments, more  of `yuzui run`, and TOML behind the config, for who measures something else
    """

    def __init__(
        self, case: Case, folder: Path, cache: Path, arguments: Sequence[str] = (), more: str = ""
    ) -> None:
        self.case = case
        self._arguments = list(arguments)
        self._more = more
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self._cache = cache.resolve()
        self._stack = ExitStack()
        self.broker: Family | None = None
        self.host, self.port = "127.0.0.1", 0
        self.warm_s = 0.0

    def __enter__(self) -> Rig:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        case = self.case
        self.points_file = self._registry()
        self._hooks = ReceiverOptions(log_file=str(self.folder / "webhooks.jsonl"), secret=SECRET)
        self.receiver = self._child("ingest.simulate.receiver", json.dumps(asdict(self._hooks)))
        hook_port = self.receiver.until_ready(CHILD_S_MAX)["port"]
        if case.through == "mosquitto":
            self.port, self.broker = self._stack.enter_context(broker(self.folder / "broker"))
        self._stack.enter_context(self._engine(hook_port))

    def _registry(self) -> Path:
        """Made once for each size."""
        made = self._cache / f"points-{self.case.points}-{self.case.pulses}.parquet"
        if not made.exists():
            write(bench_registry(CITY_DIR, self.case.points, self.case.pulses), made)
        return made

    def _child(self, module: str, first: str, name: str = "") -> Child:
        return self._stack.enter_context(Child(module, first, name))

    @contextmanager
    def _engine(self, hook_port: int) -> Iterator[None]:
        config = self._config(hook_port)
        began = time.monotonic()
        environment = {
            **os.environ,
            "YUZUI_DATA": str(self.data),
            "YUZUI_POINTS": str(self.points_file),
            "YUZUI_LISTENER": "false" if self.broker else "true",
            "YUZUI_LISTENER_PORT": "0",
            "YUZUI_OPS_PORT": "0",
        }
        self.log = self.folder / "engine.log"
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest.cli", "run", "-c", str(config), *self._arguments],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        self.engine = Family(process.pid)
        try:
            ports = self._until_ready(process)
            self.warm_s = time.monotonic() - began
            if not self.broker:
                self.host, self.port = ports["listener"]
            yield
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(CHILD_S_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _config(self, hook_port: int) -> Path:
        config = self.folder / "yuzui.toml"
        shutil.copy(CITY_DIR / "yuzui.toml", config)
        drop_in = self.folder / "yuzui.d"
        shutil.copytree(CITY_DIR / "yuzui.d", drop_in)
        lines = [
            '[[source]]\nname = "bench-pulse"',
            '[[source]]\nname = "bench-clock"\nahead_s_max = 14400.0',
            f'[[webhook]]\nname = "bench"\nurl = "http://127.0.0.1:{hook_port}/"\nsecret = "{SECRET}"',
            f"[sealed]\nseal_s = {self.case.seal_s}",
            self._more,
        ]
        if self.broker:
            url = f"mqtt://127.0.0.1:{self.port}"
            lines.append(
                f'[[subscriber]]\nname = "broker"\nurl = "{url}"\nfilters = ["cd/#"]\nqos = {self.case.qos}'
            )
        (drop_in / "90-bench.toml").write_text("\n\n".join(lines) + "\n")
        return config

    def _until_ready(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end and process.poll() is None:
            vitals = engine_vitals(self.data)
            if vitals is not None and not vitals["not_ready"]:
                ports: dict[str, Any] = json.loads((self.data / ENGINE_FILE).read_text())
                return ports
            time.sleep(0.05)
        raise CannotMeasure(f"the engine did not start:\n{self.log.read_text()[-2000:]}")

    def vitals(self) -> dict[str, Any]:
        """/healthz now. Raises CannotMeasure where the engine does not answer."""
        for _ in range(20):
            found = engine_vitals(self.data)
            if found is not None:
                return found
            time.sleep(0.1)
        raise CannotMeasure(f"the engine does not answer:\n{self.log.read_text()[-2000:]}")

    def _rounds(self, past: bool) -> int:
        case = self.case
        if past:
            return max(1, round(case.past_hour_s * case.rate / case.points))
        return max(1, case.readings_max // case.points) if case.readings_max and not case.rate else 0

    def load(self, *, past: bool = False) -> Child:
        """A generator, about to connect and wait for ``go``; with ``past`` that of the hour before."""
        case = self.case
        plan = LoadPlan(
            host=self.host,
            port=self.port,
            points_file=str(self.points_file),
            city_dir=str(CITY_DIR),
            seconds=CHILD_S_MAX if past else case.seconds,
            rate=0.0 if past else case.rate,
            connections=min(16, case.connections) if past else case.connections,
            qos=1 if past else case.qos,
            batch=case.batch,
            form=case.form,
            mqtt5_share=case.mqtt5_share,
            inflight_max=max(1, min(65_535, case.inflight // case.connections)),
            leave_out=PULSE + "," + CLOCK,
            counts_file=str(self.folder / ("past.npz" if past else f"load-{case.name}.npz")),
            ahead_ms=-3_600_000 if past else 0,
            rounds_max=self._rounds(past),
            client_prefix="past" if past else "load",
        )
        return self._child("bench.load.generator", plan.to_json(), "generator")

    def count_instructions(self) -> Callable[[], int | None]:
        """Begin to count what the engine's processes execute; call what comes back to end it: instructions so far.

        None where the kernel's counters cannot be had. Seconds depend on who shares the cores; this hardly does.
        """
        program = shutil.which("perf")
        if program is None:
            return lambda: None
        pids = ",".join(map(str, self.engine.pids()))
        command = [program, "stat", "-x", ",", "-e", "instructions", "-p", pids]
        counting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._stack.callback(counting.kill)

        def end() -> int | None:
            counting.send_signal(signal.SIGINT)
            _, said = counting.communicate(timeout=CHILD_S_MAX)
            counts = [line.split(",")[0] for line in said.splitlines() if ",instructions" in line]
            return sum(map(int, counts)) if counts and all(c.isdigit() for c in counts) else None

        return end

    def profile(self, out: Path, seconds: float) -> None:
        """Have py-spy write the engine's stacks for so long. Raises CannotMeasure where it is not installed."""
        program = shutil.which("py-spy")
        if program is None:
            raise CannotMeasure("py-spy is not on PATH: pip install py-spy")
        command = [
            program,
            "record",
            "-p",
            str(self.engine.pid),
            "-d",
            str(int(seconds)),
            "-f",
            "raw",
            "-t",
            "-g",
        ]
        self._spy = subprocess.Popen(
            [*command, "-o", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(self._spy.wait)

    def pulse(self) -> Child:
        """The pulse, about to connect and wait for ``go``."""
        options = PulseOptions(
            host=self.host,
            port=self.port,
            points=self.case.pulses,
            alerts_per_s=self.case.alerts_per_s,
            counts_file=str(self.folder / f"pulse-{self.case.name}.npz"),
        )
        return self._child("bench.load.pulse", json.dumps(asdict(options)))

    def query_watch(self) -> Child:
        """Looks at the lake as it grows."""
        options = {"data_dir": str(self.data), "points": self.case.pulses}
        return self._child("bench.load.query_watch", json.dumps(options))

    def journal_watch(self, points: list[int]) -> Child:
        """Follows the journal from its end."""
        options = {
            "folder": str(self.data / "journal"),
            "from_seq": self.vitals()["journal_seq"] + 1,
            "points": points,
        }
        return self._child("bench.load.journal_watch", json.dumps(options))
