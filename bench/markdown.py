"""Results to the marked tables of bench/README.md.

Owns what stands between the marks and nothing outside of them. Measures nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench import plots
from bench.case import Case, all_cases
from bench.peers import CLIENTS
from bench.storage_figures import README
from bench.tables import Results, cells, ratio, targets

PROFILE_ROWS: Final = 12
GROWTH: Final = {
    "points": "points, 116,200 readings/s",
    "rate": "readings/s asked for",
    "connections": "connections, 116,200 messages/s, QoS 1",
}


def publish(results: Results, readme: Path = README) -> None:
    """Plots, and every marked table of ``readme``. Raises ValueError where a mark is missing."""
    text = readme.read_text("utf-8")
    parts = {
        "targets": _targets(results),
        "cases": _cases(results),
        "growth": _growth(results),
        "baselines": _baselines(results),
        "kernels": _kernels(results),
        "profiles": _profiles(readme.parent / "results"),
    }
    for mark, body in parts.items():
        text = between(text, mark, body)
    plots.growth(results, readme.parent / "plots" / "growth.png")
    readme.write_text(text, encoding="utf-8")


def between(text: str, mark: str, body: str) -> str:
    """``text`` with ``body`` between the two marks. Raises ValueError where one is missing."""
    begin, end = f"<!-- {mark}: written by scripts/bench -->", f"<!-- {mark}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"bench/README.md has no marks for {mark}")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text)


def grid(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(columns), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _targets(results: Results) -> str:
    rows = []
    for row in targets(results):
        sign = "≥" if row["least"] else "≤"
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        rows.append((row["what"], _number(row["measured"]), f"{sign} {_number(row['bound'])}", met))
    return "\n\n".join([_where(results), grid(("target", "measured", "must be", "met"), rows)])


def _where(results: Results) -> str:
    """Machine, versions, dates and whether it was quiet."""
    dated = [one for one in results.values() if "machine" in one]
    if not dated:
        return "Not measured yet."
    on = dated[-1]["machine"]
    days = sorted({one["at"][:10] for one in dated})
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    commits = ", ".join(sorted({one["machine"]["commit"] for one in dated}))
    said = f"{' to '.join(sorted({days[0], days[-1]}))}, {on['cores']} cores of {on['cpu']}, {versions}, at {commits}."
    loud = [
        f"`{name}` ({one['others_cores']} cores)"
        for name, one in results.items()
        if one.get("quiet") is False
    ]
    if loud:
        said += f" **Other work used this machine during {', '.join(loud)}: these figures are too bad.**"
    return said


def _cases(results: Results) -> str:
    columns = (
        "case", "readings/s", "CPU µs a reading", "of it compaction", "cores", "generator µs", "its core", "broker µs",
        "memory, MB", "journal p50, p99", "query p50, p99", "webhook p50, p99", "sent", "lost",
    )  # fmt: skip
    rows = []
    for case, one in _measured(results):
        if case.sweep:
            continue
        row = cells(one)
        compact, broker = one["compact_us"], one["broker_cpu_us"]
        rows.append((
            f"`{case.name}` {case.title}", row["rate"], row["cpu"], "–" if compact is None else f"{compact:.3f}",
            row["cores"], row["generator"], f"{one['generator_busy_share']:.0%}",
            "–" if broker is None else f"{broker:.2f}", row["mb"], _pair(one, "journal"), _pair(one, "query"),
            _pair(one, "webhook"), f"{one['sent']:,}", row["lost"],
        ))  # fmt: skip
    some: dict[str, Any] = next((one for one in results.values() if one.get("checks")), {})
    if not rows:
        return "Not measured yet."
    on = f"On in every case: the checks {', '.join(some['checks'])}; the rules {', '.join(some['rules'])}; the journal"
    return "\n\n".join(
        [grid(columns, rows), on + " and its fsync, hot files, seals, compaction, alerts to a webhook."]
    )


def _measured(results: Results) -> list[tuple[Case, dict[str, Any]]]:
    return [(case, results[case.name]) for case in all_cases() if case.name in results]


def _pair(one: dict[str, Any], what: str) -> str:
    p50, p99 = one[f"{what}_p50_s"], one[f"{what}_p99_s"]
    return "–" if p99 is None else f"{_time(p50)}, {_time(p99)}"


def _growth(results: Results) -> str:
    columns = ("readings/s", "CPU µs", "memory, MB", "journal p99", "query p99", "webhook p99", "start, s")
    parts = []
    for key, title in GROWTH.items():
        rows = []
        for case, one in _measured(results):
            if case.sweep == key:
                row = cells(one)
                figures = [row[k] for k in ("rate", "cpu", "mb", "journal", "query", "webhook")]
                rows.append((f"{getattr(case, key):,.0f}", *figures, f"{one['start_s']:.1f}"))
        if rows:
            parts.append(grid((title, *columns), rows))
    return "\n\n".join([*parts, "![cost as work grows](plots/growth.png)"]) if parts else "Not measured yet."


def _baselines(results: Results) -> str:
    rows = []
    for client in CLIENTS:
        if peer := results.get(f"peer-{client}"):
            arrived = f"{peer['received']:,} of {peer['sent']:,}"
            times = ratio(results, client)
            rate = f"{peer['rate']:,.0f}"
            rows.append(
                (client, rate, arrived, f"{peer['cpu_us']:.1f}", "–" if times is None else f"{times:.1f}")
            )
    if city := results.get("city"):
        # Not what is stored: readings of the hour before are in that.
        stored = f"{city['sent'] - city['lost']:,} of {city['sent']:,}"
        row = (
            "Yuzui, everything on (`city`)",
            f"{city['readings_per_s']:,.0f}",
            stored,
            f"{city['cpu_us']:.3f}",
            "1",
        )
        rows.append(row)
    if not rows:
        return "Not measured yet."
    columns = (
        "client, with orjson and pyarrow",
        "messages/s",
        "arrived",
        "CPU µs a message",
        "times the engine's",
    )
    parts = [grid(columns, rows)]
    if alone := results.get("generator", {}).get("runs"):
        rows = [
            (one["what"], *(f"{one[k] / 1e6:.1f}" for k in ("messages_per_cpu_s", "readings_per_cpu_s")),
             f"{one['system_share']:.0%}")
            for one in alone
        ]  # fmt: skip
        columns = (
            "the load generator alone",
            "million messages a CPU second",
            "million readings",
            "in the kernel",
        )
        parts.append(grid(columns, rows))
    return "\n\n".join(parts)


def _kernels(results: Results) -> str:
    found = results.get("kernels", {}).get("benchmarks", [])
    if not found:
        return "Not measured yet."
    rows = []
    for one in found:
        n = one["extra"].get("readings") or one["extra"].get("messages") or _thousands(one["name"])
        each = f"{one['median_s'] / n * 1e9:.0f} ns" if n else ""
        name = one["name"].removeprefix("test_").replace("_", " ")
        rows.append((name, _time(one["median_s"]), _time(one["min_s"]), each))
    return grid(("benchmark", "median", "best", "a reading or message, median"), rows)


def _thousands(name: str) -> int | None:
    """How many the name of a benchmark says there are: "of_1000_messages"."""
    found = re.search(r"of_(\d{3,})_", name)
    return int(found.group(1)) if found else None


def _profiles(folder: Path) -> str:
    """Where the engine's process spends its time: profile-*.json, in the order of their names."""
    parts = []
    for path in sorted(folder.glob("profile-*.json")):
        kept = json.loads(path.read_text("utf-8"))
        rows = [(f"`{one['function']}`", f"{one['share']:.1%}") for one in kept["top"][:PROFILE_ROWS]]
        parts.append(f"{kept['title']}\n\n{grid(('function', 'share of samples'), rows)}")
    return "\n\n".join(parts) if parts else "Not measured yet."


def _time(seconds: float) -> str:
    for bound, factor, unit in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs")):
        if seconds >= bound:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _number(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"
