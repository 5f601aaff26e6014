"""The demo's night of storm-city: a city quick enough for a minute, and what people would have noticed of a kill.

Owns the settings that let faults show within a demo, and the figures of the night.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from anomaly.alerts.outbox import Outbox
from ingest.configfile import load
from ingest.rejudge import Comparison, rejudged
from ingest.simulate.fleet import load_fleet
from ingest.simulate.night import outage_gateways, stuck_points
from ingest.simulate.scenario import CITY_STUCK_KINDS, Scenario
from ingest.simulate.storm_ledger import StormVerdict, heard, storm_verdict
from storage.units import US_PER_S

STUCK_SHARE, STUCK_S_MIN = 0.15, 8.0
"""A sensor is stuck after this share of the run. Eight seconds the same to the digit do not happen to these kinds."""
DEAD_SHARE, DEAD_S_MIN = 0.15, 9.0
"""A point is dead after this share of the run: longer than a busy machine takes to bring a thousand gateways back."""
LAST_WORD_S = 3.0
"""A gateway's last word before the end of a run is at most this old; no silence so short is found before it."""
SNAPSHOT_SHARE = 0.2
"""A killed engine comes back from a snapshot and a tail, not from the whole journal."""


@dataclass(frozen=True, slots=True)
class NightFigures:
    """What was told, and how it differs from an engine nobody killed. ``killed`` says whether this one was.

    flooded      alerts of levels; stuck_found: of the sensors that stuck, those an alert names
    stuck_other  alerts of stuck sensors that did not stick
    """

    flooded: int
    stuck_found: int
    stuck_other: int
    told: StormVerdict
    against: Comparison
    killed: bool

    @property
    def well(self) -> bool:
        """Nobody was called twice, nothing was kept back, and a kill changed nothing."""
        return self.told.well and self.against.same and not self.stuck_other


def quick_checks(seconds: float) -> str:
    """TOML that lets silence be found within a run of ``seconds``."""
    return (
        f"[checks]\ndead_s_min = {max(DEAD_S_MIN, DEAD_SHARE * seconds):.1f}\n"
        f"[snapshot]\nevery_s = {max(2, round(SNAPSHOT_SHARE * seconds))}\n"
    )


def hasten(kinds_file: Path, seconds: float) -> None:
    """Write shorter flat_line_s for the kinds that stick into a copy of the city's kinds. Raises OSError."""
    after = f"flat_line_s = {max(STUCK_S_MIN, STUCK_SHARE * seconds):.1f}"
    tables = re.split(r"(?m)^(?=\[kinds\.)", kinds_file.read_text("utf-8"))
    for place, table in enumerate(tables):
        if any(table.startswith(f"[kinds.{name}]") for name in CITY_STUCK_KINDS):
            tables[place] = re.sub(r"(?m)^flat_line_s = .*$", after, table)
    kinds_file.write_text("".join(tables), "utf-8")


def free_port() -> int:
    """A port of loopback nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_word_s(ledger: Path) -> float:
    """When the city spoke last by its own ledger, seconds since 1970. Waiting for acknowledgements is no speaking.

    Raises OSError where there is no ledger.
    """
    newest = pl.scan_parquet(ledger / "readings-*.parquet").select(pl.col("time_us").max()).collect().item()
    return float(newest) / US_PER_S


def night_figures(
    folder: Path, data: Path, course: Scenario, spoke_until: float, killed_at: float | None
) -> NightFigures:
    """Everything, from the files of a demo whose engine has ended.

    spoke_until  seconds since 1970: the city's last reading
    killed_at  seconds since 1970; latencies are of events before it
    Raises OSError, ConfigFaults, JournalCut.
    """
    whole = load_fleet(folder / "points.parquet")
    stuck = stuck_points(whole, course)
    silent = np.flatnonzero(outage_gateways(whole, course))
    outages = {whole.gateways[code]: int((whole.gateway == code).sum()) for code in silent.tolist()}
    names = {whole.point_id[number] for number in ([] if stuck is None else stuck.tolist())}
    told = storm_verdict(
        folder / "webhooks.jsonl",
        outages,
        len(names),
        spoke_until_s=spoke_until - LAST_WORD_S,
        until_s=killed_at,
    )
    environment = {**os.environ, "YUZUI_DATA": str(data), "YUZUI_POINTS": str(folder / "points.parquet")}
    config = load(folder / "yuzui.toml", environment)
    _, came = heard(folder / "webhooks.jsonl")
    (folder / "never-killed.db").unlink(missing_ok=True)
    against = rejudged(folder / "journal", data, config, folder / "never-killed.db", came.keys())
    outbox = Outbox(data / "outbox.db")
    found = {row[0] for row in outbox.rows("SELECT point_id FROM alert_event WHERE rule = 'stuck'")}
    flooded = outbox.rows("SELECT count(DISTINCT id) FROM alert_event WHERE rule = 'level'")[0][0]
    outbox.close()
    return NightFigures(flooded, len(found & names), len(found - names), told, against, killed_at is not None)
