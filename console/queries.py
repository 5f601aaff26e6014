"""Library: the saved queries there are, of the package and of an own folder, read again when a file changes.

Owns the folders and which file stands for a name. What a file may be is console.queryfiles; the lake is not asked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from console.queryfiles import FILE_BYTES_MAX, GROUPS, Query, QueryFault, read

FILES_MAX: Final = 500
"""Of a folder: more is no list a person reads."""


def shipped() -> Path:
    """The folder of the queries that come with the package."""
    inside = Path(__file__).with_name("queries")
    return inside if inside.is_dir() else Path(__file__).resolve().parents[1] / "configs" / "queries"


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that is passed over, and why."""

    file: str
    fault: str


@dataclass(slots=True)
class Library:
    """Of two files of one name the own one counts. ``look`` reads what changed.

    own  a folder beside the package's; None for none
    """

    own: Path | None = None
    queries: dict[str, Query] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    _known: dict[Path, tuple[tuple[int, int], Query | Broken]] = field(default_factory=dict)

    def look(self) -> None:
        """Bring ``queries``, in the order of the page, and ``broken`` up to date."""
        found: dict[str, Query] = {}
        broken: list[Broken] = []
        known = {}
        for folder in (shipped(), self.own):
            if folder is None:
                continue
            if not folder.is_dir():
                broken.append(Broken(str(folder), "there is no such folder"))
                continue
            for path in sorted(folder.glob("*.sql"))[:FILES_MAX]:
                if path.name.startswith("."):
                    continue
                known[path] = one = self._read(path)
                if isinstance(one[1], Query):
                    found[one[1].name] = one[1]
                else:
                    broken.append(one[1])
        self._known = known
        order = sorted(found.values(), key=_place)
        self.queries, self.broken = {query.name: query for query in order}, broken

    def _read(self, path: Path) -> tuple[tuple[int, int], Query | Broken]:
        try:
            stat = path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            before = self._known.get(path)
            if before is not None and before[0] == stamp:
                return before
            if stat.st_size > FILE_BYTES_MAX:
                raise QueryFault(f"longer than {FILE_BYTES_MAX} bytes")
            return stamp, read(path.stem, path.read_text("utf-8"))
        except QueryFault as fault:
            return stamp, Broken(path.name, str(fault))
        except UnicodeDecodeError as fault:
            return stamp, Broken(path.name, f"not UTF-8 (byte {fault.start})")
        except OSError as fault:
            return (0, 0), Broken(path.name, f"cannot be read: {fault.strerror}")


def _place(query: Query) -> tuple[int, bool, str]:
    """By group, what makes a chart first, by name."""
    return GROUPS.index(query.head.group), query.head.chart is None, query.name


def told(query: Query) -> dict[str, Any]:
    """A query as the API lists it."""
    said = query.head.model_dump(exclude={"parameters"})
    parameters = [
        {
            "name": name,
            **one.model_dump(exclude={"choices"}),
            "choices": [c.model_dump() for c in one.choice_list()],
        }
        for name, one in query.head.parameters.items()
    ]
    return {"name": query.name, **said, "parameters": parameters}
