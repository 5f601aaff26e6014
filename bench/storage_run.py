"""scripts/bench storage: every row of the storage targets, measured on the same rows in one run, beside its peers.

Caveats first. CPU seconds are those of this process with all its threads and are steadier than the wall's time,
but neither is steady on a machine that does other work. Rows come from the demo's city, whose sensors are quantised
like real ones; noisier values take more bytes. Sets are smaller than a city's hour where the size does not change the
figure. Ratios against peers that scan grow with the set: they are judged on the whole city's day, not with --quick.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from bench import storage_live, storage_read, storage_write
from bench.storage_city import CITY_POINTS, map_city
from bench.storage_figures import BENCH, Report

SCRATCH: Final = BENCH.parent / "data" / "bench"
PARTS: Final = ("bytes", "write", "refresh", "visible", "read")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    hour_every  every n-th point of the city in the sealed hour at 1 Hz
    day_every   every n-th point in the day at one reading a minute
    """

    hour_every: int
    sort_every: int
    river_s: int
    compact_every: int
    visible_points: int
    visible_s: float
    day_every: int
    day_hours: int


FULL: Final = Size(
    hour_every=97,
    sort_every=2,
    river_s=40,
    compact_every=40,
    visible_points=116_200,
    visible_s=20,
    day_every=1,
    day_hours=24,
)
QUICK: Final = Size(
    hour_every=388,
    sort_every=8,
    river_s=10,
    compact_every=200,
    visible_points=20_000,
    visible_s=5,
    day_every=200,
    day_hours=24,
)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Smaller sets, under a minute; nothing is written to the README.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=SCRATCH, help="Scratch folder, emptied after."
)
@click.option("--only", default=",".join(PARTS), help=f"Comma-separated parts of {', '.join(PARTS)}.")
@click.option("--no-peers", is_flag=True, help="Without ClickHouse.")
def main(quick: bool, folder: Path, only: str, no_peers: bool) -> None:
    """Measure, print, save; exit 1 where a target is missed by a full run."""
    size = QUICK if quick else FULL
    parts = only.split(",")
    if unknown := set(parts) - set(PARTS):
        raise click.BadParameter(f"unknown parts {', '.join(sorted(unknown))}")
    work = folder / "storage"
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    report = Report("storage", {"quick": quick, "parts": parts})
    map_file = map_city(work / "city")
    if "bytes" in parts:
        storage_write.bytes_a_reading(report, map_file, work, size.hour_every)
    if "write" in parts:
        storage_write.sort_and_encode(report, map_file, work, size.sort_every)
        cpu_us = storage_write.river(report, map_file, work, size.river_s)
        cpu_us += storage_write.compact(report, map_file, work, size.compact_every)
        report.add(
            f"storage at {CITY_POINTS:,} readings/s", cpu_us * CITY_POINTS / 1e6 * 100, "% of a core", 8,
            how=f"journal, hot files, seals, compaction and rollups: {cpu_us:.2f} µs of CPU a reading",
        )  # fmt: skip
    if "refresh" in parts:
        storage_live.refresh(report, work, map_file)
    if "visible" in parts:
        storage_live.visible(report, work, size.visible_points, size.visible_s)
    if "read" in parts:
        storage_read.measure(report, work, map_file, size.day_every, size.day_hours, peers=not no_peers)
    report.note("kill -9 and compaction while readers query: counted by the tests, see the fault matrix")
    shutil.rmtree(work)
    if quick or tuple(parts) != PARTS:
        print(f"not published; {report.save('storage-quick')}")
        return
    report.publish("storage")
    print(f"{report.save('storage')}, table in bench/README.md")
    if report.missed:
        sys.exit("targets missed: " + ", ".join(report.missed))


if __name__ == "__main__":
    main()
