"""online_rate of the lake against a plain computation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.hot import HotTier
from storage.pointmap import merge
from storage.query import connect, write_lake_sql
from storage.schema import REGISTRY
from tests.storage_rows import HOUR, T0, S, batch, registry

POINTS = 12


def test_online_rate_is_what_channels_said_of_what_they_should(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    table = registry(POINTS)
    district, source = [f"d{p % 2}" for p in range(POINTS)], [f"s{p % 3}" for p in range(POINTS)]
    columns: dict[str, list[Any]] = {
        "kind": ["video"] * (POINTS - 1) + ["lamp"], "district": district, "source": source,
        "interval_s": [60.0] * (POINTS - 2) + [0.0, 60.0],
    }  # fmt: skip
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), REGISTRY.field(name), pa.array(values))
    number = merge(tmp_path, table, T0 - HOUR).number_of()
    rows = [
        (p, T0 + m * 60 * S, float(rng.choice((0, 1, 2, 2))))
        for m in range(-10, 70)
        for p in range(POINTS)
        if rng.random() < 0.9 and not (p == 3 and m > 20)
    ]
    numbered = sorted((number[f"p-{p:05}"], t, v) for p, t, v in rows)
    HotTier(tmp_path).write(1, 1, batch(1, numbered), batch(1, []))
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200)
    until = T0 + HOUR
    found = (
        connect(tmp_path)
        .execute(f"FROM online_rate('video', make_timestamptz({T0}), make_timestamptz({until}))")
        .fetchall()
    )
    expected = []
    for where in sorted({(district[p], source[p]) for p in range(POINTS - 2)}):
        those = [p for p in range(POINTS - 2) if (district[p], source[p]) == where]
        said = {p: [v for q, t, v in rows if q == p and T0 <= t < until] for p in those}
        newest = {p: max((t, v) for q, t, v in rows if q == p) for p in those}
        up = [sum(v > 0 for v in said[p]) for p in those]
        bad = sum(v == 1 for p in those for v in said[p])
        fresh = sum(t > until - 300 * S and v > 0 for t, v in newest.values())
        rate = sum(min(1.0, n * 60 / 3600) for n in up) / len(those)
        expected.append((*where, len(those), round(rate, 9), fresh, round(bad / sum(up), 9)))
    assert [(d, s, n, round(r, 9), now, round(b, 9)) for d, s, n, r, now, b in found] == expected
