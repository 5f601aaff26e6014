"""Readings of a turn added up by source: how many, how late in all, and the least late.

Owns one pass over the rows, for four of numpy's that would each look the source up.
"""

from __future__ import annotations

from ingest.kernels.compiling import compiled
from storage.batch import F64, I32, I64


@compiled
def add_up(
    point: I32, time: I64, received_at: I64, source: I32, counted: I64, lateness: F64, least: F64
) -> None:
    """Times in µs, what is added up in seconds. source  by point; the last three by source, changed in place."""
    for row in range(len(point)):
        of = source[point[row]]
        late_s = (received_at[row] - time[row]) / 1e6
        counted[of] += 1
        lateness[of] += late_s
        least[of] = min(least[of], late_s)
