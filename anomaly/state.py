"""State: everything the checks and episodes remember of every point, as arrays by dense number.

Owns the arrays' names, types and growth. Knows nothing of what is in them and nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from anomaly import rules
from anomaly.checks import all_checks
from anomaly.checks.rows import BELIEVED, NO_TIME, Field
from anomaly.checks.surprise import FIELDS as SCORE_FIELDS
from anomaly.checks.unusual import FIELDS as UNUSUAL_FIELDS
from anomaly.rulebook import followed

ORDER_FIELDS: Final = (
    Field("last_t", "i8", NO_TIME),
    Field("last_v", "f8", np.nan),
    Field("last_flag", "u1", 0),
    Field("last_received", "i8", NO_TIME),
)
"""last_t: newest time of the point in journal order, µs. last_v and last_flag: value and device flag last
received for that time, so that an exact repeat is known. last_received: when its newest main reading came."""

NEIGHBOUR_FIELDS: Final = (
    Field("off_since", "i8", NO_TIME),
    Field("drift_mean", "f8", 0.0),
    Field("neighbours_phase", "u1", 0),
    Field("drift_phase", "u1", 0),
)
"""off_since: since when a point disagrees with its neighbours, µs. drift_mean: by how many of their deviations over a
day. phase: episodes.Phase of the two faults."""


def episode_fields() -> tuple[Field, ...]:
    """What episodes remember of each point, for every rule that follows readings.

    phase: episodes.Phase. steady: the class in which the point's episode has nothing new to say, 0 where every
    row must be looked at. peak: worst value of the open episode, negated where low is worse. class: of the newest
    row, of the city's rules.
    """
    return (
        *(Field(f"{rule}_phase", "u1", 0) for rule in followed()),
        *(Field(f"{rule}_steady", "u1", 0) for rule in followed()),
        *(Field(f"{rule}_peak", "f8", -np.inf) for rule in followed()),
        *(Field(f"{rule.name}_class", "u1", 0) for rule in rules.row_rules()),
        Field("dead_phase", "u1", 0),
    )


class State:
    """Named arrays of ``n`` points. One engine's; changed in place by its checks."""

    def __init__(self, n: int, fields: Sequence[Field] | None = None) -> None:
        if fields is None:
            fields = (
                *ORDER_FIELDS,
                *BELIEVED,
                *(field for check in all_checks() for field in check.fields),
                *SCORE_FIELDS,
                *UNUSUAL_FIELDS,
                *NEIGHBOUR_FIELDS,
                *(field for rule in rules.row_rules() for field in rule.fields),
                *episode_fields(),
            )
        self._fields = {field.name: field for field in fields}
        self._sparse = tuple(dict.fromkeys(field.of for field in fields if field.of is not None))
        for of in self._sparse:
            self._fields[f"{of}_place"] = Field(f"{of}_place", "i4", -1)
        self._arrays = {field.name: _filled(field, 0 if field.of else n) for field in self._fields.values()}
        self.n = n

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The live arrays by name; copy them to keep an instant."""
        return dict(self._arrays)

    @property
    def live(self) -> Mapping[str, npt.NDArray[Any]]:
        """The live arrays by name, without a copy of the table of names: for those who ask many times a tick."""
        return self._arrays

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over saved arrays; points and fields that were not saved start unseen.

        Raises ValueError where a saved array has another type or more points than this state.
        """
        for name, field in self._fields.items():
            n = self.n if field.of is None else _places(arrays, field.of)
            fresh = _filled(field, n)
            saved = arrays.get(name)
            if saved is not None:
                if saved.dtype != fresh.dtype or saved.shape[:-1] != field.lead or saved.shape[-1] > n:
                    was, kept = f"{saved.dtype}{saved.shape}", f"{fresh.dtype}{fresh.shape}"
                    raise ValueError(f"state {name}: {was} was saved, {kept} is kept")
                fresh[..., : saved.shape[-1]] = saved
            self._arrays[name] = fresh

    def place(self, limits: Mapping[str, npt.NDArray[Any]]) -> None:
        """Give every point of a mask that sparse fields follow its place in them; a mask not in ``limits`` has none.

        Places are given in the order of points and never taken back, so a snapshot's places stay what they were.
        """
        for of in self._sparse:
            at = self._arrays[f"{of}_place"]
            new = (
                np.flatnonzero(limits[of] & (at[: len(limits[of])] < 0))
                if of in limits
                else np.empty(0, np.intp)
            )
            if not len(new):
                continue
            places = _places(self._arrays, of)
            at[new] = np.arange(places, places + len(new), dtype=np.int32)
            for field in self._fields.values():
                if field.of == of:
                    more = _filled(field, len(new))
                    self._arrays[field.name] = np.concatenate((self._arrays[field.name], more), axis=-1)

    def grow(self, n: int) -> None:
        """Room for ``n`` points, the new ones unseen. Numbers are never reused, so it never shrinks."""
        if n < self.n:
            raise ValueError(
                f"state holds {self.n} points, asked for {n}: point numbers are never taken back"
            )
        saved = self._arrays
        self.n = n
        self.restore(saved)


def _places(arrays: Mapping[str, npt.NDArray[Any]], of: str) -> int:
    """How many places the sparse fields of a mask have."""
    places = arrays.get(f"{of}_place")
    return 0 if places is None else int(places.max(initial=-1)) + 1


def _filled(field: Field, n: int) -> npt.NDArray[Any]:
    order: Literal["F", "C"] = "F" if field.side_by_side else "C"
    return np.full((*field.lead, n), field.fill, dtype=field.dtype, order=order)
