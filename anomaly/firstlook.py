"""First look: everything a batch is asked before the score, in one compiled loop over its readings.

Owns the loop that tells main, late and repeat apart and holds each reading to the checks there are, point by point, as
anomaly.order and anomaly.checks define it in columns: the same flags, classes and state to the last bit. One after the
other they would look up every point a dozen times, and on ticks of a few thousand readings their calls alone would
cost more than what they do. Only called where numba is installed and the checks are those below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from anomaly.checks import flat_line, gross_range, level, rate_of_change, spike
from anomaly.checks.flat_line import longer, stands_still
from anomaly.checks.gross_range import outside
from anomaly.checks.level import entered
from anomaly.checks.rate_of_change import too_fast
from anomaly.checks.rows import Arrays, Index, RowCheck, Rows
from anomaly.checks.spike import stands_apart
from anomaly.order import LATE, MAIN, REPEAT
from storage.batch import U8, U32, Bool, RawBatch, stable_order
from storage.fast import compiled, unsigned
from storage.flags import DEVICE_SILENT, FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT, bit

CHECKS: Final[frozenset[RowCheck]] = frozenset(
    one.CHECK for one in (flat_line, gross_range, level, rate_of_change, spike)
)
"""Those that the loop holds; with any other the checks run one by one."""
LEVELS: Final = level.LEVELS
DEVICE, GROSS, RATE, FLAT, LEVEL, SPIKE = (
    bit(name) for name in ("device", "gross_range", "rate_of_change", "flat_line", "level", "spike")
)


@dataclass(slots=True)
class Met:
    """n rows of a batch, in its order, and the m of them that checks with a memory may learn from.

    verdict  uint8[n] MAIN, LATE or REPEAT
    flag     uint8[n] QARTOD, of the device and the checks so far
    checks   uint32[n] bits of those that objected
    skipped  bool[n] where a check raised; None where none did
    seen     the m rows: main, with a value, and in doubt neither to their device nor to a stateless check
    row      intp[m] their positions in the batch
    classes  uint8[m] of the checks that rules follow, by name; None where all checks with a memory have yet to run
    sound    bool[m]: no check doubted it either; None where those have yet to run
    some     by name, whether any of these classes is above 0, as far as that is known
    """

    verdict: U8
    flag: U8
    checks: U32
    skipped: Bool | None
    seen: Rows
    row: Index
    classes: dict[str, U8] | None
    sound: Bool | None
    some: dict[str, bool]

    def skip(self, rows: Index) -> None:
        """``rows`` of the batch were not evaluated by some check."""
        if self.skipped is None:
            self.skipped = np.zeros(len(self.flag), np.bool_)
        self.skipped[rows] = True


def first_look(raw: RawBatch, limits: Arrays, state: Arrays) -> Met:
    """Meet ``raw`` (n >= 1 rows), and move on the state of order and checks."""
    n = len(raw)
    verdict, flag, checks = np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.uint32)
    at, row, first = np.empty(n, np.intp), np.empty(n, np.intp), np.empty(n, np.intp)
    time, value, start = np.empty(n, np.int64), np.empty(n), np.empty(n, np.bool_)
    before_t, before_v = np.empty(n, np.int64), np.empty(n)
    stuck, levels, sound = np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.bool_)
    columns = raw.point, raw.time, raw.received_at, raw.value, raw.device_flag
    known = (
        *(limits[name] for name in ("range_min", "range_max", "rate_max_per_s", "spike_max")),
        *(limits[name] for name in ("flat_line_us", "silence_us", "flat_skip_zero")),
        *(limits[name] for name in ("sign", "level_first", "level", "level_gap")),
    )
    kept = (
        *(state[f"last_{name}"] for name in ("t", "v", "flag", "received")),
        *(state[name] for name in ("believed_t", "believed_v", "spike_base", "flat_us", "level_mask")),
    )
    m, groups, said = _each(
        stable_order(raw.point, loop=True),
        # Views of the journal are read-only, for which the loop would be compiled once more.
        tuple(column if column.flags.writeable else column.copy() for column in columns),
        known,
        kept,
        (verdict, flag, checks),
        (at, row, first, time, value, start, before_t, before_v, stuck, levels, sound),
    )
    seen = Rows(at[:m], time[:m], value[:m], start[:m], first[:groups], before_t[:m], before_v[:m])
    classes = {"flat_line": stuck[:m], "level": levels[:m]}
    some = {"flat_line": bool(said & FLAT), "level": bool(said & LEVEL)}
    return Met(verdict, flag, checks, None, seen, row[:m], classes, sound[:m], some)


@compiled
def _each(
    order: Index,
    columns: tuple[Any, ...],
    known: tuple[Any, ...],
    kept: tuple[Any, ...],
    flags: tuple[U8, U8, U32],
    met: tuple[Any, ...],
) -> tuple[int, int, int]:
    """How many rows are seen, of how many points, and the bits of all of them together."""
    point, time, received_at, value, device_flag = columns
    range_min, range_max, rate_max, spike_max, flat_line_us, silence_us, skip_zero = known[:7]
    sign, level_first, level_of, level_gap = known[7:]
    last_t, last_v, last_flag, last_received = kept[:4]
    believed_t, believed_v, spike_base, flat_us, level_mask = kept[4:]
    verdict, flag, checks = flags
    seen_point, seen_row, first, seen_time, seen_value, start, before_time, before_value = met[:8]
    stuck, levels, sound = met[8:]
    m, groups, one = unsigned(0), unsigned(0), unsigned(1)
    of_group, all_bits = unsigned(1 << 63), 0
    last_bits = last_v.view(np.int64)
    bits_of = value.view(np.int64)
    for k in range(len(order)):
        i = unsigned(order[k])
        p, now, x, said = unsigned(point[i]), time[i], value[i], device_flag[i]
        place = MAIN
        if now > last_t[p]:
            last_received[p] = received_at[i]
        elif now == last_t[p] and bits_of[i] == last_bits[p] and said == last_flag[p]:
            place = REPEAT
        else:
            place = LATE
        verdict[i] = place
        if now >= last_t[p]:
            last_t[p], last_v[p], last_flag[p] = now, x, said

        found, bits = GOOD if said in (DEVICE_SILENT, NOT_EVALUATED) else np.int64(said), 0
        if said in (SUSPECT, FAIL, MISSING):
            bits = DEVICE
        if outside(x, range_min[p], range_max[p]):
            found, bits = FAIL, bits | GROSS
        if x != x:
            found = MISSING
        if place == MAIN and found == GOOD:
            then, was = believed_t[p], believed_v[p]
            believed_t[p], believed_v[p] = now, x
            if too_fast(now, x, then, was, rate_max[p]):
                found, bits = SUSPECT, bits | RATE
            base = spike_base[p]
            if stands_apart(x, was, base, spike_max[p]):
                found, bits = SUSPECT, bits | SPIKE
                spike_base[p] = was if np.isnan(base) else base
            elif not np.isnan(base):
                spike_base[p] = np.nan
            same = stands_still(x, was, skip_zero[p])
            still = longer(flat_us[p], now - then, silence_us[p]) if same else 0
            flat_us[p] = still
            stuck[m] = still >= flat_line_us[p] and flat_line_us[p] > 0
            if stuck[m]:
                found, bits = SUSPECT, bits | FLAT
            signed, mask, cls = x * sign[p], level_mask[p], 0
            if mask != 0 or signed >= level_first[p]:
                for step in range(LEVELS):
                    mask = entered(mask, step, signed, level_of[step, p], level_gap[p])
                    if mask & 1 << step:
                        cls = step + 1
                level_mask[p] = mask
                if cls:
                    bits |= LEVEL
            levels[m] = cls
            seen_point[m], seen_row[m], seen_time[m], seen_value[m] = p, i, now, x
            before_time[m], before_value[m] = then, was
            start[m] = p != of_group
            if p != of_group:
                first[groups] = m
                groups += one
                of_group = p
            sound[m] = found == GOOD
            all_bits |= bits
            m += one
        flag[i], checks[i] = found, bits
    return int(m), int(groups), all_bits
