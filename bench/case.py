"""End-to-end cases as files: what is sent, through what, how long, and what it must reach.

Owns the form of bench/cases/*.toml and its faults. Runs nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from bench.load.plan import Through
from bench.load.streams import FormName

CASES: Final = Path(__file__).resolve().parent / "cases"
CITY_POINTS: Final = 116_200
QUICK_READINGS_MAX: Final = 1_500_000
"""What lies in the kernel's buffers at the end must be taken in too."""
_CHOICES: Final[dict[str, tuple[str, ...]]] = {"through": get_args(Through), "form": (*get_args(FormName),)}
SWEPT: Final = ("points", "connections", "rate")

Bound = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement.

    title         what it shows, one line
    through       straight to the engine's listener, or through mosquitto with configs/mosquitto.conf
    rate          readings a second; 0: as fast as they are taken
    batch         readings a message; 1: one on the point's own topic
    inflight      QoS 1 messages in flight over all connections together
    seconds       of load; quick_seconds with --quick, 0: not in a quick run
    readings_max  a load without a pace ends after so many whole rounds of readings; 0: only by its seconds
    seal_s        the engine's [sealed] seal_s
    past_hour_s   seconds' worth of readings of the hour before, sent first and not measured: their compaction runs
                  beside the load
    compact       at the end, wait until the load's own hour is compacted and count that
    targets       figure name + "_min" or "_max" to bound
    """

    name: str
    title: str
    points: int = CITY_POINTS
    connections: int = 64
    qos: int = 0
    batch: int = 1
    form: FormName = "plain"
    through: Through = "listener"
    rate: float = 0.0
    inflight: int = 65_535
    mqtt5_share: float = 0.5
    seconds: float = 60.0
    quick_seconds: float = 0.0
    quick_points: int = 20_000
    quick_compact: bool = False
    readings_max: int = 0
    seal_s: int = 60
    past_hour_s: float = 0.0
    compact: bool = True
    alerts_per_s: float = 5.0
    pulses: int = 300
    sweep: str = ""
    targets: dict[str, float] = field(default_factory=dict)

    def quick(self) -> Case:
        """The same, smaller and shorter."""
        return replace(
            self,
            seconds=self.quick_seconds,
            points=min(self.points, self.quick_points),
            pulses=60,
            readings_max=QUICK_READINGS_MAX,
            compact=self.compact and self.quick_compact,
            seal_s=2,
            rate=self.rate * min(1.0, self.quick_points / self.points),
            alerts_per_s=min(10.0, 40 / max(self.quick_seconds, 1e-9)),
            past_hour_s=0.0,
        )


class CaseFault(ValueError):  # noqa: N818 - says what happened
    """A case file is wrong; the text says where and why."""


def load_cases(path: Path) -> list[Case]:
    """The cases of a file: one, or one for each value of its ``[sweep]``. Raises CaseFault, OSError."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as fault:
        raise CaseFault(f"{path}: {fault}") from None
    sweep = table.pop("sweep", {})
    table["targets"] = table.pop("target", {})
    known = {f.name for f in fields(Case)} - {"name", "sweep"}
    if unknown := sorted(table.keys() - known):
        raise CaseFault(f"{path}: unknown keys {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    if "title" not in table:
        raise CaseFault(f"{path}: no title")
    case = Case(name=path.stem, **table)
    _check(path, case)
    if len(sweep) > 1 or not sweep.keys() <= set(SWEPT):
        raise CaseFault(f"{path}: [sweep] holds one of {', '.join(SWEPT)}, not {', '.join(sweep)}")
    return list(_swept(case, sweep)) if sweep else [case]


def _swept(case: Case, sweep: dict[str, list[Any]]) -> Iterator[Case]:
    ((key, values),) = sweep.items()
    for value in values:
        name = f"{case.name}-{value:.0f}"
        yield replace(case, name=name, sweep=key, **{key: value})


def _check(path: Path, case: Case) -> None:
    for key, allowed in _CHOICES.items():
        if getattr(case, key) not in allowed:
            raise CaseFault(f"{path}: {key} is one of {', '.join(allowed)}, not {getattr(case, key)!r}")
    if case.qos not in (0, 1) or case.batch < 1 or case.points < 1 or case.connections < 1:
        raise CaseFault(f"{path}: qos is 0 or 1; batch, points and connections are 1 or more")
    for target in case.targets:
        if not target.endswith(("_min", "_max")):
            raise CaseFault(f"{path}: target {target} ends in _min or _max")


def all_cases(folder: Path = CASES) -> list[Case]:
    """Every case of a folder, by file name. Raises CaseFault, OSError."""
    return [case for path in sorted(folder.glob("*.toml")) for case in load_cases(path)]
