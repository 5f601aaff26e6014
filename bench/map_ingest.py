"""Ingest beside open maps: the same load on the same engine without a map, and with 50 of which 5 never read.

Owns the turns and the verdict: none, 50, 50, none …, so that what drifts falls on both sides. Flat out it is readings
judged a second that are compared (QoS 0, as fast as they are taken); at the city's rate CPU of a reading, and how soon
messages were acknowledged (QoS 1). Maps are a process of their own on the same cores. Every reading is counted in the
lake at the end. A full run takes five minutes, and writes bench/results/map-ingest.json and its table in the README.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from bench.case import CITY_POINTS, Case
from bench.end_to_end import SCRATCH, settle
from bench.family import Family, machine_busy_s
from bench.lake_count import count_lake, expected
from bench.load.maps import MapsOptions
from bench.load.registry import CLOCK
from bench.markdown import between, grid
from bench.rig import CHILD_S_MAX, CannotMeasure, Rig, end_in_order
from bench.storage_figures import README, RESULTS, machine
from ingest.commands.common import ENGINE_FILE
from ingest.simulate.child import Child, ChildDiedError, listen
from ingest.simulate.fleet import load_fleet

CONSOLE: Final = "[console]\nenabled = true\nanonymous_view = true\nport = 0"
LOADS: Final = {
    "flat out": Case("flat-out", "as fast as readings are taken, QoS 0", connections=64, seal_s=10),
    "city": Case("city", "116,200 readings/s, QoS 1", connections=1_162, qos=1, rate=116_200, seal_s=10),
}
SLOWER_MAX: Final = 0.05
"""Wanted: ingest slows by less than this beside the maps."""
KEPT: Final = "map-ingest"
SEEN_S_MAX: Final = 20.0
"""From judged to seen by a query: a hot file a second. Only then is what is missing missing."""
STALL_S_MAX: Final = 10.0
FIFTY: Final = MapsOptions("")

Say = Callable[[str], None]


@dataclass(slots=True)
class Turn:
    """One load with or without maps. CPU of the engine with all its processes, µs a reading; latencies ms.

    judged_per_s  readings a second until the last was judged; lost: sent and not taken in by then
    maps          what those that were open saw, None without
    """

    load: str
    maps: dict[str, Any] | None
    sent: int = 0
    lost: int = 0
    judged_per_s: float = 0.0
    cpu_us: float = 0.0
    cpu_us_engine: float = 0.0
    ack_p50_ms: float | None = None
    ack_p99_ms: float | None = None
    others_cores: float = 0.0
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """All turns, and what the lake holds of all that was sent."""

    points: int
    at: str = ""
    turns: list[Turn] = field(default_factory=list)
    stored: int = 0
    lost: int = 0
    surplus: int = 0
    wrong: int = 0

    def of(self, load: str, maps: bool) -> list[Turn]:
        """The turns of one side."""
        return [one for one in self.turns if one.load == load and (one.maps is not None) == maps]

    def middle(self, load: str, maps: bool, figure: str) -> float | None:
        """Median of a figure over one side's turns."""
        values = [v for one in self.of(load, maps) if (v := getattr(one, figure)) is not None]
        return statistics.median(values) if values else None

    @property
    def slower(self) -> float | None:
        """By how much of their rate readings are judged slower beside maps, flat out; medians."""
        alone, beside = (self.middle("flat out", maps, "judged_per_s") for maps in (False, True))
        return None if not alone or beside is None else round(1 - beside / alone, 4)


