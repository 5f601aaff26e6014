"""Columns under construction: what one poll of all connections decoded.

Owns the rows that become one RawBatch, and their order: that of their messages, and within a point that of
measurement. Knows nothing of payloads or topics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from storage.batch import F64, I32, I64, U8, RawBatch, stable_order

Arranging = Callable[[I32, I64, int], bool]
"""Points, times and the poll's time of all rows: times those that are UNTIMED in place, and says whether a
point's times go back (ingest.kernels.arrange)."""

UNTIMED: Final = -(1 << 63)
"""Stands for the time of a reading that brought none, until the order of all rows is known."""
BEHIND: Final = 1 << 30
"""Place of rows whose messages came after all messages of the kernel's."""


@dataclass(slots=True)
class Rows:
    """Room for what a kernel decodes: five columns of one length; ``message`` is where each row came from."""

    point: I32
    time: I64
    value: F64
    device_flag: U8
    message: I32

    @staticmethod
    def room(size: int) -> Rows:
        """Room for ``size`` rows."""
        return Rows(
            np.zeros(size, np.int32),
            np.zeros(size, np.int64),
            np.zeros(size),
            np.zeros(size, np.uint8),
            np.zeros(size, np.int32),
        )

    def __len__(self) -> int:
        return len(self.point)

    def grown(self) -> Rows:
        """The same rows with as much room again."""
        return Rows(
            *(
                np.concatenate([c, np.zeros_like(c)])
                for c in (self.point, self.time, self.value, self.device_flag, self.message)
            )
        )


class Columns:
    """Grows by readings; ``take`` empties it into a RawBatch.

    Times are µs since 1970 UTC. All rows taken together share one ``received_at``: the poll's.
    A kernel's rows stand in ``rows[:filled]``; what the general decoder adds meanwhile has the place of the
    message it came from, so that neither way overtakes the other.
    """

    __slots__ = ("_places", "arranging", "device_flag", "filled", "mixed", "point", "rows", "time", "value")

    def __init__(self, arranging: Arranging | None = None) -> None:
        self.point: list[int] = []
        self.time: list[int] = []
        self.value: list[float] = []
        self.device_flag = bytearray()
        """As far as a device said something; rows behind its end have none."""
        self.arranging = arranging
        self.rows = Rows.room(0)
        self.filled = 0
        self.mixed = False
        """Whether the kernel's own rows are out of their messages' order."""
        self._places: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.point) + self.filled

    def place(self, message: int) -> None:
        """What is added from now on came from this message of the kernel's; BEHIND for none of them."""
        self._places.append((len(self.point), message))

    def add(self, point: int, time_us: int, value: float, device_flag: int) -> None:
        """One reading."""
        if device_flag:
            self._flag((device_flag,))
        self.point.append(point)
        self.time.append(time_us)
        self.value.append(value)

    def extend(
        self, point: list[int], time_us: list[int], value: list[float], device_flag: list[int]
    ) -> None:
        """Many readings; four lists of one length."""
        if any(device_flag):
            self._flag(device_flag)
        self.point.extend(point)
        self.time.extend(time_us)
        self.value.extend(value)

    def extend_at(self, point: list[int], time_us: int, value: list[float], device_flag: bytes) -> None:
        """Many readings of one moment; ``device_flag``: one a reading, or b"" for none."""
        if device_flag:
            self._flag(device_flag)
        self.point += point
        self.time += [time_us] * len(point)
        self.value += value

    def _flag(self, flags: Sequence[int]) -> None:
        """Flags of the rows that are added next."""
        silent = len(self.point) - len(self.device_flag)
        if silent:
            self.device_flag.extend(bytes(silent))
        self.device_flag.extend(flags)

    def time_on_receipt(self, _point: int, _received_at_us: int) -> int:
        """For a reading that brings no time; ``take`` gives it one."""
        return UNTIMED

    def take(self, received_at_us: int) -> RawBatch:
        """Everything added since the last take, in the order of the messages.

        A reading without a time has the poll's, one µs more for each before it of its point: two readings
        of a point in one poll are two readings; at the same µs one would revise the other. Where a point's
        times go back, all rows are put in order of time (stable), so that the journal's order is the order
        of measurement and nothing behind it sorts again.
        """
        if not self.filled and not self.point:
            self._places.clear()
            return RawBatch.empty()
        batch = self._gather(received_at_us)
        self.point.clear()
        self.time.clear()
        self.value.clear()
        self.device_flag.clear()
        self._places.clear()
        self.filled, self.mixed = 0, False
        if self.arranging is not None:
            disordered = self.arranging(batch.point, batch.time, received_at_us)
        else:
            _time_untimed(batch, received_at_us)
            disordered = _goes_back(batch)
        return batch.take(np.argsort(batch.time, kind="stable")) if disordered else batch

    def _gather(self, received_at_us: int) -> RawBatch:
        n, filled, rows = len(self.point), self.filled, self.rows
        received = np.full(n + filled, received_at_us, np.int64)
        if not n:
            # Copies of the rows: the kernel's own are filled again by the next poll.
            taken = np.argsort(rows.message[:filled], kind="stable") if self.mixed else slice(filled)
            return RawBatch(
                rows.point[taken].copy(),
                rows.time[taken].copy(),
                received,
                rows.value[taken].copy(),
                rows.device_flag[taken].copy(),
            )
        flag = np.zeros(n, np.uint8)
        flag[: len(self.device_flag)] = self.device_flag
        batch = RawBatch(
            np.concatenate([rows.point[:filled], np.array(self.point, np.int32)]),
            np.concatenate([rows.time[:filled], np.array(self.time, np.int64)]),
            received,
            np.concatenate([rows.value[:filled], np.array(self.value, np.float64)]),
            np.concatenate([rows.device_flag[:filled], flag]),
        )
        if not filled:
            return batch
        starts, messages = zip((0, BEHIND), *self._places, (n, 0), strict=True)
        places = np.repeat(messages[:-1], np.diff(starts)).astype(np.int32)
        return batch.take(np.argsort(np.concatenate([rows.message[:filled], places]), kind="stable"))


def _time_untimed(batch: RawBatch, received_at_us: int) -> None:
    """Give readings that brought no time theirs."""
    seen: dict[int, int] = {}
    for row in np.flatnonzero(batch.time == UNTIMED).tolist():
        point = int(batch.point[row])
        before = seen.get(point, 0)
        seen[point] = before + 1
        batch.time[row] = received_at_us + before


def ordered(batch: RawBatch) -> RawBatch:
    """Rows in order of time (stable) where any point's go back; else the batch as it is."""
    return batch.take(np.argsort(batch.time, kind="stable")) if _goes_back(batch) else batch


def _goes_back(batch: RawBatch) -> bool:
    """Whether any point's times go back from one row to the next of that point."""
    if len(batch) < 2:
        return False
    by_point = stable_order(batch.point)
    point, time = batch.point[by_point], batch.time[by_point]
    return bool(((point[1:] == point[:-1]) & (time[1:] < time[:-1])).any())
