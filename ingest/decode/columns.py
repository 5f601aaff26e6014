"""Columns under construction: what one poll of all connections decoded.

Owns the lists that become one RawBatch. Knows nothing of payloads or topics.
"""

from __future__ import annotations

import numpy as np

from storage.batch import RawBatch, stable_order


class Columns:
    """Grows by readings; ``take`` empties it into a RawBatch.

    Times are µs since 1970 UTC. All rows taken together share one ``received_at``: the poll's.
    """

    __slots__ = ("_on_receipt", "device_flag", "point", "time", "value")

    def __init__(self) -> None:
        self.point: list[int] = []
        self.time: list[int] = []
        self.value: list[float] = []
        self.device_flag: dict[int, int] = {}
        """Row to flag, only where a device said something: nearly never."""
        self._on_receipt: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.point)

    def add(self, point: int, time_us: int, value: float, device_flag: int) -> None:
        """One reading."""
        if device_flag:
            self.device_flag[len(self.point)] = device_flag
        self.point.append(point)
        self.time.append(time_us)
        self.value.append(value)

    def extend(
        self, point: list[int], time_us: list[int], value: list[float], device_flag: list[int]
    ) -> None:
        """Many readings; four lists of one length."""
        if any(device_flag):
            row = len(self.point)
            self.device_flag.update({row + i: flag for i, flag in enumerate(device_flag) if flag})
        self.point.extend(point)
        self.time.extend(time_us)
        self.value.extend(value)

    def time_on_receipt(self, point: int, received_at_us: int) -> int:
        """µs for a reading that brings no time: the poll's, one more for each before it of this point.

        Two readings of a point in one poll are two readings; at the same µs one would revise the other.
        """
        before = self._on_receipt.get(point, 0)
        self._on_receipt[point] = before + 1
        return received_at_us + before

    def take(self, received_at_us: int) -> RawBatch:
        """Everything added since the last take.

        Where a point repeats, rows are put in order of time (stable), so that the journal's order is the
        order of measurement and nothing behind it sorts again.
        """
        n = len(self.point)
        flag = np.zeros(n, np.uint8)
        for row, value in self.device_flag.items():
            flag[row] = value
        batch = RawBatch(
            np.array(self.point, np.int32),
            np.array(self.time, np.int64),
            np.full(n, received_at_us, np.int64),
            np.array(self.value, np.float64),
            flag,
        )
        self.point.clear()
        self.time.clear()
        self.value.clear()
        self.device_flag.clear()
        self._on_receipt.clear()
        return _ordered(batch)


def _ordered(batch: RawBatch) -> RawBatch:
    """Rows of each point by time, if any point repeats out of order; else the batch as it is."""
    n = len(batch)
    if n < 2:
        return batch
    by_point = stable_order(batch.point)
    point, time = batch.point[by_point], batch.time[by_point]
    if not bool(((point[1:] == point[:-1]) & (time[1:] < time[:-1])).any()):
        return batch
    return batch.take(np.argsort(batch.time, kind="stable"))
