"""SenML packs, good, nearly good and mutated, for tests.fuzz_kernels: sources, points and payloads from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from ingest.config import Config, SourceSettings
from ingest.routes import Routes
from ingest.sourcesettings import QuantitySettings
from tests.fuzz_kernels import NOW, Payloads
from tests.tables import point_table

NOW_S = NOW // 1_000_000
DEVICES, QUANTITIES = ("d1", "d2", "mac:01"), ("x", "y.z", "w")
UNITS = {
    "x": {"factor": 0.1, "offset": -3.0, "missing": [-9999.0, 0.0]},
    "y.z": {"missing": [float(n) for n in range(9)]},
    "w": {"as": "y.z", "factor": 1e200},
}
SOURCES = (
    SourceSettings(name="plain", codec="senml", topics=["plain/+/up"], missing_values=[-9999.0, 5000.0]),
    SourceSettings(name="topic", codec="senml", topics=["topic/{device}/up"]),
    SourceSettings.model_validate(
        {"name": "units", "codec": "senml", "topics": ["units/up"], "quantities": UNITS}
        | {"senml": {"name": "urn:dev:{device}:{quantity}"}, "readings_per_message_max": 4}
    ),
    SourceSettings(name="small", codec="senml", message_bytes_max=150, missing_values=[0.0]),
)
RECORD_LABELS = (
    "ut",
    "foo",
    "x_",
    "_",
    "s",
    "bv",
    "bs",
    "vs",
    "vd",
    "bver",
    "u",
    "bu",
    "n",
    "v",
    "t",
    "bn",
    "bt",
    "",
    "单位",
)


def routes_of_packs(units: dict[str, dict[str, Any]] | None = None) -> Routes:
    """Every device and quantity at every source, every third point timed on receipt, one retired."""
    ids = [
        (source, device, quantity)
        for source in range(len(SOURCES))
        for device in DEVICES
        for quantity in QUANTITIES
    ]
    table = point_table(len(ids), on_receipt=tuple(range(0, len(ids), 3)))
    names = [source.name for source in SOURCES]
    retired = np.zeros(len(ids), bool)
    retired[4] = True
    table = replace(
        table,
        point_id=[f"{names[s]}-{d}-{q}" for s, d, q in ids],
        sources=names,
        source=np.array([s for s, _, _ in ids], np.int32),
        topic=[f"own/{d}/{q}" if names[s] == "small" else "" for s, d, q in ids],
        retired=retired,
    )
    made = [source.model_copy(update={"point_id": "{source}-{device}-{quantity}"}) for source in SOURCES]
    if units is not None:
        quantities = {name: QuantitySettings.model_validate(one) for name, one in units.items()}
        made = [source.model_copy(update={"quantities": quantities}) for source in made]
    return Routes(table, Config(source=made))


class Packs:
    """Makes packs from a seed: mostly such as a kernel takes, often nearly such."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._scalars = Payloads(random)
        self._odds = 0

    def _odd(self, one_in: int) -> bool:
        """Whether something is out of the ordinary here, in a pack in which that may be."""
        return bool(self._odds) and not self._random.randrange(one_in)

    def name(self, source: SourceSettings) -> tuple[str, str]:
        """What stands before a name, and the name; together mostly one that is known."""
        r = self._random
        device, quantity = r.choice(DEVICES), r.choice(QUANTITIES)
        whole = {"topic": quantity, "units": f"urn:dev:{device}:{quantity}"}.get(
            source.name, f"{device}:{quantity}"
        )
        if self._odd(30):
            whole = r.choice(
                ("nobody:x", "", "d1", "雨:量", "d1:" + "x" * r.choice((90, 600)), "-a:x", "d1:\\u0078")
            )
        cut = r.choice((0, len(whole), whole.rfind(":") + 1, r.randrange(len(whole) + 1)))
        return whole[:cut], whole[cut:]

    def seconds(self, base: bool) -> str:
        """A time in seconds: absolute, relative to a base, to now, or none."""
        r = self._random
        kind = r.randrange(24 if self._odds else 15)
        if kind < 8:
            return str(NOW_S - r.choice((0, 1, 59, r.randrange(10**6)))) if base else str(-r.randrange(4000))
        if kind < 14:
            at = NOW_S - r.randrange(4000) if base else -r.randrange(10**6)
            return f"{at + r.random():.{r.randrange(1, 9)}f}"
        if kind < 16:
            return "0" if self._odds or not base else str(NOW_S)
        if kind < 18:
            return str(-r.randrange(10**6))
        return r.choice(
            (
                self._scalars.number(),
                "1.79e9",
                f"{1 << 28}",
                f"{(1 << 28) - 1}.5",
                "null",
                '"1"',
                "true",
                "1e400",
                "-0.0",
            )
        )

    def value(self) -> str:
        """What stands behind v."""
        r = self._random
        if not r.randrange(25):
            return r.choice(
                ("null", "true", '"1"', "NaN", "Infinity", "[1]", "{}", "-9999", "0", "5000", "-0")
            )
        return self._scalars.number() if self._odd(4) else f"{r.randrange(-500, 5000) / 100}"

    def record(self, source: SourceSettings, base: str | None, name: str) -> str:
        """One record."""
        r = self._random
        if self._odd(60):
            return r.choice(("{}", "[]", "null", "1", '{"bn":"d1:"}', '{"bt":1}', '{"n":"x"}'))
        fields = [] if base is None else [("bn", f'"{base}"')]
        if base is not None and not self._odd(6):
            fields.append(("bt", self.seconds(True)))
        if name or not r.randrange(3):
            fields.append(("n", f'"{name}"'))
        if r.randrange(40):
            fields.append(
                ("v", self.value()) if r.randrange(10) else ("vb", r.choice(("true", "false", "1")))
            )
        if not r.randrange(2):
            fields.append(("t", self.seconds(False)))
        if not r.randrange(4):
            fields.append((r.choice(("u", "bu")), '"Cel"'))
        if self._odd(20):
            extra = r.choice(
                ("1", "10", "26", "11", '"text"', '"\\n"', "null", "true", "[1]", self._scalars.number())
            )
            fields.append((r.choice(RECORD_LABELS), extra))
        if self._odd(30) and fields:
            fields.append(r.choice(fields))
        if not r.randrange(3):
            r.shuffle(fields)
        b = self._scalars.blank if not r.randrange(4) else str
        return "{" + ",".join(f'{b()}"{label}"{b()}:{b()}{value}{b()}' for label, value in fields) + "}"

    def pack(self, source: SourceSettings) -> bytes:
        """A whole pack, mutated now and then."""
        r = self._random
        self._odds = r.randrange(2)
        records = []
        before = ""
        for number in range(r.choice((1, 1, 2, 3, 3, 4, 4, 5, 12)) - self._odd(9)):
            base, name = self.name(source)
            fresh = not number or not r.randrange(6)
            if fresh:
                before = base
            elif not self._odd(10):
                whole = base + name
                name = whole[len(before) :] if whole.startswith(before) else r.choice(QUANTITIES)
            records.append(self.record(source, before if fresh else None, name))
        made = f"{self._scalars.blank()}[{','.join(records)}]{self._scalars.blank()}".encode()
        return self._scalars.mutated(made) if self._odd(3) else made


def pack_cases(seed: int, count: int) -> Iterator[tuple[str, bytes, int]]:
    """Topics, payloads and first bytes."""
    random = Random(seed)
    packs = Packs(random)
    for _ in range(count):
        source = random.choice(SOURCES)
        device = random.choice(DEVICES[:2]) if random.randrange(9) else "nobody"
        topic = {
            "plain": f"plain/{device}/up",
            "topic": f"topic/{device}/up",
            "units": "units/up",
            "small": f"own/{random.choice(DEVICES)}/{random.choice(QUANTITIES)}",
        }[source.name]
        yield topic, packs.pack(source), random.choice((0x32, 0x32, 0x33, 0x3A))
