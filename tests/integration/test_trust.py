"""Who did what is noted for good; modes are warned of; secrets seeded everywhere turn up nowhere."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.credentials import hash_password
from storage import audit
from storage.scrub import scrub
from tests.brokers import Mosquitto, needs_mosquitto
from tests.engines import EngineProcess, free_port, site_config, until, yuzui_here
from tests.talk import Talker

SEEDS = {
    name: f"s33d-{name}-4711"
    for name in (
        "broker",
        "hook",
        "hookfile",
        "target",
        "robot",
        "hj",
        "token",
        "gateway",
        "person",
        "environment",
    )
}
"""Where each stands is in its name; hj212 and sl651 take short ones."""


def config_of(folder: Path, broker_url: str, ports: dict[str, int]) -> str:
    (folder / "hook.secret").write_text(SEEDS["hookfile"] + "\n")
    (folder / "sql.tokens").write_text(SEEDS["token"] + "\n")
    (folder / "c.toml").write_text(
        f'[[credential]]\nname = "g1"\npassword = "{hash_password(SEEDS["gateway"])}"\npublish = ["#"]\n'
    )
    (folder / "users.toml").write_text(
        f'[[user]]\nname = "wang"\nrole = "operate"\npassword = "{hash_password(SEEDS["person"])}"\n'
    )
    for name in ("hook.secret", "sql.tokens", "c.toml", "users.toml"):
        (folder / name).chmod(0o600)
    more = (
        f'[[subscriber]]\nname = "city"\nurl = "{broker_url}"\nfilters = ["t/#"]\nuser = "yuzui"\n'
        f'password = "{SEEDS["broker"]}"\n'
        f'[[source]]\nname = "epb"\ncodec = "hj212"\nport = {ports["station"]}\n'
        f'[source.hj212]\npassword = "{SEEDS["hj"]}"\n'
        f'[[webhook]]\nname = "room"\nurl = "http://127.0.0.1:{ports["nobody"]}/"\nsecret = "{SEEDS["hook"]}"\n'
        f'[[webhook]]\nname = "second"\nurl = "http://127.0.0.1:{ports["nobody"]}/"\nsecret_file = "hook.secret"\n'
        f'[[webhook]]\nname = "robot"\nformat = "wecom"\n'
        f'url = "http://127.0.0.1:{ports["nobody"]}/send?key={SEEDS["robot"]}"\n'
        f'[[mqtt_target]]\nname = "broker"\nurl = "{broker_url}"\nuser = "y"\npassword = "{SEEDS["target"]}"\n'
        f'[[mqtt_target]]\nname = "other"\nurl = "mqtt://127.0.0.1:{ports["nobody"]}"\nuser = "y"\n'
        'password = "${SEEDED}"\n'
        f'[sql]\nenabled = true\nport = {ports["sql"]}\ntoken_file = "sql.tokens"\n'
        f'[console]\nenabled = true\nport = {ports["console"]}\nusers_file = "users.toml"\n'
    )
    config = site_config(
        folder,
        {"g1": ["l1"]},
        kinds={"l1": "level"},
        listener='credentials_file = "c.toml"\nanonymous = false',
        more=more,
    )
    return config.replace('[log]\nformat = "text"\n', '[log]\nformat = "text"\nlevel = "debug"\n')


class Site:
    """An engine with a secret in every place there is for one."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.ports = {name: free_port() for name in ("station", "sql", "console", "nobody")}
        self.env = {"SEEDED": SEEDS["environment"]}
        self.engine = EngineProcess(folder, config_of(folder, broker.url, self.ports), env=self.env)
        self.cookie = ""

    def call(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """The console's API, as a page of its own would ask."""
        url = f"http://localhost:{self.ports['console']}"
        request = urllib.request.Request(
            url + path, method=method, data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Origin": url, "Cookie": self.cookie},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                if found := answer.headers.get("Set-Cookie"):
                    self.cookie = found.partition(";")[0]
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def yuzui(self, *words: str) -> str:
        """All a command says."""
        done = yuzui_here(*words, "-c", str(self.engine.config), env=self.env)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("trust")
    with Mosquitto(folder / "broker") as broker:
        running = Site(folder, broker)
        running.engine.start()
        yield running
        running.engine.stop()


def alert_of(site: Site) -> str:
    """The id of an alert that somebody was called for."""
    with Talker(site.engine.port, user="g1", password=SEEDS["gateway"]) as talker:
        talker.say("t/g1/l1", b'{"ts":%d,"v":50.0}' % (time.time_ns() // 1_000_000))
    return str(
        until(lambda: site.engine.lake("SELECT id FROM alerts WHERE rule = 'level'"), "an alert")[0][0]
    )


@needs_mosquitto
def test_acts_and_logins_are_noted_in_order_and_a_changed_line_is_found(site: Site) -> None:
    alert = alert_of(site)
    assert site.call("POST", "/api/login", name="wang", password="wrong")[0] == 401
    assert site.call("POST", "/api/login", name=SEEDS["person"], password="x")[0] == 401, (
        "typed in the wrong field"
    )
    assert site.call("POST", "/api/login", name="wang", password=SEEDS["person"])[0] == 200
    until(lambda: site.call("POST", f"/api/alerts/{alert}/ack", note="看过")[0] == 200, "acknowledged")
    status, made = site.call("POST", "/api/silences", rule="level", for_s=600, why="检修")
    assert status == 201
    assert site.call("DELETE", f"/api/silences/{made['id']}", why="done")[0] == 204
    assert site.call("POST", "/api/logout")[0] == 204
    assert "silence" in site.yuzui(
        "silence", "add", "--rule", "level", "--for", "10m", "--by", "li", "--why", "test"
    )
    assert "in force" in site.yuzui("reload")
    whole = site.engine.config.read_text()
    site.engine.config.write_text(whole + "[nonsense]\nkey = 1\n")
    before = len(list(audit.read(site.engine.data)))
    os.kill(site.engine.pid, 1)
    until(lambda: len(list(audit.read(site.engine.data))) > before, "a reload that is refused is noted")
    site.engine.config.write_text(whole)
    rows = [json.loads(line) for line in site.yuzui("audit", "--json").splitlines()]
    found = [(row["what"], row["who"]) for row in rows]
    assert found[:7] == [
        ("login_refused", "wang"), ("login_refused", ""), ("login", "wang"), ("acknowledged", "wang"),
        ("silenced", "wang"), ("silence_ended", "wang"), ("logout", "wang"),
    ]  # fmt: skip
    assert [what for what, _ in found[7:]] == ["silenced", "reload_asked", "reloaded", "reload_refused"]
    assert rows[0]["through"] == "console 127.0.0.1"
    assert rows[7]["who"] == "li"
    assert rows[7]["through"].startswith("command line, ")
    assert rows[4]["detail"] == "rule=level up to severity 3: 检修"
    assert site.yuzui("audit", "--what", "login").count("\n") == 1
    assert "none changed" in site.yuzui("audit", "--verify")
    file = site.engine.data / audit.FILE
    kept = file.read_bytes()
    for forged in (kept.replace(b'"li"', b'"wu"'), kept.replace(kept.split(b"\n")[2] + b"\n", b"")):
        file.write_bytes(forged)
        done = yuzui_here("audit", "--verify", "-c", str(site.engine.config), env=site.env)
        assert done.returncode == 1
        assert "does not follow" in done.stderr
    assert [f.path for f in scrub(site.engine.data).findings if f.path == audit.FILE] == [audit.FILE]
    file.write_bytes(kept)
    assert audit.format_of(site.engine.data) == audit.FORMAT


@needs_mosquitto
def test_no_seeded_secret_turns_up_in_a_log_a_metric_a_command_or_a_process_list(site: Site) -> None:
    told = {
        path: site.engine.page(path) for path in ("/metrics", "/healthz", "/sources", "/livez", "/readyz")
    }
    for words in (
        ("status", "--json"), ("status", "--sources"), ("check",), ("check", "--json"), ("doctor",), ("outbox", "list"),
        ("alert", "list"), ("alert", "log"), ("audit",), ("source", "list"), ("reload", "--json"),
        ("quarantine", "list"), ("silence", "list"), ("report", "shift"), ("rules", "list"),
    ):  # fmt: skip
        told[" ".join(words)] = site.yuzui(*words)
    broken = site.engine.config.with_name("broken.toml")
    for name in SEEDS:
        # Each secret as a wrong type, a wrong name and in a place where it does not belong.
        text = site.engine.config.read_text().replace(f'"{SEEDS[name]}"', f'["{SEEDS[name]}"]')
        broken.write_text(text.replace("password = [", "pasword = ["))
        told[f"faults of {name}"] = yuzui_here("check", "-c", str(broken), env=site.env).stderr
    broken.unlink()
    told["engine.log"] = site.engine.log.read_text()
    told["engine.json"] = (site.engine.data / "engine.json").read_text()
    told["audit.jsonl"] = (site.engine.data / audit.FILE).read_text()
    told["processes"] = "".join(
        path.read_bytes().decode(errors="replace")
        for pid in [site.engine.pid, *children(site.engine.pid)]
        for path in (Path(f"/proc/{pid}/cmdline"),)
    )
    assert len(told["engine.log"]) > 300
    assert "robot" in told["outbox list"]
    leaks = [(where, name) for where, text in told.items() for name, seed in SEEDS.items() if seed in text]
    assert leaks == []
    print(f"{len(SEEDS)} secrets, {len(told)} outputs, {sum(map(len, told.values())):,} characters")


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


@needs_mosquitto
def test_a_data_folder_is_made_for_its_owner_only_and_what_others_can_read_is_named(site: Site) -> None:
    assert site.engine.data.stat().st_mode & 0o777 == 0o700
    assert "warning" not in site.yuzui("check")
    folder = site.engine.folder
    opened = {folder / "hook.secret": 0o644, folder / "users.toml": 0o640, site.engine.data: 0o755}
    for path, mode in opened.items():
        path.chmod(mode)
    said = site.yuzui("check")
    for place in ("$.webhook[1].secret_file", "$.console.users_file", "$.data.dir"):
        assert f"warning: {place}: " in said
    assert said.count("warning: ") == 3
    (folder / "hook.secret").chmod(0o600)
    (folder / "users.toml").chmod(0o600)
    site.engine.data.chmod(0o750)
    assert "warning" not in site.yuzui("check")


def test_a_line_cut_short_is_closed_and_the_next_follows_from_the_last_whole_one(tmp_path: Path) -> None:
    for who in ("a", "b"):
        assert audit.note(tmp_path, audit.Act(audit.LOGIN, who))
    file = tmp_path / audit.FILE
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes()[:-20])
    assert audit.note(tmp_path, audit.Act(audit.LOGIN, "c", detail="x" * 5000 + '"\n'))
    assert [row["who"] for row in audit.read(tmp_path)] == ["a", "c"]
    assert len(list(audit.read(tmp_path, verify=True))) == 2, "a line cut short is no crime"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40] + b"#" + whole[-39:])
    with pytest.raises(audit.AuditFault, match="line 3"):
        list(audit.read(tmp_path, verify=True))
    assert not audit.note(tmp_path / "nowhere", audit.Act(audit.LOGIN, "d"))
