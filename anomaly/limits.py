"""What each point is held to, as arrays by dense number.

Owns the expansion of settings by kind and of the registry's columns into the arrays checks read. Knows
nothing of readings or state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.settings import CheckSettings, KindSettings
from storage.batch import US_PER_S
from storage.points import PointTable

NO_SETTINGS = KindSettings.model_validate({})
Limits = dict[str, npt.NDArray[Any]]

NEVER_US = np.int64(1 << 60)
"""A silence nobody reaches (36,500 years): for points without an expected interval."""


def limits_of(points: PointTable, kinds: Mapping[str, KindSettings], checks: CheckSettings) -> Limits:
    """Every limit of every point; names and dtypes stand in the docstrings of the checks that read them.

    Beside those: alert bool (may alert at all), confirm int64 (readings), expects bool (can be dead).
    A kind without settings has none of the limits a kind can give.
    """
    settings = [kinds.get(name, NO_SETTINGS) for name in points.kinds] or [NO_SETTINGS]

    def by_kind(value: Callable[[KindSettings], float | bool | None], dtype: str) -> npt.NDArray[Any]:
        per_kind = [np.nan if (v := value(kind)) is None else v for kind in settings]
        return np.array(per_kind, dtype=dtype)[points.kind]

    sign = np.where(points.falling, -1.0, 1.0)
    level = points.level * sign
    silence = np.maximum(checks.dead_intervals * points.interval_s, checks.dead_s_min) * US_PER_S
    expects = (points.interval_s > 0) & ~points.retired
    return {
        "range_min": points.range_min,
        "range_max": points.range_max,
        "rate_max_per_s": by_kind(lambda k: k.rate_max_per_s, "f8"),
        "spike_max": by_kind(lambda k: k.spike_max, "f8"),
        "anomaly_alert": by_kind(lambda k: k.anomaly_alert, "?"),
        "neighbour_sigmas": by_kind(lambda k: k.neighbour_sigmas, "f8"),
        "neighbour_floor": by_kind(lambda k: k.neighbour_floor, "f8"),
        "drift_sigmas": by_kind(lambda k: k.drift_sigmas, "f8"),
        "flat_line_us": by_kind(lambda k: (k.flat_line_s or 0) * US_PER_S, "i8"),
        "flat_skip_zero": by_kind(lambda k: k.flat_line_skip_zero, "?"),
        "level": level,
        "level_first": np.nan_to_num(np.fmin.reduce(level, axis=0), nan=np.inf),
        "level_gap": np.nan_to_num(points.level_gap, nan=0.0),
        "sign": sign,
        "confirm": by_kind(lambda k: k.confirm_readings, "i8"),
        "alert": by_kind(lambda k: k.alert, "?") & ~points.retired,
        "expects": expects,
        "silence_us": np.where(points.interval_s > 0, silence, NEVER_US).astype(np.int64),
    }
