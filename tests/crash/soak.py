"""F1: a tenth of the city at its own rate, in a storm, for a while: nothing is lost."""

from __future__ import annotations

from ingest.simulate.run import SimulateOptions, simulate
from tests.engines import ROOT, EngineProcess, city_config, free_port
from tests.faults_judge import Watcher, judge
from tests.faults_trial import SMALL, Faults

POINTS = 11_620
"""One reading a second each: a tenth of the city."""


def soak(faults: Faults) -> None:
    """F1: ``count`` seconds of a simulated storm, both MQTT versions, two independent clients."""
    home, ledger, port = faults.home(), faults.ledger(), free_port()
    engine = EngineProcess(home, city_config(home, port, points=POINTS, more=SMALL))
    faults.engines.append(engine)
    engine.start()
    watcher = Watcher(engine.data / "lake.sql", every_s=2.0)
    watcher.start()
    chosen = SimulateOptions(
        target=f"mqtt://127.0.0.1:{port}",
        points_file=home / "points.parquet",
        city_dir=ROOT / "configs" / "chengdu",
        ledger_dir=ledger,
        seconds=float(faults.count),
        seed=faults.result.seed,
        scenario="storm",
        backlog_s_max=600.0,
        drain_s_max=60.0,
        connect_s_max=60.0,
    )
    report = simulate(chosen)
    found = judge(engine, ledger)
    found += watcher.finish()
    faults.expect(
        report.acked == report.produced, f"{report.produced - report.acked} readings not acknowledged"
    )
    faults.expect(engine.stop() == 0, "the engine did not stop cleanly")
    faults.say(f"{report.acked / faults.count:.0f}/s, {found}")
    faults.findings.__iadd__(found)
    faults.result.trials += faults.count
