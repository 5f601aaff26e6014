"""JSON of sources with a mapping, good, nearly good and mutated, for tests.fuzz_kernels: from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from ingest.config import Config, SourceSettings
from ingest.routes import Routes
from tests.fuzz_kernels import NOW, Payloads
from tests.tables import point_table

DEVICES, QUANTITIES = ("d1", "d2", "站:3", "7"), ("x", "y.z", "雨")
UNITS: dict[str, dict[str, Any]] = {
    "x": {"factor": 0.1, "offset": -3.0, "missing": [-9999.0, 0.0]},
    "nine": {"as": "x", "missing": [float(n) for n in range(9)]},
    "雨": {"as": "y.z", "factor": 1e200},
}
WORDS = {"好": 1, "odd": 3, "bad": 4}


@dataclass(frozen=True)
class Shape:
    """A source's mapping, and where in a body of its own what is said stands; ``#`` stands before a list of rows.

    form  nested pairs; words in capitals are filled in by name, each row of ``ROWS`` anew
    """

    settings: dict[str, Any]
    form: Any


SHAPES = {
    "named": Shape(
        {"device": "dev", "time": "ts", "quantity": "readings[].n", "value": "readings[].v"},
        {"dev": "DEVICE", "ts": "TIME", "readings": ["ROWS", {"n": "QUANTITY", "v": "VALUE"}]},
    ),
    "metrics": Shape(
        {"device": "dev", "time": "ts", "value": "metrics.*"},
        {"dev": "DEVICE", "ts": "TIME", "metrics": "ENTRIES"},
    ),
    "units": Shape(
        {"device": "dev", "time": "ts", "value": "metrics.*", "quantities": UNITS, "time_unit": "s", "depth_max": 3},
        {"dev": "DEVICE", "ts": "TIME", "metrics": "ENTRIES"},
    ),
    "beside": Shape(
        {"device": "dev", "time": "ts", "value": "*", "quantities": UNITS, "readings_per_message_max": 4},
        {"dev": "DEVICE", "ts": "TIME", "...": "ENTRIES"},
    ),
    "rooted": Shape(
        {"device": "[].id", "quantity": "[].what", "time": "[].ts", "value": "[].v", "flag": "[].q", "time_unit": "us"},
        ["ROWS", {"id": "DEVICE", "what": "QUANTITY", "ts": "TIME", "v": "VALUE", "q": "FLAG"}],
    ),
    "deep": Shape(
        {"device": "head.who.dev", "time": "head.at", "quantity": "data.items[].code", "value": "data.items[].val.num"}
        | {"flag": "data.items[].st", "flags": WORDS, "time_unit": "ns", "time_zone": "Asia/Shanghai"},
        {
            "head": {"who": {"dev": "DEVICE"}, "at": "TIME"},
            "data": {"items": ["ROWS", {"code": "QUANTITY", "val": {"num": "VALUE"}, "st": "WORD"}]},
        },
    ),
    "two": Shape(
        {"device": "stations[].id", "time": "stations[].t", "value": "stations[].m.*.v", "flag": "stations[].m.*.f"},
        {"stations": ["ROWS", {"id": "DEVICE", "t": "TIME", "m": "ENTRIES OF V AND F"}]},
    ),
    "keyed": Shape(
        {"device": "devs.*", "quantity": "=x", "time": "devs.*.t", "value": "devs.*.v", "text_numbers": True},
        {"devs": "DEVICES"},
    ),
    "topic": Shape({"topics": ["topic/{device}/up"], "time": "ts", "value": "m.*"}, {"ts": "TIME", "m": "ENTRIES"}),
}  # fmt: skip


def routes_of_mapped() -> Routes:
    """Every device and quantity at every source, every third point timed on receipt, one retired of each."""
    names = list(SHAPES)
    ids = [(s, device, quantity) for s in range(len(names)) for device in DEVICES for quantity in QUANTITIES]
    table = point_table(len(ids), on_receipt=tuple(range(0, len(ids), 3)))
    table = replace(
        table,
        point_id=[f"{names[s]}-{d}-{q}" for s, d, q in ids],
        sources=names,
        source=np.array([s for s, _, _ in ids], np.int32),
        topic=[""] * len(ids),
        retired=np.array([d == DEVICES[1] and q == QUANTITIES[1] for _, d, q in ids]),
    )
    sources = [
        {"name": name, "topics": [f"{name}/+/up"], "point_id": "{source}-{device}-{quantity}"}
        | shape.settings
        for name, shape in SHAPES.items()
    ]
    return Routes(table, Config(source=[SourceSettings.model_validate(one) for one in sources]))


UNIT_US = {"s": 1_000_000, "ms": 1000, "us": 1, "ns": 0}


class Bodies:
    """Makes bodies from a seed: half of them plain, the others with something odd here and there."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._scalars = Payloads(random)
        self._odds = 0
        self._unit = "ms"

    def _odd(self, one_in: int) -> bool:
        return bool(self._odds) and not self._random.randrange(one_in)

    def scalar(self, what: str) -> str:
        """What stands where a name in capitals stood."""
        r = self._random
        if self._odd(30):
            return r.choice(
                ("null", "true", "1", '"x"', "[]", "{}", '"\\u0078"', "-1", "1.5", "[1]", '{"a":1}', '""')
            )
        if what == "DEVICE":
            return "7" if not r.randrange(9) else f'"{r.choice(DEVICES if self._odds else DEVICES[:1])}"'
        if what == "QUANTITY":
            return f'"{r.choice(QUANTITIES)}"' if not self._odd(20) else r.choice(('"nobody"', '"x "', "3"))
        if what == "VALUE":
            return (
                self._scalars.number()
                if self._odd(3)
                else r.choice((f"{r.randrange(-500, 5000) / 100}", "null", "-9999", "17"))
            )
        if what == "FLAG":
            return r.choice(
                ("0", "1", "4", "9", "null", "5", "1.0", '"1"') if self._odds else ("1", "9", "null")
            )
        if what == "WORD":
            return r.choice(
                ('"好"', '"odd"', "null", '"nobody"', "1", "3") if self._odds else ('"好"', '"odd"', "null")
            )
        us = NOW - r.choice(
            (0, 1, 1000, r.randrange(10**11)) + ((r.randrange(10**12),) if self._odds else ())
        )
        if self._odd(5):
            return r.choice(
                (self._scalars.number(), f'"{self._scalars.iso(us)}"', "null", '"now"', f'"{us // 1000}"')
            )
        if not r.randrange(5):
            return f'"{np.datetime64(us, "us")}{r.choice(("", "Z", "+08:00"))}"'
        return str(us // UNIT_US[self._unit] if UNIT_US[self._unit] else us * 1000)

    def entries(self, keys: tuple[str, ...], form: Any) -> list[tuple[str, str]]:
        """Entries of an object: mostly each once."""
        r = self._random
        names = [
            *r.sample(keys, r.randrange(1, len(keys) + 1)),
            *([r.choice(("nobody", "nine"))] if self._odd(4) else []),
        ]
        if self._odd(8):
            names.append(r.choice(names))
        return [(name, self.body(form)) for name in names]

    def body(self, form: Any) -> str:
        """The text of a form."""
        r = self._random
        b = self._scalars.blank if not r.randrange(5) else str
        if isinstance(form, list):
            rows = [self.body(form[1]) for _ in range(r.randrange(1, 5) - self._odd(20))]
            return "[" + ",".join(f"{b()}{row}{b()}" for row in rows) + "]"
        if isinstance(form, dict):
            pairs = []
            for key, inner in form.items():
                if key == "...":
                    pairs += self.entries(QUANTITIES, "VALUE")
                elif not self._odd(25):
                    pairs.append((key, self.body(inner)))
            if not r.randrange(4):
                pairs.append(
                    (
                        r.choice(("site", "单位", "v2")),
                        r.choice(('"a"', "[1,[2],{}]", '{"v":{"v":1}}', "null", "-0", "{}")),
                    )
                )
            if self._odd(20) and pairs:
                pairs.append(r.choice(pairs))
        elif form == "ENTRIES":
            pairs = self.entries(QUANTITIES, "VALUE")
        elif form == "ENTRIES OF V AND F":
            pairs = self.entries(QUANTITIES, {"v": "VALUE", "f": "FLAG"})
        elif form == "DEVICES":
            pairs = self.entries(DEVICES, {"t": "TIME", "v": "VALUE"})
        else:
            return self.scalar(form)
        if not r.randrange(3):
            r.shuffle(pairs)
        return "{" + ",".join(f'{b()}"{key}"{b()}:{b()}{value}{b()}' for key, value in pairs) + "}"

    def payload(self, shape: Shape) -> bytes:
        """A whole payload, mutated now and then."""
        r = self._random
        self._odds = r.randrange(2)
        self._unit = shape.settings.get("time_unit", "ms")
        many = isinstance(shape.form, dict) and not r.randrange(4)
        made = self.body(["ROWS", shape.form] if many else shape.form).encode()
        return self._scalars.mutated(made) if self._odd(3) else made


def mapped_cases(seed: int, count: int) -> Iterator[tuple[str, bytes, int]]:
    """Topics, payloads and first bytes."""
    random = Random(seed)
    bodies = Bodies(random)
    for _ in range(count):
        name, shape = random.choice(list(SHAPES.items()))
        device = random.choice(DEVICES[:2]) if random.randrange(9) else "nobody"
        yield f"{name}/{device}/up", bodies.payload(shape), random.choice((0x32, 0x32, 0x33, 0x3A))