def run(
    points: int,
    pairs: int,
    seconds: dict[str, float],
    folder: Path,
    say: Say,
    maps: MapsOptions = FIFTY,
    stall_s_max: float = STALL_S_MAX,
) -> Found:
    """Every turn of every load in ``seconds`` (of load, by its name); the folder is scratch.

    A load beside maps begins when those that never read have stalled, or after ``stall_s_max``: of a small city the
    frames are so small that what the server itself keeps for each of them holds minutes.

    Raises CannotMeasure, ChildDiedError, OSError.
    """
    found = Found(points, datetime.now(UTC).isoformat(timespec="seconds"))
    first = replace(LOADS["flat out"], points=points, pulses=0)
    with Rig(first, folder / "case", folder, (), CONSOLE) as rig:
        address = str(json.loads((rig.data / ENGINE_FILE).read_text())["console"])
        for load, length in seconds.items():
            case = LOADS[load]
            rate, few = case.rate * points / CITY_POINTS, max(1, points // 100)
            for number in range(2 * pairs):
                beside = number % 4 in (1, 2)
                rig.case = replace(
                    case, name=f"{case.name}-{number}", points=points, pulses=0, seconds=length, rate=rate,
                    connections=min(case.connections, few),
                )  # fmt: skip
                say(f"{load}, {'with maps' if beside else 'no map'}, turn {number + 1} of {2 * pairs}")
                found.turns.append(
                    _turn(rig, load, replace(maps, address=address) if beside else None, stall_s_max)
                )
                say("  " + _summary(found.turns[-1]))
        say("counting every reading in DuckDB ...")
        _count(rig, found)
    return found


def _turn(rig: Rig, load: str, maps: MapsOptions | None, stall_s_max: float) -> Turn:
    if maps is None:
        return _loaded(rig, Turn(load, None))
    with Child("bench.load.maps", json.dumps(asdict(maps))) as others:
        others.until_ready(CHILD_S_MAX)
        end = time.monotonic() + stall_s_max
        while rig.vitals()["console_clients_stalled"] < maps.stalled and time.monotonic() < end:
            time.sleep(0.1)
        turn = _loaded(rig, Turn(load, {}))
        vitals = rig.vitals()
        turn.maps = others.finish(CHILD_S_MAX)
        names = ("console_clients", "console_clients_stalled", "console_clients_dropped", "console_encode_ms")
        turn.maps |= {name: vitals[name] for name in names}
    turn.faults += turn.maps["faults"]
    return turn


def _loaded(rig: Rig, turn: Turn) -> Turn:
    with rig.load() as load:
        load.until_ready(CHILD_S_MAX)
        before, members = rig.vitals(), {one.pid: one.cpu_s for one in rig.engine.members()}
        ours = Family(os.getpid())
        others_s, begun = machine_busy_s() - ours.cpu_s(), time.time()
        load.tell("go")
        listen([load], lambda: load.report is not None, rig.case.seconds + CHILD_S_MAX)
        assert load.report is not None
        sent = load.report["sent"]
        _, judged_at = settle(rig, before["received"] + sent)
        after = rig.engine.members()
    turn.others_cores = round(
        max(0.0, (machine_busy_s() - ours.cpu_s() - others_s) / (time.time() - begun)), 2
    )
    used = {one.name: one.cpu_s - members.get(one.pid, 0.0) for one in after}
    turn.sent, turn.lost = sent, before["received"] + sent - rig.vitals()["received"]
    turn.judged_per_s = round(sent / max(1e-9, judged_at - load.report["begun_at"]))
    turn.cpu_us = round(sum(used.values()) / max(1, sent) * 1e6, 4)
    turn.cpu_us_engine = round(used.get("cli", 0.0) / max(1, sent) * 1e6, 4)
    turn.ack_p50_ms, turn.ack_p99_ms = load.report["ack_p50_ms"], load.report["ack_p99_ms"]
    turn.faults += load.report["faults"]
    return turn


def _count(rig: Rig, found: Found) -> None:
    """Count until nothing is missing, or for SEEN_S_MAX."""
    whole = load_fleet(rig.points_file)
    wanted = expected([(one, whole) for one in sorted(rig.folder.glob("load-*.npz"))])
    end = time.monotonic() + SEEN_S_MAX
    while (counted := count_lake(rig.data, wanted, CLOCK)).lost and time.monotonic() < end:
        time.sleep(1.0)
    found.stored, found.lost = counted.stored, counted.lost
    found.surplus, found.wrong = counted.surplus, counted.wrong


def _summary(turn: Turn) -> str:
    parts = [
        f"{turn.judged_per_s:,.0f} readings/s judged",
        f"{turn.cpu_us:.3f} µs CPU (engine's process {turn.cpu_us_engine:.3f})",
        f"sent {turn.sent:,} lost {turn.lost}",
    ]  # fmt: skip
    if turn.ack_p50_ms is not None:
        parts.append(f"acknowledged in {turn.ack_p50_ms:.1f} / {turn.ack_p99_ms:.1f} ms")
    if turn.maps is not None:
        parts.append(
            f"{turn.maps['console_clients']} maps, {turn.maps['console_clients_stalled']} stalled, "
            f"{turn.maps['frames_min']} to {turn.maps['frames_max']} frames, {turn.maps['gaps']} missed"
        )
    return "; ".join([*parts, f"others {turn.others_cores} cores", *turn.faults])


def table(found: dict[str, Any]) -> str:
    """What stands in bench/README.md of one run, from its JSON."""
    kept = Found(found["points"], found["at"], [Turn(**one) for one in found["turns"]])
    rows = []
    for load in LOADS:
        for maps in (False, True):
            turns = kept.of(load, maps)
            if turns:
                rows.append(_row(kept, load, maps, turns))
    slower = kept.slower
    verdict = "not measured" if slower is None else f"{slower:.1%} (wanted < {SLOWER_MAX:.0%})"
    seen = [one.maps for one in kept.turns if one.maps]
    words = (
        f"{found['at'][:16].replace('T', ' ')} UTC, {found['points']:,} points, medians of turns (least to most). "
        f"Slower beside maps, flat out: **{verdict}**. In the lake, of "
        f"{found['stored'] + found['lost']:,} readings sent: **{found['lost']:,} lost**, {found['surplus']:,} doubled, "
        f"{found['wrong']:,} points wrong. Maps that read missed "
        f"{sum(one['gaps'] for one in seen):,} frames; the maps' own process used "
        f"{sum(one['cpu_s'] for one in seen):.2f} s of CPU in all."
    )
    columns = (
        "load",
        "maps open",
        "readings/s judged",
        "CPU a reading",
        "acknowledged p50 / p99",
        "sent",
        "lost",
        "others' cores",
    )
    return f"{grid(columns, rows)}\n\n{words}"


def _row(kept: Found, load: str, maps: bool, turns: list[Turn]) -> list[str]:
    rates = [one.judged_per_s for one in turns]
    acked = kept.middle(load, maps, "ack_p50_ms"), kept.middle(load, maps, "ack_p99_ms")
    open_maps = next((one.maps for one in turns if one.maps), None)
    return [
        LOADS[load].title,
        f"{open_maps['good'] + open_maps['stalled']}, {open_maps['stalled']} never read"
        if open_maps
        else "none",
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{kept.middle(load, maps, 'cpu_us'):.3f} µs",
        "" if acked[0] is None else f"{acked[0]:.1f} / {acked[1]:.1f} ms",
        f"{sum(one.sent for one in turns):,}",
        f"{sum(one.lost for one in turns):,}",
        f"{max(one.others_cores for one in turns):.1f}",
    ]


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="20,000 points, 2 s a turn, one pair; changes no table.")
@click.option("--points", type=int, default=CITY_POINTS, show_default=True)
@click.option("--pairs", type=int, default=3, show_default=True, help="Turns of each side and load.")
@click.option(
    "--flat-s",
    type=float,
    default=12.0,
    show_default=True,
    help="Seconds of a turn flat out; 0 leaves it out.",
)
@click.option(
    "--city-s",
    type=float,
    default=20.0,
    show_default=True,
    help="Seconds of a turn at the city's rate; 0: none.",
)
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH / "map", help="Scratch folder."
)
def main(quick: bool, points: int, pairs: int, flat_s: float, city_s: float, folder: Path) -> None:
    """See the module's words."""
    end_in_order()
    folder.mkdir(parents=True, exist_ok=True)
    if quick:
        points, pairs, flat_s, city_s = min(points, 20_000), 1, min(flat_s, 2.0), min(city_s, 2.0)
    seconds = {name: length for name, length in (("flat out", flat_s), ("city", city_s)) if length > 0}
    try:
        found = run(points, pairs, seconds, folder, lambda text: click.echo(text, err=True))
    except (CannotMeasure, ChildDiedError) as fault:
        raise click.ClickException(str(fault)) from None
    kept = asdict(found) | {"slower": found.slower, "machine": machine()}
    text = table(kept)
    if not quick:
        (RESULTS / f"{KEPT}.json").write_text(
            json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        README.write_text(between(README.read_text("utf-8"), KEPT, text), encoding="utf-8")
    click.echo(text, err=True)
    click.echo(
        json.dumps(
            {"slower": found.slower, "lost": found.lost, "surplus": found.surplus, "wrong": found.wrong}
        )
    )
    if found.lost or found.surplus or found.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
