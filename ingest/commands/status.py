"""`yuzui status`: the line read at 3 a.m."""

from __future__ import annotations

from typing import Any

import click
import orjson

from ingest.cli import config_option, json_option
from ingest.commands.common import engine_answer, engine_vitals, running_on
from ingest.commands.source import show_sources
from ingest.config import Config
from ingest.readiness import RUNBOOK

TOLD_LATE_S = 10.0
"""A notification that waits longer than this is worth a word: most take a tenth of a second."""
FRESH_S = 600.0
"""For so long the status line says that there was a kill."""
EXIT_NOT_READY = 1
EXIT_NOT_RUNNING = 3


def line_of(vitals: dict[str, Any]) -> str:
    """One line: state, rate, lag, oldest unacknowledged, open alerts, disk days left."""
    days, a_day = vitals.get("disk_days_left"), vitals.get("disk_bytes_a_day")
    words = [
        "ok" if not vitals["not_ready"] else "NOT READY: " + "; ".join(vitals["not_ready"]),
        f"{vitals['readings_per_s']:,.0f} readings/s",
        f"lag {vitals['judge_lag_s']:.1f} s",
        f"oldest unacknowledged {vitals['journal_oldest_s'] * 1000:.0f} ms",
        f"{vitals['alerts_open']} open alerts",
        f"{vitals['outbox_waiting']} notifications waiting",
        (f"disk {days:.0f} days left" if days is not None else "disk days left unknown yet")
        + (f" at {a_day / 1e9:.1f} GB a day" if a_day else ""),
    ]
    if vitals["outbox_oldest_s"] > TOLD_LATE_S:
        words[5] += f", the oldest for {vitals['outbox_oldest_s']:,.0f} s"
    if vitals["after_kill"] and vitals["uptime_s"] < FRESH_S:
        words.append(f"up for {vitals['uptime_s']:.0f} s, the engine before did not stop by itself")
    if vitals["not_ready"]:
        words.append(f"what to do: {', '.join(f'{RUNBOOK}#{code}' for code in vitals['not_ready_codes'])}")
    if vitals["conservation_gap"]:
        words.insert(1, f"{vitals['conservation_gap']} READINGS UNACCOUNTED FOR")
    return " · ".join(words)


@click.command()
@config_option
@click.option("--sources", is_flag=True, help="Also a line for each source that has sent something.")
@json_option
def command(config_path: str, sources: bool, as_json: bool) -> None:
    """One line. Exit code 0: all is well; 1: running, not ready; 3: no engine answers."""
    root, config = running_on(config_path)
    vitals = engine_vitals(root)
    if vitals is None:
        click.echo("{}" if as_json else "no engine answers for this data folder: start it with `yuzui run`")
        raise click.exceptions.Exit(EXIT_NOT_RUNNING)
    click.echo(orjson.dumps(vitals).decode() if as_json else line_of(vitals))
    if sources and not as_json:
        rows = engine_answer(root, "/sources") or []
        show_sources([row for row in rows if row["received"]], config or Config())
    if vitals["not_ready"]:
        raise click.exceptions.Exit(EXIT_NOT_READY)
