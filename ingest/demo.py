"""The demo: a whole city on one machine, and the proof that nothing of it was lost.

Owns the composition of engine, simulated gateways, webhook receiver and query probe, each a process of
its own, and the figures at the end. Knows the engine only as a user does: its config, its ports, its lake.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ingest.commands.common import ENGINE_FILE, engine_vitals
from ingest.demonight import NightFigures, free_port, hasten, last_word_s, night_figures, quick_checks
from ingest.rejudge import keep_journal
from ingest.simulate.child import Child
from ingest.simulate.city import generate, write
from ingest.simulate.event_ledger import EventVerdict, event_verdict
from ingest.simulate.event_speaker import EventPlan
from ingest.simulate.judge_ledger import verdict
from ingest.simulate.probe import ProbeOptions
from ingest.simulate.projects import with_cameras
from ingest.simulate.receiver import ReceiverOptions
from ingest.simulate.run import SimulateOptions, SimulateReport, simulate
from ingest.simulate.scenario import Scenario, ScenarioName

ENGINE_START_S_MAX = 180.0
"""Five on a quiet machine; the first start on a slow and busy one has been seen to take more than sixty."""
QUIET_S_MAX = 60.0
"""After the last reading came in: by then all is judged and every notification answered, or something is wrong."""
STILL_S = 6.0
"""Nothing came in for this long: the broker's queue is empty, and what is missing is missing."""
JUDGED_WITHIN = 2
"""Journal records: two TICKs on, the hot file with the last reading stands."""
EVENTS_S_MAX = 60.0
"""Until what was said of events last stands in the lake: logs are written once a second or so."""
CHILD_S_MAX = 60.0
DRAIN_S_MAX = 60.0
"""For the last acknowledgements: a killed engine may need most of it to come back."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
MB = 1_000_000
LINK_S = 3600.0
MARK = ".yuzui-demo"
"""A file that says whose folder it is: anybody's config is called yuzui.toml, and a demo empties its folder."""

Say = Callable[[str], None]
Watch = Callable[[dict[str, Any]], None]


class DemoFailed(RuntimeError):  # noqa: N818 - says what happened
    """The demo could not run; the text says why and where the log is."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to run. ``broker`` None: gateways connect to the engine itself."""

    folder: Path
    city_dir: Path
    seconds: float = 60.0
    points: int = 116_200
    qos: Literal[0, 1] = 1
    batch: int = 0
    hz: float = 1.0
    scenario: ScenarioName = "storm"
    seed: int = 1
    broker: str | None = None
    aiomqtt_share: float = 0.05
    offices: bool = True
    """Appeals, projects and inspections beside the readings, as their offices would send them."""
    map: bool = True
    """Show the map, where it is installed: its address and a link to log in with are said."""
    kill_at: float | None = None
    """Share of the run at which the engine gets kill -9 and is started again; needs storm-city, which says what of it
    people would have noticed."""


