"""What the map's page loses on its way to the browser is only what a reader of the source needs."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import console
from console.squeeze import squeeze

STATIC = Path(console.__file__).parent / "static"
OWN = sorted([*STATIC.glob("*.js"), *STATIC.glob("*.css")])
OWN_BYTES_MAX = 40_000
"""gzip, of what is fetched before the map is seen; the parts opened on demand come on top."""
ON_DEMAND = {
    "parts.css", "words_more.js", "dialogs.js", "drawer.js", "search.js", "tip.js", "chart.js",
    "replay.js", "replay.css", "scrubber.js", "pastday.js", "words_replay.js",
    "rooms.js", "rooms.css", "words_rooms.js", "room_api.js", "room_chart.js", "room_table.js", "queries.js",
    "supervise.js", "supervise_projects.js", "supervise_tables.js", "duty.js", "duty.css",
}  # fmt: skip


def test_comment_lines_and_indentation_go_and_the_rest_stays() -> None:
    script = '// what it is\n/** says */\nlet a = "// not a comment";\n\n  if (a) {  // why\n    b();\n  }\n'
    assert squeeze(script, ".js") == 'let a = "// not a comment";\nif (a) {  // why\nb();\n}\n'
    assert squeeze("/* looks */\n  a { b: c; }\n", ".css") == "a { b: c; }\n"
    assert squeeze("  <p>\n", ".html") == "  <p>\n"


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.name)
def test_no_text_or_comment_of_the_page_goes_over_several_lines(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert line.count("`") % 2 == 0, f"{path.name}:{number}: a template literal over several lines"
        stripped = line.strip()
        if stripped.startswith("/*"):
            assert stripped.endswith("*/"), f"{path.name}:{number}: a comment over several lines"


def test_the_page_is_small() -> None:
    sizes = {p.name: len(gzip.compress(squeeze(p.read_text(), p.suffix).encode(), 9, mtime=0)) for p in OWN}
    first = sum(n for name, n in sizes.items() if name not in ON_DEMAND)
    print(f"own JS + CSS, gzip: {first} bytes at first, {sum(sizes.values())} with all parts")
    assert set(sizes) >= ON_DEMAND
    assert first <= OWN_BYTES_MAX
