"""Keys that must agree: each rule fires on what breaks it and stays silent on what does not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ingest.config import Config
from ingest.configfaults import spelled
from ingest.configrules import is_loopback, rule_faults

SUBSCRIBER = '[[subscriber]]\nname = "s"\nurl = "mqtt://broker:1883"\n'
FILTERS = 'filters = ["cd/#"]\n'
WEBHOOK = '[[webhook]]\nname = "w"\n'
SOURCE = '[[source]]\nname = "s"\n'


def broken(text: str) -> list[str]:
    """The places that the rules object to; the tables alone must be right."""
    tables = tomllib.loads(text)
    Config.model_validate(tables)
    return [spelled(loc) for loc, _ in rule_faults(tables, set())]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[listener]\nenabled = true\nhost = "::1"',
        '[listener]\nhost = "0.0.0.0"',
        SUBSCRIBER + FILTERS,
        SUBSCRIBER + 'filters = ["$share/g/cd/+/x/#", "$share/g/#"]\nconnections = 3',
        SUBSCRIBER + 'slices = [["a/#"], ["b/+", "c"]]',
        SUBSCRIBER + FILTERS + SUBSCRIBER.replace('"s"', '"t"') + FILTERS,
        SOURCE + 'gateway_topic = "cd/{gateway}/batch"\nvalue_field = "data.v"',
        WEBHOOK + 'url = "http://127.0.0.1:9/x"\nsecret = "whsec_aHVzaA=="',
        WEBHOOK + 'url = "http://169.254.1.1/"\nallow_link_local = true',
        "[kinds.k]\nlevel_blue = 1.0\nlevel_red = 4.0\nrange_min = 0.0\nrange_max = 0.0",
        "[kinds.k]\nlevel_blue = 4.0\nlevel_orange = 2.0\nlevel_red = 1.0",
        "[listener]\nport = 0\nenabled = true\n[ops]\nport = 0",
        '[listener]\nport = 9180\nenabled = true\n[ops]\nhost = "127.0.0.2"\n[sql]\nport = 9180',
        SOURCE + "[retention]\nraw_days = 8\nrollup_1m_days = 8",
    ],
)
def test_what_agrees_is_accepted(text: str) -> None:
    assert broken(text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[listener]\nenabled = true\nhost = "192.0.2.1"', "$.listener.anonymous"),
        ("[listener]\nenabled = true\nanonymous = false", "$.listener.anonymous"),
        ("[listener]\nenabled = true\nport = 9180", "$.ops.port"),
        ("[console]\nenabled = true\nanonymous_view = true\nport = 9180", "$.console.port"),
        (f'[sql]\nenabled = true\nport = 9180\nhost = "0.0.0.0"\ntoken_file = "{__file__}"', "$.sql.port"),
        (SOURCE + "[retention]\nraw_days = 7", "$.retention.raw_days"),
        (SOURCE + "[retention.raw_days_by_kind]\nvideo = 3", "$.retention.raw_days_by_kind.video"),
        ("[retention]\nraw_days = 90\nrollup_1m_days = 60", "$.retention.rollup_1m_days"),
        ("[retention]\nrollup_1h_days = 60", "$.retention.rollup_1h_days"),
        (SUBSCRIBER, "$.subscriber[0].filters"),
        (SUBSCRIBER + FILTERS + 'slices = [["x"]]', "$.subscriber[0].filters"),
        (SUBSCRIBER + "slices = [[]]", "$.subscriber[0].slices[0]"),
        (SUBSCRIBER + 'slices = [["a"]]\nconnections = 2', "$.subscriber[0].connections"),
        (SUBSCRIBER + FILTERS + "connections = 2", "$.subscriber[0].filters[0]"),
        (SUBSCRIBER + 'filters = ["a", "$share/g"]', "$.subscriber[0].filters[1]"),
        (SUBSCRIBER + 'filters = ["$share/+/a"]', "$.subscriber[0].filters[0]"),
        (SUBSCRIBER + 'filters = ["a/#/b"]', "$.subscriber[0].filters[0]"),
        (SUBSCRIBER + 'filters = ["a+"]', "$.subscriber[0].filters[0]"),
        (SUBSCRIBER + 'filters = [""]', "$.subscriber[0].filters[0]"),
        (SUBSCRIBER + 'slices = [["a", "b/#c"]]', "$.subscriber[0].slices[0][1]"),
        (SUBSCRIBER.replace("mqtt:", "http:") + FILTERS, "$.subscriber[0].url"),
        (SUBSCRIBER.replace("broker:1883", "") + FILTERS, "$.subscriber[0].url"),
        (SUBSCRIBER.replace("1883", "x") + FILTERS, "$.subscriber[0].url"),
        (SUBSCRIBER.replace("broker", "me:x@broker") + FILTERS, "$.subscriber[0].url"),
        (SUBSCRIBER.replace("1883", "1883/cd") + FILTERS, "$.subscriber[0].url"),
        (SUBSCRIBER + FILTERS + 'password = "x"', "$.subscriber[0].user"),
        (SUBSCRIBER + FILTERS + 'client_id = ""', "$.subscriber[0].client_id"),
        (SOURCE + SOURCE, "$.source[1].name"),
        (SOURCE + 'gateway_topic = "cd/batch"', "$.source[0].gateway_topic"),
        (SOURCE + 'gateway_topic = "{gateway}/{gateway}"', "$.source[0].gateway_topic"),
        (SOURCE + 'gateway_topic = "cd/{gateway}/#"', "$.source[0].gateway_topic"),
        (SOURCE + 'value_field = "a..b"', "$.source[0].value_field"),
        (SOURCE + 'readings_field = ""', "$.source[0].readings_field"),
        (SOURCE + 'value_field = "ts"', "$.source[0].value_field"),
        (WEBHOOK + 'url = "ftp://example/"', "$.webhook[0].url"),
        (WEBHOOK + 'url = "http:///path"', "$.webhook[0].url"),
        (WEBHOOK + 'url = "http://[::1"', "$.webhook[0].url"),
        (WEBHOOK + 'url = "http://169.254.169.254/"', "$.webhook[0].url"),
        (WEBHOOK + 'url = "http://[::ffff:169.254.1.1]/"', "$.webhook[0].url"),
        (WEBHOOK + 'url = "http://0.0.0.0/"\nallow_link_local = true', "$.webhook[0].url"),
        (WEBHOOK + 'url = "http://example/"\nsecret = "whsec_?"', "$.webhook[0].secret"),
        (2 * (WEBHOOK + 'url = "http://example/"\n'), "$.webhook[1].name"),
        ("[kinds.k]\nrange_min = 2.0\nrange_max = 1.0", "$.kinds.k.range_min"),
        ("[kinds.k]\nlevel_blue = 1.0\nlevel_yellow = 3.0\nlevel_red = 2.0", "$.kinds.k.level_blue"),
        ("[kinds.k]\nlevel_orange = 1.0\nlevel_red = 1.0", "$.kinds.k.level_orange"),
    ],
)
def test_what_disagrees_is_found_at_its_place(text: str, place: str) -> None:
    assert broken(text) == [place]


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        ('tls_cert_file = "{here}/a"\ntls_key_file = "{none}/k"', ["tls_key_file"]),
        ('tls_key_file = "{here}/a"', ["tls_cert_file"]),
        ('tls_cert_file = "{here}/a"', ["tls_key_file"]),
        ('tls_client_ca_file = "{here}/a"', ["tls_client_ca_file"]),
        # `yuzui credential add` makes it, and reads the config first; `yuzui check` and the engine look.
        ('credentials_file = "{none}/c"', []),
    ],
)
def test_tls_comes_in_pairs_and_named_files_exist(tmp_path: Path, lines: str, missing: list[str]) -> None:
    (tmp_path / "a").touch()
    text = "[listener]\n" + lines.format(here=tmp_path, none=tmp_path / "none")
    assert broken(text) == [f"$.listener.{key}" for key in missing]


def test_secrets_are_given_once_and_tls_files_only_with_tls(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    file = f'"{tmp_path}/a"'
    twice = f'user = "u"\npassword = "x"\npassword_file = {file}'
    assert broken(SUBSCRIBER + FILTERS + twice) == ["$.subscriber[0].password_file"]
    both = f'url = "http://x/"\nsecret = "x"\nsecret_file = {file}'
    assert broken(WEBHOOK + both) == ["$.webhook[0].secret_file"]
    assert broken(SUBSCRIBER + FILTERS + f"tls_ca_file = {file}") == ["$.subscriber[0].url"]
    assert broken(SUBSCRIBER.replace("mqtt:", "mqtts:") + FILTERS + f"tls_ca_file = {file}") == []


def test_rules_still_look_at_tables_beside_a_broken_key() -> None:
    tables = tomllib.loads('[listener]\nenabled = true\nport = "abc"\nhost = "0.0.0.0"')
    assert [spelled(loc) for loc, _ in rule_faults(tables, {("listener", "port")})] == [
        "$.listener.anonymous"
    ]


def test_loopback_is_told_from_what_others_can_reach() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.3.2.1", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "gateway.example", "")))
