"""One caged process that answers saved queries and, where that is allowed, statements people typed.

Owns only what makes it the console's: Ctrl-C is the engine's. It ends with its stdin, so with the engine.
"""

from __future__ import annotations

import signal

from storage.sqlsession import answer_lines


def main() -> None:
    """Body of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer_lines()


if __name__ == "__main__":
    main()