@dataclass(slots=True)
class DemoResult:
    """The figures. Latencies in seconds, ``engine_*`` are of the engine and its sealer alone.

    engine_rss_mb         peak; engine_rss_growth_mb: median of the last third less that of the second
    publish_to_webhook_*  from the publish of the reading that completed the condition to the POST's arrival
    publish_to_query_*    from the publish to the end of the DuckDB query that showed it, refresh included
    """

    points: int = 0
    sent: int = 0
    acked: int = 0
    stored: int = 0
    lost: int = 0
    missing: int = 0
    duplicates: int = 0
    wrong: int = 0
    invented: int = 0
    quarantined: int = 0
    alerts_fired: int = 0
    webhooks_delivered: int = 0
    publish_to_webhook_p50_s: float | None = None
    publish_to_webhook_p99_s: float | None = None
    publish_to_query_p50_s: float | None = None
    publish_to_query_p99_s: float | None = None
    engine_cpu_s: float = 0.0
    engine_cores: float = 0.0
    engine_rss_mb: float = 0.0
    engine_rss_growth_mb: float = 0.0
    simulator_cpu_s: float = 0.0
    probe_cpu_s: float = 0.0
    live_after_s: float = 0.0
    seconds: float = 0.0
    qos: int = 1
    readings_per_message: int = 1
    through: str = "listener"
    conservation_gap: int = 0
    resent: int = 0
    storm: NightFigures | None = None
    offices: EventVerdict | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Nothing lost, doubled, changed or made up."""
        whole = not (self.lost or self.duplicates or self.wrong or self.invented or self.conservation_gap)
        told = self.offices is None or self.offices.clean
        return whole and told and (self.storm is None or self.storm.well)


class Engine:
    """`yuzui run` as its user sees it: a process with a config, a log and ports."""

    def __init__(self, folder: Path, config: Path, data: Path, environment: dict[str, str]) -> None:
        self.data = data
        self.log = folder / "engine.log"
        self._command = [sys.executable, "-m", "ingest.cli", "run", "-c", str(config)]
        self._environment = {**os.environ, **environment}
        self._process = self._started()
        self.rss_mb: list[float] = []
        self.killed_at: float | None = None
        self._killed_cpu_s = 0.0

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9, and start it again at once without waiting for it; ``killed_at`` is seconds since 1970."""
        self._killed_cpu_s = self.cpu_s()
        self.killed_at = time.time()
        self._process.kill()
        self._process.wait()
        self._process = self._started()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def _family(self) -> list[int]:
        """The engine's process and the sealer it started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def cpu_s(self) -> float:
        """CPU seconds of the engine and its sealer so far, user and system."""
        total = 0
        for pid in self._family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / CLOCK_TICKS + self._killed_cpu_s

    def sample(self) -> None:
        """Note the resident memory of both."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._family())
        self.rss_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / MB)

    def peak_mb(self) -> float:
        """The kernel's own high-water marks of resident memory, of both together."""
        peak_kib = 0
        for pid in self._family():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            peak_kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return peak_kib * 1024 / MB

    def wait_ready(self) -> dict[str, Any]:
        """engine.json, once the engine says it is ready. Raises DemoFailed with the log's end."""
        end = time.monotonic() + ENGINE_START_S_MAX
        while time.monotonic() < end and self._process.poll() is None:
            vitals = engine_vitals(self.data)
            if vitals is not None and not vitals["not_ready"]:
                ports: dict[str, Any] = json.loads((self.data / ENGINE_FILE).read_text())
                return ports
            time.sleep(0.05)
        raise DemoFailed(f"the engine did not start; {self.log}:\n{self.log.read_text()[-1500:]}")

    def quiet(self, sent: int) -> dict[str, Any]:
        """Wait until everything sent is visible and every notification delivered; the vitals then.

        Readings may lie in a broker's queue: it is waited as long as more of them arrive.
        """
        vitals = engine_vitals(self.data) or {}
        received, moved = -1, time.monotonic()
        target = 0
        while time.monotonic() - moved < QUIET_S_MAX:
            vitals = engine_vitals(self.data) or vitals
            if vitals["received"] != received:
                received, moved, target = vitals["received"], time.monotonic(), 0
            here = received >= sent or time.monotonic() - moved > STILL_S
            if here and not target and vitals["judge_lag_records"] <= JUDGED_WITHIN:
                target = vitals["journal_seq"] + JUDGED_WITHIN
            if target and vitals["judged_seq"] > target and not vitals["outbox_waiting"]:
                break
            time.sleep(0.1)
        return vitals

    def stop(self) -> None:
        """SIGTERM, and wait; kill what does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(CHILD_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _prepare(options: DemoOptions, secret: str, hook_port: int) -> tuple[Path, Path, dict[str, str]]:
    """Config, registry and drop-ins in the demo's folder: (config, data folder, environment)."""
    home = options.folder
    points = home / "points.parquet"
    table = generate(options.city_dir, options.points, options.seed, 1 / options.hz)
    write(with_cameras(table, options.seed) if options.offices else table, points)
    config = home / "yuzui.toml"
    shutil.copy(options.city_dir / "yuzui.toml", config)
    drop_in = home / "yuzui.d"
    shutil.copytree(options.city_dir / "yuzui.d", drop_in)
    if options.offices:
        _sources(options.city_dir / "events", home / "sources.d")
    extra = f'[[webhook]]\nname = "demo"\nurl = "http://127.0.0.1:{hook_port}/alerts"\nsecret = "{secret}"\n'
    if options.broker:
        extra += f'[[subscriber]]\nname = "broker"\nurl = "{options.broker}"\nqos = {options.qos}\n'
        extra += 'filters = ["cd/#", "events/#"]\n'
    if options.scenario == "storm-city":
        hasten(drop_in / "kinds.toml", options.seconds)
        extra += quick_checks(options.seconds)
    if options.map and map_installed():
        # Gateways and maps come back to the port they know.
        port = 0 if options.kill_at is None else free_port()
        extra += f"[console]\nenabled = true\nanonymous_view = true\nport = {port}\n"
    (drop_in / "90-demo.toml").write_text(extra)
    data = home / "data"
    environment = {
        "YUZUI_DATA": str(data),
        "YUZUI_POINTS": str(points),
        "YUZUI_LISTENER": "false" if options.broker else "true",
        # Gateways come back to the port they know.
        "YUZUI_LISTENER_PORT": "0" if options.kill_at is None else str(free_port()),
        "YUZUI_OPS_PORT": "0",
    }
    return config, data, environment


