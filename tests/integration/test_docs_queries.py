"""docs/queries.md: its query is one that can be asked, its config a config, and `yuzui check` names what is broken."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from console.queryfiles import GROUPS, read
from ingest.configfile import load, load_source
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
    who = yuzui_here(
        "console", "user", "add", "王值班", "-c", str(path), env={"YUZUI_CONSOLE_PASSWORD": "long enough"}
    )
    assert who.returncode == 0, who.stderr
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


def test_a_projects_office_joins_with_the_file_shown(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    [shown] = [b for b in re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S) if '"project"' in b]
    (tmp_path / "projects.toml").write_text(shown)
    [source] = load_source(tmp_path / "projects.toml").source
    assert source.event is not None
    assert source.event.type == "project"
    assert set(source.event.attributes) == {"progress", "planned", "devices"}


class _Chunks(HTMLParser):
    """Texts of headings, paragraphs, items and cells, in order."""

    WANTED = frozenset({"h1", "h2", "p", "li", "th", "td"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.WANTED:
            self._open = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in self.WANTED

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1] += data


def test_the_duty_sheet_on_the_page_says_what_the_document_says() -> None:
    chunks = _Chunks()
    chunks.feed((ROOT / "console" / "static" / "duty.html").read_text("utf-8"))
    wanted = []
    for line in (ROOT / "docs" / "duty.zh.md").read_text("utf-8").splitlines():
        if line.startswith("|---"):
            continue
        if line.startswith("|"):
            wanted += [cell.strip() for cell in line.strip().strip("|").split("|")]
        elif line.strip():
            wanted.append(re.sub(r"^(#+|\d+\.|-) ", "", line))
    assert chunks.found == wanted
    assert len(wanted) > 80


def test_the_page_names_every_group_and_type_and_how_many_come_along() -> None:
    assert f"group, {', '.join(GROUPS)}"[7:] in PAGE
    assert read("mine", QUERY).head.parameters["since"].type == "time"
    assert "Twenty-two" in PAGE
    assert len(list((ROOT / "configs" / "queries").glob("*.sql"))) == 22
