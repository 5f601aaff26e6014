"""docs/queries.md: its query is one that can be asked, its config a config, and `yuzui check` names what is broken."""

from __future__ import annotations

import re
from pathlib import Path

from console.queryfiles import GROUPS, read
from ingest.configfile import load
from tests.engines import ROOT, yuzui_here

PAGE = (ROOT / "docs" / "queries.md").read_text("utf-8")
[CONFIG] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[QUERY] = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_check_takes_the_pages_query_and_names_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "yuzui.toml"
    path.write_text('[points]\nfile = "points.csv"\n' + CONFIG)
    (tmp_path / "points.csv").write_text("point_id,name,kind,source,topic\n")
    folder = tmp_path / "queries"
    folder.mkdir()
    (folder / "mine.sql").write_text(QUERY)
    assert load(path).console.queries_dir == str(folder)
    done = yuzui_here("check", "-c", str(path), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    shipped = len(list((ROOT / "configs" / "queries").glob("*.sql")))
    assert f'"queries":{shipped + 1}' in done.stdout
    (folder / "broken.sql").write_text(QUERY.replace("max(value)", "max(valeu)"))
    (folder / "headless.sql").write_text("SELECT 1")
    done = yuzui_here("check", "-c", str(path))
    assert done.returncode == 2
    assert 'query broken.sql: Binder Error: Referenced column "valeu" not found' in done.stderr
    assert "query headless.sql: it must begin with a comment" in done.stderr
    assert "mine.sql" not in done.stderr


def test_the_page_names_every_group_and_type_and_how_many_come_along() -> None:
    assert f"group, {', '.join(GROUPS)}"[7:] in PAGE
    assert read("mine", QUERY).head.parameters["since"].type == "time"
    assert "Twenty-two" in PAGE
    assert len(list((ROOT / "configs" / "queries").glob("*.sql"))) == 22
