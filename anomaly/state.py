"""State: everything the checks and episodes remember of every point, as arrays by dense number.

Owns the arrays' names, types and growth. Knows nothing of what is in them and nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anomaly.checks import all_checks, row_rules
from anomaly.checks.rows import BELIEVED, NO_TIME, Field

ORDER_FIELDS: Final = (
    Field("last_t", "i8", NO_TIME),
    Field("last_v", "f8", np.nan),
    Field("last_flag", "u1", 0),
    Field("last_received", "i8", NO_TIME),
)
"""last_t: newest time of the point in journal order, µs. last_v and last_flag: value and device flag last
received for that time, so that an exact repeat is known. last_received: when its newest main reading came."""

EPISODE_FIELDS: Final = (
    *(Field(f"{rule}_phase", "u1", 0) for rule in row_rules()),
    *(Field(f"{rule}_steady", "u1", 0) for rule in row_rules()),
    *(Field(f"{rule}_peak", "f8", -np.inf) for rule in row_rules()),
    Field("dead_phase", "u1", 0),
)
"""phase: episodes.Phase. steady: the class in which the point's episode has nothing new to say, 0 where every
row must be looked at. peak: worst value of the open episode, negated where falling."""


class State:
    """Named arrays of ``n`` points. One engine's; changed in place by its checks."""

    def __init__(self, n: int, fields: Iterable[Field] | None = None) -> None:
        if fields is None:
            fields = (
                *ORDER_FIELDS,
                *BELIEVED,
                *(field for check in all_checks() for field in check.fields),
                *EPISODE_FIELDS,
            )
        self._fields = {field.name: field for field in fields}
        self._arrays = {field.name: _filled(field, n) for field in self._fields.values()}
        self.n = n

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The live arrays by name; copy them to keep an instant."""
        return dict(self._arrays)

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over saved arrays; points and fields that were not saved start unseen.

        Raises ValueError where a saved array has another type or more points than this state.
        """
        for name, field in self._fields.items():
            fresh = _filled(field, self.n)
            saved = arrays.get(name)
            if saved is not None:
                if saved.dtype != fresh.dtype or saved.shape[:-1] != field.lead or saved.shape[-1] > self.n:
                    was, kept = f"{saved.dtype}{saved.shape}", f"{fresh.dtype}{fresh.shape}"
                    raise ValueError(f"state {name}: {was} was saved, {kept} is kept")
                fresh[..., : saved.shape[-1]] = saved
            self._arrays[name] = fresh

    def grow(self, n: int) -> None:
        """Room for ``n`` points, the new ones unseen. Numbers are never reused, so it never shrinks."""
        if n < self.n:
            raise ValueError(
                f"state holds {self.n} points, asked for {n}: point numbers are never taken back"
            )
        saved = self._arrays
        self.n = n
        self.restore(saved)


def _filled(field: Field, n: int) -> npt.NDArray[Any]:
    return np.full((*field.lead, n), field.fill, dtype=field.dtype)
