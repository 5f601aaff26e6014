"""The registry's CSV as text: records with their lines, and edits that leave every other line alone.

Owns how a CSV is cut into records and written back. Knows no column's meaning. UTF-8, with or without a
byte order mark; a line that begins with # is a comment, a blank line is nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One record, or a comment or blank line (``cells`` is None).

    line   1-based number of its first line
    raw    its text with the line end
    error  why it is no record, "" where it is one
    """

    line: int
    raw: str
    cells: list[str] | None
    error: str = ""


def records(text: str) -> Iterator[Record]:
    """Every record and comment of a CSV in order. A record may run over lines inside quotes."""
    begun = ""
    first = 0
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if not begun:
            first = number
            if line.startswith("#") or not line.strip():
                yield Record(number, line, None)
                continue
        begun += line
        # Quotes inside a quoted cell are doubled, so an even count means that all are closed.
        if begun.count('"') % 2 == 0:
            yield _record(first, begun)
            begun = ""
    if begun:
        yield Record(first, begun, [], "a quote is not closed")


def _record(line: int, raw: str) -> Record:
    if '"' not in raw:
        # Nearly every record; the csv module would take five times as long one line at a time.
        return Record(line, raw, raw.rstrip("\r\n").split(","))
    try:
        return Record(line, raw, next(csv.reader(io.StringIO(raw, newline=""), strict=True)))
    except (csv.Error, StopIteration) as error:
        return Record(line, raw, [], f"not CSV: {error}")


def written(cells: Sequence[str]) -> str:
    """One record as a line. A cell that would read as a comment is quoted.

    >>> written(["a", "b,c", ""]).rstrip()
    'a,"b,c",'
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    line = out.getvalue()
    if line.startswith("#"):
        return f'"{cells[0]}"' + line[len(cells[0]) :]
    return line


def appended(text: str, rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    """``text`` with ``rows`` at its end; columns that it lacks are added. ``columns``: of a new file."""
    wanted = list(dict.fromkeys(key for row in rows for key in row))
    text, header = _with_columns(text or written(columns), wanted)
    if not text.endswith("\n"):
        text += "\n"
    return text + "".join(written([row.get(name, "") for name in header]) for row in rows)


def changed(text: str, column: str, value: str, chosen: Callable[[dict[str, str]], bool]) -> str:
    """``text`` with ``column`` set to ``value`` where ``chosen`` says so; other records stay as they are."""
    text, header = _with_columns(text, [column])
    out: list[str] = []
    seen_header = False
    for record in records(text):
        if record.cells is None or record.error or not seen_header:
            seen_header = seen_header or record.cells is not None
            out.append(record.raw)
            continue
        cells = record.cells + [""] * (len(header) - len(record.cells))
        if chosen(dict(zip(header, cells, strict=False))):
            cells[header.index(column)] = value
            out.append(written(cells))
        else:
            out.append(record.raw)
    return "".join(out)


def _with_columns(text: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """``text`` whose header holds ``wanted`` too, and that header."""
    header = next((r.cells for r in records(text) if r.cells is not None), [])
    new = [name for name in wanted if name not in header]
    if not new:
        return text, header
    out: list[str] = []
    head = True
    for record in records(text):
        if record.cells is None or record.error:
            out.append(record.raw)
            continue
        padding = [""] * (len(header) - len(record.cells))
        out.append(written([*record.cells, *padding, *(new if head else [""] * len(new))]))
        head = False
    return "".join(out), [*header, *new]
