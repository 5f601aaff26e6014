"""What a stranger's SQL may be: one statement that only reads, over the views and macros of lake.sql.

Owns that judgement, made on DuckDB's own parse tree. It knows nothing of sockets or processes. It is the first wall:
behind it the session may open only the lake's files (storage.sqlsession), and behind that the kernel lets the
process write nothing (storage.sqlcage).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson

# DuckDB only where a statement is judged: who takes requests needs the limits below, not 12 MB.
if TYPE_CHECKING:
    import duckdb

SQL_CHARS_MAX: Final = 65_536
"""A statement a person or tool writes is far below; it also bounds what the parser is fed."""

# DuckDB 2.0 takes INSERT, DELETE and even COPY ... TO inside a WITH, in what is otherwise a SELECT: so the nodes a
# query may be made of are named, and whatever a later version adds is refused until it stands here.
QUERY_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
FROM_ANYWHERE: Final = frozenset({"range", "generate_series", "unnest", "repeat", "repeat_row"})
"""Table functions that make rows of nothing."""
FUNCTIONS_REFUSED: Final = frozenset({"getvariable", "current_setting", "getenv", "query", "query_table"})
"""They tell where files are or what runs here; none computes anything from readings."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CATALOG: Final = re.compile(r"(duckdb_|pragma_|sqlite_|pg_|yuzui_)", re.IGNORECASE)


class NotAllowed(ValueError):  # noqa: N818 - says what happened
    """The statement is not one this door takes; the text says why and what to do."""


def macros_of(lake_sql: str) -> frozenset[str]:
    """Names of the table macros that lake.sql defines for its readers."""
    found = re.findall(r"^CREATE OR REPLACE MACRO (\w+)\([^)]*\) AS TABLE", lake_sql, re.MULTILINE)
    return frozenset(name for name in found if not name.startswith("yuzui_"))


def check(con: duckdb.DuckDBPyConnection, sql: str, macros: frozenset[str]) -> None:
    """Raise NotAllowed unless ``sql`` is one statement that only reads what lake.sql shows."""
    import duckdb

    if len(sql) > SQL_CHARS_MAX:
        raise NotAllowed(f"the statement is longer than {SQL_CHARS_MAX} characters")
    try:
        count = len(con.extract_statements(sql))
    except duckdb.Error as fault:
        raise NotAllowed(str(fault)) from None
    if count != 1:
        raise NotAllowed(f"send one statement, not {count}")
    [[text]] = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree = orjson.loads(text)
    if tree.get("error"):
        raise NotAllowed("only SELECT is taken here (also WITH, FROM, VALUES, DESCRIBE and SUMMARIZE)")
    for node in _nodes(tree["statements"]):
        _check_node(node, macros)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; a stack and not recursion, for the sender decides how deep it is."""
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            yield here
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _check_node(node: dict[str, Any], macros: frozenset[str]) -> None:
    kind = node.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in QUERY_NODES:
        raise NotAllowed(
            "only reading is possible here: no INSERT, UPDATE, DELETE or COPY, not inside WITH either"
        )
    if kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"].lower()
        if name not in macros | FROM_ANYWHERE:
            raise NotAllowed(
                f"{name}() cannot be read from here; there are the views and {', '.join(sorted(macros))}"
            )
    elif kind == "BASE_TABLE":
        name = node["table_name"]
        outside = node.get("schema_name") not in ("", "main") or node.get("catalog_name") not in (
            "",
            "memory",
        )
        if outside or not _NAME.fullmatch(name) or _CATALOG.match(name):
            raise NotAllowed(
                f"{name!r} cannot be read here; SHOW TABLES is not open either: see the views in lake.sql"
            )
    elif "function_name" in node and node["function_name"].lower() in FUNCTIONS_REFUSED:
        raise NotAllowed(f"{node['function_name']}() is not open here")
