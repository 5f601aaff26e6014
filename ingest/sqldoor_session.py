"""One process of the SQL door: a caged session (storage.sqlsession) that dies with the engine."""

from __future__ import annotations

from ingest.family import die_with_engine
from storage.sqlsession import answer_lines


def main() -> None:
    """Body of the process."""
    die_with_engine()
    answer_lines()


if __name__ == "__main__":
    main()
