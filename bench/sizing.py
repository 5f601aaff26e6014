"""Which machine for which city: disk, memory and cores of points × interval, from measurements; into docs/sizing.md.

Disk is arithmetic over bytes that were measured (bench/results/storage.json and week.json). Memory and cores are
measured here with --measure, an engine with everything on and a load at the interval's rate; what was not measured
stays empty.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from bench.case import Case
from bench.end_to_end import SCRATCH, measure
from bench.markdown import grid
from bench.rig import ROOT, CannotMeasure, end_in_order
from bench.storage_figures import RESULTS, machine
from ingest.simulate.child import ChildDiedError

DOCS: Final = ROOT / "docs" / "sizing.md"
KEPT: Final = RESULTS / "sizing.json"
POINTS: Final = (1_000, 10_000, 116_200)
INTERVALS_S: Final = (1, 10, 60)
DAYS: Final = (30, 365)
SECONDS: Final = 20.0
PULSES: Final = 60
DAY_S: Final = 86_400
BEGIN, END = "<!-- sizing: begin -->", "<!-- sizing: end -->"


@dataclass(frozen=True, slots=True)
class Bytes:
    """Measured: of a reading in a compacted hour at one a second and one a minute; of a row of each rollup."""

    reading_1s: float
    reading_1m: float
    minute_row: float
    hour_row: float

    def a_day(self, points: int, interval_s: float) -> float:
        """Raw readings and both rollups of one day, in bytes; a reading costs what it does at the nearer interval."""
        readings = points * DAY_S / interval_s
        each = self.reading_1s if interval_s < 30 else self.reading_1m
        minutes, hours = points * DAY_S / max(60.0, interval_s), points * DAY_S / max(3600.0, interval_s)
        return readings * each + minutes * self.minute_row + hours * self.hour_row


def measured_bytes(results: Path = RESULTS) -> Bytes:
    """From the last full runs of `scripts/bench storage` and `week`. Raises OSError, KeyError."""
    storage = json.loads((results / "storage.json").read_text("utf-8"))
    second = {one["name"]: one["measured"] for one in storage["figures"]}
    week = {
        one["what"]: one["value"] for one in json.loads((results / "week.json").read_text("utf-8"))["figures"]
    }
    return Bytes(
        second["bytes a reading, all columns, ±20 ms"],
        week["bytes a reading"],
        week["rollup by the minute, bytes a reading"],
        week["rollup by the hour, bytes a reading"] * 60,
    )


def measure_one(points: int, interval_s: float, folder: Path) -> dict[str, Any]:
    """Memory (MB, all processes) and cores of one city. Raises CannotMeasure, ChildDiedError, OSError."""
    case = Case(
        f"sizing-{points}-{interval_s:g}", "", points=points, rate=points / interval_s, seconds=SECONDS, qos=1,
        connections=min(64, max(1, points // 100)), pulses=PULSES, compact=False, alerts_per_s=1.0,
    )  # fmt: skip
    found = measure(case, folder / "case", folder, lambda text: click.echo(text, err=True))
    return {
        "points": points, "interval_s": interval_s, "mb": found.peak_mb, "cores": found.cpu_cores, "lost": found.lost,
        "sent": found.sent, "others_cores": found.others_cores,
    }  # fmt: skip


def table(kept: dict[str, Any], of: Bytes) -> str:
    """The table and what it stands on."""
    by = {(one["points"], one["interval_s"]): one for one in kept["runs"]}
    rows = []
    for points in POINTS:
        for interval_s in INTERVALS_S:
            a_day = of.a_day(points, interval_s)
            run = by.get((points, interval_s))
            rows.append((
                f"{points:,}", f"{interval_s} s", f"{points / interval_s:,.0f}", _bytes(a_day),
                *(_bytes(a_day * days) for days in DAYS),
                f"{run['mb']:,.0f} MB" if run else "", f"{run['cores']:.2f}" if run else "",
            ))  # fmt: skip
    columns = (
        "points",
        "interval",
        "readings/s",
        "disk a day",
        *(f"{days} days" for days in DAYS),
        "memory",
        "cores",
    )
    words = (
        f"Bytes: {of.reading_1s:.2f} a reading at one a second, {of.reading_1m:.2f} at one a minute, "
        f"{of.minute_row:.2f} a row of `rollup_1m`, {of.hour_row:.2f} of `rollup_1h`; compacted, all columns, "
        "times that jitter by 20 ms (aligned ones cost a third). Memory and cores: "
    )
    if not by:
        words += "not measured yet."
    else:
        on, loud = kept["machine"], max(one["others_cores"] for one in kept["runs"])
        words += (
            f"{kept['at'][:10]}, {on['cores']} cores of {on['cpu']}, {SECONDS:g} s each, QoS 1, everything on but "
            "compaction, which adds half a microsecond of CPU a reading in the background; other work used up to "
            f"{loud:.1f} cores meanwhile, which makes cores here larger, never smaller. An empty cell was not measured."
        )
    return f"{grid(columns, rows)}\n\n{words}"


def _bytes(number: float) -> str:
    for bound, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= bound:
            return f"{number / bound:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"


def load_kept() -> dict[str, Any]:
    """What was measured so far."""
    found: dict[str, Any] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {"runs": []}
    return found


def publish(kept: dict[str, Any], docs: Path = DOCS) -> None:
    """Put the table between its marks. Raises ValueError where they are missing."""
    text = docs.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{docs.name} has no marks")
    body = f"{BEGIN}\n{table(kept, measured_bytes())}\n{END}"
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    docs.write_text(pattern.sub(lambda _: body, text), encoding="utf-8")


@click.command(help=__doc__)
@click.option("--measure", "again", is_flag=True, help="Measure memory and cores anew; some minutes.")
@click.option("--only", help="POINTS/INTERVAL, such as 10000/60: this run alone, others are kept.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH / "sizing", help="Scratch folder."
)
def main(again: bool, only: str | None, folder: Path) -> None:
    """See the module's words."""
    end_in_order()
    kept = load_kept()
    wanted = [(points, interval) for points in POINTS for interval in INTERVALS_S] if again else []
    if only:
        points, _, interval = only.partition("/")
        wanted = [(int(points), int(interval))]
    folder.mkdir(parents=True, exist_ok=True)
    for number, every_s in wanted:
        try:
            run = measure_one(number, every_s, folder)
        except (CannotMeasure, ChildDiedError) as fault:
            raise click.ClickException(str(fault)) from None
        click.echo(json.dumps(run), err=True)
        others = [one for one in kept["runs"] if (one["points"], one["interval_s"]) != (number, every_s)]
        kept = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "runs": [*others, run],
        }
        kept["bytes"] = asdict(measured_bytes())
        KEPT.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
    publish(kept)


if __name__ == "__main__":
    main()