def _sources(events: Path, into: Path) -> None:
    """The offices of the city, each a file of sources.d."""
    into.mkdir()
    for file in sorted(events.glob("*.toml")):
        (into / file.name).write_text(file.read_text("utf-8"), "utf-8")


def is_demos(folder: Path) -> bool:
    """Whether a demo made ``folder``, and another may empty it."""
    return (folder / MARK).is_file() or (folder / "yuzui.d" / "90-demo.toml").is_file()


def map_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("console") is not None and find_spec("console.server") is not None


def _link(data: Path, address: str) -> str:
    """A link with which one person may log in and act, once."""
    from console.logins import make_link

    return f"{address}#token={make_link(data, 'demo', 'operate', LINK_S)}"


@contextmanager
def _stopped(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.stop()


def run_demo(options: DemoOptions, say: Say, watch: Watch) -> DemoResult:
    """Run it all; ``watch`` gets the engine's vitals about once a second. Raises DemoFailed, OSError.

    The folder is emptied first; it keeps the config, the log, the ledger and the data afterwards.
    """
    began = time.monotonic()
    if options.folder.exists():
        shutil.rmtree(options.folder)
    options.folder.mkdir(parents=True)
    (options.folder / MARK).write_text("made by yuzui demo; the next one empties this folder\n")
    secret = secrets.token_hex(16)
    receiver_options = ReceiverOptions(log_file=str(options.folder / "webhooks.jsonl"), secret=secret)
    with Child("ingest.simulate.receiver", json.dumps(asdict(receiver_options))) as receiver:
        hook_port = receiver.until_ready(CHILD_S_MAX)["port"]
        config, data, environment = _prepare(options, secret, hook_port)
        with _stopped(Engine(options.folder, config, data, environment)) as engine:
            ports = engine.wait_ready()
            live = time.monotonic() - began
            say(
                f"live after {live:.1f} s: {options.points:,} points, engine process {engine.pid}, log {engine.log}"
            )
            if ports.get("console"):
                say(
                    f"map at {ports['console']}  (look only; log in with {_link(engine.data, ports['console'])})"
                )
            target = options.broker or "mqtt://{}:{}".format(*ports["listener"])
            return _measure(options, engine, receiver, target, live, watch, say)


def _measure(
    options: DemoOptions, engine: Engine, receiver: Child, target: str, live: float, watch: Watch, say: Say
) -> DemoResult:
    ledger = options.folder / "ledger"
    points_file = options.folder / "points.parquet"
    probe_options = ProbeOptions(data_dir=str(engine.data), points_file=str(points_file))
    with Child("ingest.simulate.probe", json.dumps(asdict(probe_options))) as probe, ExitStack() as rest:
        probe.until_ready(CHILD_S_MAX)
        cpu = engine.cpu_s()
        offices = rest.enter_context(_offices(options, target)) if options.offices else None

        def progress(news: dict[str, Any]) -> None:
            if options.scenario == "storm-city":
                keep_journal(engine.data, options.folder / "journal")
            share = news.get("seconds", 0.0) / options.seconds
            if options.kill_at is not None and engine.killed_at is None and share >= options.kill_at:
                engine.kill()
                say(f"killed the engine (-9) at {news['seconds']:.0f} s and started it again")
            engine.sample()
            watch({**(engine_vitals(engine.data) or {}), **{f"sim_{k}": v for k, v in news.items()}})

        report = simulate(
            SimulateOptions(
                target=target,
                points_file=points_file,
                city_dir=options.city_dir,
                ledger_dir=ledger,
                seconds=options.seconds,
                hz=options.hz,
                qos=options.qos,
                seed=options.seed,
                scenario=options.scenario,
                batch=options.batch,
                aiomqtt_share=options.aiomqtt_share,
                drain_s_max=DRAIN_S_MAX,
            ),
            progress,
        )
        told = offices.finish(CHILD_S_MAX) if offices is not None else {"messages": 0, "steps": 0}
        vitals = engine.quiet(report.sent + told["steps"])
        engine_cpu = engine.cpu_s() - cpu
        seen = probe.finish(CHILD_S_MAX)
    engine_mb = engine.peak_mb()
    if options.scenario == "storm-city":
        # A city that has ended is silent, and soon called for.
        keep_journal(engine.data, options.folder / "journal")
        engine.stop()
    say("all sent; counting every reading in DuckDB against the simulator's ledger ...")
    found = verdict(engine.data, ledger)
    said = event_verdict(engine.data, ledger, EVENTS_S_MAX) if offices is not None else None
    hooks = receiver.finish(CHILD_S_MAX)
    storm = _night(options, engine, last_word_s(ledger), say) if options.scenario == "storm-city" else None
    result = DemoResult(
        points=options.points, sent=found.sent, acked=found.acked, stored=found.stored, lost=found.lost,
        missing=found.missing, duplicates=found.duplicates, wrong=found.wrong, invented=found.invented,
        quarantined=vitals.get("quarantined", 0),
        alerts_fired=vitals.get("alerts_fired", 0), webhooks_delivered=hooks["calls"] - hooks["unsigned"],
        publish_to_webhook_p50_s=_number(hooks["p50_s"]), publish_to_webhook_p99_s=_number(hooks["p99_s"]),
        publish_to_query_p50_s=_number(seen["p50_s"]), publish_to_query_p99_s=_number(seen["p99_s"]),
        engine_cpu_s=round(engine_cpu, 2), engine_cores=round(engine_cpu / report.seconds, 3),
        engine_rss_mb=round(engine_mb, 1), engine_rss_growth_mb=_growth(engine.rss_mb),
        simulator_cpu_s=round(report.cpu_s, 2), probe_cpu_s=round(seen["cpu_s"], 2),
        live_after_s=round(live, 1), seconds=round(report.seconds, 1), qos=options.qos,
        readings_per_message=options.batch or 1, through="broker" if options.broker else "listener",
        conservation_gap=vitals.get("conservation_gap", 0), resent=report.resent_messages,
        storm=storm, offices=said,
    )  # fmt: skip
    result.notes = _notes(result, [*found.examples, *(said.examples if said else ())], report)
    return result


def _offices(options: DemoOptions, target: str) -> Child:
    """The city's offices, about to tell their past and what happens meanwhile."""
    address = urlsplit(target)
    assert address.hostname is not None
    plan = EventPlan(
        address.hostname,
        address.port or 1883,
        str(options.folder / "points.parquet"),
        options.seconds,
        options.seed,
        ledger_dir=str(options.folder / "ledger"),
    )
    return Child("ingest.simulate.event_speaker", json.dumps(asdict(plan)))


def _night(options: DemoOptions, engine: Engine, spoke_until: float, say: Say) -> NightFigures:
    """The storm's verdict; the engine has ended."""
    say("judging the night again with an engine nobody killed ...")
    keep_journal(engine.data, options.folder / "journal")
    course = Scenario(options.scenario, options.seed, options.seconds)
    return night_figures(options.folder, engine.data, course, spoke_until, engine.killed_at)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def _growth(rss_mb: list[float]) -> float:
    """Median of the last third less that of the middle third; the first third is warming up."""
    third = len(rss_mb) // 3
    if third == 0:
        return 0.0
    return round(statistics.median(rss_mb[-third:]) - statistics.median(rss_mb[third : 2 * third]), 1)


def _notes(result: DemoResult, examples: list[str], report: SimulateReport) -> list[str]:
    notes = [*examples[:5]]
    if report.not_sent:
        notes.append(f"{report.not_sent} readings were never sent: the gateways' backlog was full")
    if report.lag_s_max > 1:
        notes.append(
            f"the simulator itself was up to {report.lag_s_max:.1f} s late: this machine was too busy for it"
        )
    if result.qos == 0 and result.missing:
        notes.append(f"{result.missing} QoS 0 readings did not arrive; QoS 0 promises nothing")
    return notes
