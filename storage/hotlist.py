"""The list of hot files for readers: the names a query must look at, in one small file.

Owns lake/hot/list.json. Without it each refresh of an SQL session would list two folders in which sealed files
wait hours for the end of their grace: 14,400 names, 100 ms. Knows nothing of what the files hold.

The list is replaced whole, so a range of journal records appears at once: its main and its late file. It is not
synced: like the files it names it is made again at a restart.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

LIST_NAME: Final = "list.json"
FORMAT: Final = 1


class HotList:
    """What lake/hot/list.json says; one thread at a time.

    main, late  file name -> last journal seq of its rows; every hot file above ``sealed_*`` is there
    sealed_main, sealed_late  files up to these may be missing: a reader whose table ends below them looks again
    last  the highest journal seq any reader was shown, -1 for none
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LIST_NAME
        self._tmp = folder / "tmp" / LIST_NAME
        self.main: dict[str, int] = {}
        self.late: dict[str, int] = {}
        self.sealed_main = self.sealed_late = self.last = -1

    def load(self) -> bool:
        """Take up the list as it stands; False, and nothing taken, where it is missing or damaged."""
        try:
            said = json.loads(self.path.read_bytes())
            main, late = ({name: int(name[21:41]) for name in said[key]} for key in ("main", "late"))
            sealed_main, sealed_late, last = (int(said[k]) for k in ("sealed_main", "sealed_late", "last"))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.main, self.late = main, late
        self.sealed_main, self.sealed_late, self.last = sealed_main, sealed_late, last
        return True

    def names(self, late: bool) -> dict[str, int]:
        """Names of main or of late files, with the last seq of each."""
        return self.late if late else self.main

    def leave_out(self, name: str, late: bool) -> None:
        """Name a sealed file no more. Takes effect with the next ``save``."""
        seq = self.names(late).pop(name, -1)
        if late:
            self.sealed_late = max(self.sealed_late, seq)
        else:
            self.sealed_main = max(self.sealed_main, seq)

    def save(self) -> None:
        """Replace the file. Raises OSError; it is then as it was."""
        said = {
            "format": FORMAT,
            "sealed_main": self.sealed_main,
            "sealed_late": self.sealed_late,
            "last": self.last,
            "main": list(self.main),
            "late": list(self.late),
        }
        self._tmp.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._tmp.write_text(json.dumps(said), encoding="ascii")
            os.replace(self._tmp, self.path)
        except BaseException:
            self._tmp.unlink(missing_ok=True)
            raise

    def try_save(self) -> bool:
        """``save``, or False: the same fault is met, and told, by the next write of a hot file."""
        try:
            self.save()
        except OSError:
            return False
        return True
