"""py-spy's raw stacks to bench/results/profile-NAME.json: the functions at the top, by share of samples.

Run: python -m bench.end_to_end CASE --profile FILE, then python -m bench.profile_summary FILE NAME TITLE
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bench.storage_figures import RESULTS

TOP = 25
_PLACE = re.compile(r"^(?P<function>.+) \((?P<file>[^:)]+)(:\d+)?\)$")
ROOMS = ("ingest/", "anomaly/", "storage/", "console/")


def summarise(raw: str) -> list[dict[str, Any]]:
    """Functions by the share of samples in which they are at the top. A line of ``raw``: frames by ;, then a number."""
    own: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        if samples.isdigit():
            own[name_of(stack.split(";")[-1])] += int(samples)
    total = own.total()
    return [{"function": name, "share": n / total} for name, n in own.most_common(TOP)]


def name_of(frame: str) -> str:
    """A frame as "room/module.py function", or as it stands where it is none of ours."""
    found = _PLACE.match(frame)
    if found is None:
        return frame
    path = found["file"]
    for room in ROOMS:
        if room in path:
            path = room + path.rpartition(room)[2]
            break
    else:
        path = path.rpartition("site-packages/")[2]
    return f"{path} {found['function']}"


def main() -> None:
    """Summarise, save."""
    source, name, title = sys.argv[1:4]
    top = summarise(Path(source).read_text())
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"profile-{name}.json"
    path.write_text(
        json.dumps({"title": title, "top": top}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(path)


if __name__ == "__main__":
    main()
