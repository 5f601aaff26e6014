"""A small registry as a PointTable, for tests that need points and no files."""

from __future__ import annotations

import numpy as np

from storage.points import PointTable


def point_table(
    n: int = 4, *, gateways: int = 2, source: str = "flood", on_receipt: tuple[int, ...] = ()
) -> PointTable:
    """n points `p0`… with topics `cd/g0/p0`…; point i belongs to gateway i % gateways."""
    zeros = np.zeros(n)
    codes = np.zeros(n, np.int32)
    gateway = (np.arange(n) % gateways).astype(np.int32)
    time_from = np.zeros(n, np.uint8)
    time_from[list(on_receipt)] = 1
    return PointTable(
        point_id=[f"p{i}" for i in range(n)],
        name=[f"点 {i}" for i in range(n)],
        device_id=[f"d{i}" for i in range(n)],
        topic=[f"cd/g{i % gateways}/p{i}" for i in range(n)],
        unit=["cm"] * n,
        gateway=gateway,
        source=codes.copy(),
        kind=codes.copy(),
        district=codes.copy(),
        gateways=[f"g{i}" for i in range(gateways)],
        sources=[source],
        kinds=["river_level"],
        districts=["锦江区"],
        lon=zeros + 104.06,
        lat=zeros + 30.66,
        interval_s=zeros + 1.0,
        time_from=time_from,
        range_min=zeros - 100.0,
        range_max=zeros + 1000.0,
        level=np.tile(np.array([[10.0], [15.0], [25.0], [40.0]]), (1, n)),
        level_gap=zeros + 1.0,
        falling=np.zeros(n, bool),
        upstream=codes - 1,
        retired=np.zeros(n, bool),
    )
