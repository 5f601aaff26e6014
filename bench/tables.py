"""Results to figures: the targets that concern several of them, a table on a terminal, one line for machines.

Owns what counts as met. Measures nothing; bench.markdown makes the tables of the README.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from bench.case import all_cases
from bench.peers import CLIENTS
from bench.storage_figures import RESULTS

Results = dict[str, Any]
RATIO_MIN: Final = 25.0
GROWTH_MAX: Final = 1.5
FLAT_OUT: Final = ("listener-qos0", "listener-qos1", "listener-arrays")


def load_results(folder: Path = RESULTS) -> Results:
    """Every result that stands in bench/results, by name, with when and where it was measured."""
    found: Results = {}
    names = [c.name for c in all_cases()] + [f"peer-{n}" for n in CLIENTS] + ["generator", "kernels"]
    for name in names:
        path = folder / f"{name}.json"
        if path.exists():
            kept = json.loads(path.read_text("utf-8"))
            found[name] = kept["result"] | {"at": kept["at"], "machine": kept["machine"]}
    return found


def targets(results: Results) -> list[dict[str, Any]]:
    """Every target: name, measured (None: not measured), bound, side, met."""
    rows: list[dict[str, Any]] = []

    def add(what: str, measured: float | None, bound: float, *, least: bool = False) -> None:
        met = None if measured is None else (measured >= bound if least else measured <= bound)
        rows.append({"what": what, "measured": measured, "bound": bound, "least": least, "met": met})

    def of(name: str, figure: str) -> float | None:
        return results[name].get(figure) if name in results else None

    add("QoS 0, one reading a message: readings/s", of("listener-qos0", "readings_per_s"), 1e6, least=True)
    add("QoS 1, acknowledged after fsync: readings/s", of("listener-qos1", "readings_per_s"), 5e5, least=True)
    add("arrays of 100: readings/s", of("listener-arrays", "readings_per_s"), 2e6, least=True)
    add("lost in all cases, by count", lost(results), 0)
    for figure, bound, what in (
        ("cpu_cores", 0.20, "engine, cores"), ("peak_mb", 600, "memory, MB"),
        ("journal_p99_s", 0.05, "p99 to the journal, s"),
        ("query_p99_s", 2.0, "p99 to DuckDB, s"), ("webhook_p99_s", 0.25, "p99 to the webhook, s"),
    ):  # fmt: skip
        add(f"city at 116,200 messages/s through mosquitto: {what}", of("city", figure), bound)
    add("CPU a reading, one a message, µs", of("listener-qos0", "cpu_us"), 0.8)
    add("CPU a reading, arrays of 100, µs", of("listener-arrays", "cpu_us"), 0.4)
    add(
        "times less CPU than aiomqtt + orjson + pyarrow, same broker",
        ratio(results, "aiomqtt"),
        RATIO_MIN,
        least=True,
    )
    add("one million points: memory, MB", of("points-1000000", "peak_mb"), 2_000)
    add("one million points: CPU a reading over that of 116,200", growth(results), GROWTH_MAX)
    return rows


def lost(results: Results) -> int | None:
    counts = [one["lost"] + one["surplus"] + one["wrong"] for one in results.values() if "lost" in one]
    return sum(counts) if counts else None


def ratio(results: Results, client: str) -> float | None:
    """A baseline's CPU a message over the engine's, both through mosquitto."""
    peer, city = results.get(f"peer-{client}"), results.get("city")
    return round(peer["cpu_us"] / city["cpu_us"], 1) if peer and city and city["cpu_us"] else None


def growth(results: Results) -> float | None:
    """CPU a reading at a million points over that at the city's 116,200, same rate."""
    many, city = results.get("points-1000000"), results.get("points-116200")
    return round(many["cpu_us"] / city["cpu_us"], 2) if many and city else None


def headline(results: Results) -> dict[str, Any]:
    """The figures that matter, flat."""
    found: dict[str, Any] = {"lost": lost(results) or 0}
    for name in (*FLAT_OUT, "city"):
        one = results.get(name, {})
        for figure in ("readings_per_s", "cpu_us"):
            found[f"{name}_{figure}".replace("-", "_")] = one.get(figure)
    for figure in ("cpu_cores", "peak_mb", "journal_p99_s", "query_p99_s", "webhook_p99_s"):
        found[f"city_{figure}"] = results.get("city", {}).get(figure)
    for client in CLIENTS:
        found[f"times_less_cpu_than_{client}".replace("-", "_")] = ratio(results, client)
    found["million_points_mb"] = results.get("points-1000000", {}).get("peak_mb")
    found["million_points_cost_ratio"] = growth(results)
    alone = results.get("generator", {}).get("runs")
    found["generator_messages_per_cpu_s"] = alone[0]["messages_per_cpu_s"] if alone else None
    rows = targets(results)
    found["targets_met"] = [r["what"] for r in rows if r["met"]]
    found["targets_missed"] = [r["what"] for r in rows if r["met"] is False]
    found["checks"] = next((one["checks"] for one in results.values() if one.get("checks")), [])
    found["quiet"] = all(one.get("quiet", True) for one in results.values())
    return found


def for_people(results: Results) -> Table:
    """The cases, a line each."""
    table = Table(title="end to end, everything on")
    for column in (
        "case",
        "readings/s",
        "CPU µs",
        "cores",
        "MB",
        "journal p99",
        "query p99",
        "webhook p99",
        "lost",
        "generator µs",
    ):
        table.add_column(column, justify="left" if column == "case" else "right")
    for name, one in results.items():
        if "readings_per_s" in one:
            row = cells(one)
            table.add_row(
                name,
                *(
                    row[k]
                    for k in (
                        "rate",
                        "cpu",
                        "cores",
                        "mb",
                        "journal",
                        "query",
                        "webhook",
                        "lost",
                        "generator",
                    )
                ),
            )
    for client in CLIENTS:
        if peer := results.get(f"peer-{client}"):
            times = ratio(results, client)
            table.add_row(
                f"{client} + orjson + pyarrow",
                f"{peer['rate']:,.0f}",
                f"{peer['cpu_us']:.1f}",
                *[""] * 6,
                f"{times}x" if times else "",
            )
    return table


def cells(one: dict[str, Any]) -> dict[str, str]:
    def s(number: float | None) -> str:
        return "–" if number is None else f"{number:.3f}" if number < 10 else f"{number:.1f}"

    return {
        "rate": f"{one['readings_per_s']:,.0f}",
        "cpu": f"{one['cpu_us']:.3f}",
        "cores": f"{one['cpu_cores']:.2f}",
        "mb": f"{one['peak_mb']:.0f}",
        "journal": s(one["journal_p99_s"]),
        "query": s(one["query_p99_s"]),
        "webhook": s(one["webhook_p99_s"]),
        "lost": str(one["lost"] + one["surplus"] + one["wrong"]),
        "generator": f"{one['generator_cpu_us']:.3f}",
    }
