"""What is wrong with a registry file, in words; without the columns of what is right (ingest.points).

Owns how many faults are shown and how. Imports nothing, so that an engine can tell faults another process found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

FAULTS_SHOWN_MAX = 100
"""A wrong export is wrong in every row; the first hundred tell the story."""


class RowFault(NamedTuple):
    """What is wrong with a row. ``place`` is "line 7" of a CSV, "row 6" of a Parquet, "" for the file."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


@dataclass(slots=True)
class FoundFaults:
    """faults: the first FAULTS_SHOWN_MAX in the order of the file; faults_count: all of them."""

    path: Path
    faults: Sequence[RowFault] = field(default_factory=list)
    faults_count: int = 0

    def report(self) -> list[str]:
        """The faults as lines for a person, with the number of those left out."""
        lines = [f"{self.path.name}: {fault}" for fault in self.faults]
        if self.faults_count > len(self.faults):
            lines.append(f"{self.path.name}: … and {self.faults_count - len(self.faults):,} more")
        return lines


class RegistryFaults(Exception):  # noqa: N818 (all the faults, not one error)
    """A registry is refused, or an edit and the file left as it was; ``registry`` says what is, or would be, wrong."""

    def __init__(self, registry: FoundFaults) -> None:
        self.registry = registry
        super().__init__("\n".join(registry.report()))
