"""What docs/map.md says is so: its configs are configs, its commands do what stands beside them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from console.api import routes
from ingest.configfile import ConfigFaults, load
from ingest.ops import COUNTERS, GAUGES
from tests.console_city import made_up
from tests.engines import ROOT, yuzui_here

TEXT = (ROOT / "docs" / "map.md").read_text("utf-8")
PASSWORD = {"YUZUI_CONSOLE_PASSWORD": "a long enough one"}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def config_in(folder: Path, text: str) -> Path:
    (folder / "tls").mkdir(parents=True, exist_ok=True)
    for name in ("map.pem", "map.key"):
        (folder / "tls" / name).touch()
    path = folder / "yuzui.toml"
    path.write_text('[points]\nfile = "points.csv"\n' + text)
    (folder / "points.csv").write_text("point_id,name,kind,source\n")
    return path


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_config_shown_is_one(tmp_path: Path, text: str) -> None:
    assert load(config_in(tmp_path, text)).console.enabled


def test_behind_a_proxy_nobody_may_look_without_a_login(tmp_path: Path) -> None:
    """All the world comes from 127.0.0.1 there."""
    text = blocks("toml")[2]
    assert "behind_proxy" in text
    with pytest.raises(ConfigFaults) as caught:
        load(config_in(tmp_path, text + "anonymous_view = true\n"))
    assert [str(fault).partition(":")[0] for fault in caught.value.faults] == ["$.console.anonymous_view"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (('users_file = "console-users.toml"', ""), "$.console.users_file"),
        (("tls_cert_file", "# tls_cert_file"), "$.console"),
        (('hosts = ["map.city.example"]', "anonymous_view = true"), "$.console.anonymous_view"),
    ],
)
def test_what_would_not_be_safe_is_refused_when_it_is_read(
    tmp_path: Path, change: tuple[str, str], path: str
) -> None:
    text = blocks("toml")[1]
    assert change[0] in text
    with pytest.raises(ConfigFaults) as caught:
        load(config_in(tmp_path, text.replace(*change)))
    assert any(str(fault).startswith(path) for fault in caught.value.faults), caught.value.faults


def test_the_commands_do_what_they_say(tmp_path: Path) -> None:
    path = config_in(tmp_path, blocks("toml")[0])
    commands = [line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ yuzui")]
    said = []
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        done = yuzui_here(*words, "-c", str(path), env=PASSWORD)
        said.append((done.returncode, done.stdout, done.stderr))
    assert [code for code, _, _ in said] == [0, 0, 0, 0, 2], said
    assert said[2][1].splitlines() == ["operate  王值班", "view     大屏"]
    assert "no engine with a map runs" in said[4][2]
    users = tmp_path / "console-users.toml"
    assert users.stat().st_mode & 0o777 == 0o600
    assert "大屏" not in users.read_text()
    assert PASSWORD["YUZUI_CONSOLE_PASSWORD"] not in users.read_text()
    short = yuzui_here(
        "console", "user", "add", "x", "-c", str(path), env={"YUZUI_CONSOLE_PASSWORD": "short"}
    )
    assert (short.returncode, "at least 10" in short.stderr) == (2, True)
    again = yuzui_here("console", "user", "add", "王值班", "-c", str(path), env=PASSWORD)
    assert (again.returncode, "--replace" in again.stderr) == (2, True)


def test_the_requests_shown_go_to_routes_there_are(tmp_path: Path) -> None:
    paths = {re.sub(r"\{[^}]*\}", "X", route.path) for route in routes(made_up(tmp_path, 20)[0])}
    shown = re.findall(r"http://127\.0\.0\.1:9182(/[^\s'?]*)", blocks("console")[1])
    assert shown
    assert {re.sub(r"cd-[\w-]+", "X", path) for path in shown} <= paths


def test_the_metrics_named_are_there() -> None:
    last = TEXT.rsplit("`/metrics` says", 1)[1]
    for text, there in zip(
        last.split("counters, whose names end with `_total`:"), (GAUGES, COUNTERS), strict=True
    ):
        named = {
            f"console{name.removeprefix('yuzui_console')}"
            for name in re.findall(r"`((?:yuzui_console)?_\w+)`", text)
        }
        assert named == {name for name in there if name.startswith("console_")}
