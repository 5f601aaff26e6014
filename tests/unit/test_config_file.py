"""Reading the config: merging, ${VAR}, relative paths, and every fault at once, without a secret."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ingest.config import Config
from ingest.configfile import ConfigFaults, load

SOURCE = '[[source]]\nname = "s"\n'


def write(folder: Path, text: str, **drop_ins: str) -> Path:
    """A config file with its drop-ins; returns its path."""
    path = folder / "yuzui.toml"
    path.write_text(text, encoding="utf-8")
    for name, more in drop_ins.items():
        (folder / "yuzui.d").mkdir(exist_ok=True)
        (folder / "yuzui.d" / f"{name}.toml").write_text(more, encoding="utf-8")
    return path


def faults(path: Path, **env: str) -> list[str]:
    """What load says is wrong, each as "path: message"."""
    with pytest.raises(ConfigFaults) as told:
        load(path, env)
    return [str(fault) for fault in told.value.faults]


def good(path: Path, **env: str) -> Config:
    """The config at ``path``, with the faults in the message if there are any."""
    return load(path, env)


def test_an_empty_file_is_the_defaults_standing_beside_it(tmp_path: Path) -> None:
    config = good(write(tmp_path, ""))
    assert config.data.dir == str(tmp_path / "data")
    assert config.points.file == str(tmp_path / "points.csv")
    assert config.sources.dir == str(tmp_path / "sources.d")
    assert (
        config.model_copy(update={name: getattr(Config(), name) for name in ("data", "points", "sources")})
        == Config()
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[listener]\nport = "abc"', '$.listener.port: expected int, got "abc"'),
        ("[listener]\nport = 1.5", "$.listener.port: expected int, got 1.5"),
        ("[listener]\nport = 65536", "$.listener.port: expected at most 65535, got 65536"),
        ("[listener]\nenabled = 1", "$.listener.enabled: expected true or false, got 1"),
        ("listener = 3", "$.listener: expected a table, got 3"),
        ("source = 3", "$.source: expected an array, got 3"),
        ("listner = 3", '$.listner: unknown key (did you mean "listener"?)'),
        ("[mqtt]\nport = 1", "$.mqtt: unknown key"),
        ("[listener]\nprot = 3", '$.listener.prot: unknown key (did you mean "port"?)'),
        ("[[source]]\n", "$.source[0].name: required, but missing"),
        (
            '[[source]]\nname = "Flut"',
            '$.source[0].name: expected a match of ^[a-z0-9][a-z0-9_-]*$, got "Flut"',
        ),
        (SOURCE + "age_s_max = nan", "$.source[0].age_s_max: expected a finite number, got nan"),
        (SOURCE + "age_s_max = 0", "$.source[0].age_s_max: expected more than 0, got 0"),
        (
            SOURCE + "missing_values = [-9999.0, inf]",
            "$.source[0].missing_values[1]: expected a finite number, got inf",
        ),
        (SOURCE + 'time_unit = "h"', '$.source[0].time_unit: expected "s", "ms", "us" or "ns", got "h"'),
        ('[city]\ntime_zone = "Asia/Chengdu"', "$.city.time_zone: unknown time zone"),
        ('[kinds."air temp"]\nunti = 3', '$.kinds."air temp".unti: unknown key (did you mean "unit"?)'),
        ("[city\n", "$: not TOML: line 1"),
    ],
)
def test_a_fault_names_its_place_what_was_expected_and_what_was_found(
    tmp_path: Path, text: str, fault: str
) -> None:
    assert [told[: len(fault)] for told in faults(write(tmp_path, text))] == [fault]


def test_all_faults_come_at_once_also_those_between_keys(tmp_path: Path) -> None:
    text = """
    [listener]
    enabled = true
    port = "abc"
    host = "0.0.0.0"
    tls_cert_file = "cert.pem"
    [[subscriber]]
    name = "a"
    url = "mqtt://b"
    filters = ["#"]
    qos = 7
    [[subscriber]]
    name = "a"
    url = "mqtt://c"
    filters = ["#"]
    """
    (tmp_path / "cert.pem").touch()
    assert faults(write(tmp_path, text)) == [
        '$.listener.port: expected int, got "abc"',
        "$.subscriber[0].qos: expected 0, 1 or 2, got 7",
        "$.subscriber[1].name: the same name as $.subscriber[0]",
        "$.listener.tls_key_file: tls_cert_file is given without its key",
        "$.listener.anonymous: beyond loopback anyone could publish: set anonymous = false",
    ]


def test_a_config_that_is_absent_or_not_text_is_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == ["$: cannot be read: No such file or directory"]
    (tmp_path / "x.toml").write_bytes(b'a = "\xff"')
    assert faults(tmp_path / "x.toml") == ["$: not UTF-8 (byte 5)"]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b'\xef\xbb\xbf[city]\nname = "\xe6\x88\x90\xe9\x83\xbd"')
    assert good(tmp_path / "x.toml").city.name == "成都"


# ---- drop-ins


def test_drop_ins_merge_tables_append_arrays_and_are_read_in_order_of_name(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[city]\nname = "a"\n[[source]]\nname = "main"\n',
        b='[[source]]\nname = "b"\n',
        a='[city]\ntime_zone = "Asia/Shanghai"\n[[source]]\nname = "a"\n[kinds.k]\nunit = "m"\n',
    )
    (tmp_path / "yuzui.d" / ".b.toml").write_text("left by an editor")
    config = good(path)
    assert (config.city.name, config.city.time_zone) == ("a", "Asia/Shanghai")
    assert [source.name for source in config.source] == ["main", "a", "b"]
    assert config.kinds["k"].unit == "m"


def test_a_value_said_twice_differently_is_a_fault_that_names_both_files(tmp_path: Path) -> None:
    path = write(tmp_path, "[ops]\nport = 1\n", a="[ops]\nport = 1\n", b="[ops]\nport = 2\n")
    assert faults(path) == ["$.ops.port: said differently in yuzui.toml and yuzui.d/b.toml"]


@pytest.mark.parametrize("other", ["ops = 1", "ops = []", "[[ops]]", "[ops]\nport = true"])
def test_a_value_of_another_type_is_said_differently_too(tmp_path: Path, other: str) -> None:
    told = faults(write(tmp_path, "[ops]\nport = 1", a=other))
    assert any("said differently in yuzui.toml and yuzui.d/a.toml" in fault for fault in told)


def test_faults_of_a_drop_in_name_its_file_and_the_place_in_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE, more='[[source]]\nname = "t"\n[[source]]\nname = "u"\ndepth_max = 0\n')
    with pytest.raises(ConfigFaults) as told:
        load(path, {})
    (fault,) = told.value.faults
    assert fault.path == "$.source[2].depth_max"
    assert fault.file == "yuzui.d/more.toml"
    assert "(in yuzui.d/more.toml)" in str(told.value)


def test_a_broken_drop_in_does_not_hide_the_faults_of_the_others(tmp_path: Path) -> None:
    told = faults(write(tmp_path, "[ops]\nport = -1", a="x = ", b="y = 1"))
    assert [fault.split(":")[0] for fault in told] == ["$", "$.ops.port", "$.y"]


# ---- substitution


def test_variables_are_replaced_in_text_also_more_than_one(tmp_path: Path) -> None:
    path = write(tmp_path, '[city]\nname = "${A}-${B:-b}-${C:?say C}-$${A}-$A"')
    assert good(path, A="1", C="3").city.name == "1-b-3-${A}-$A"


def test_an_empty_variable_counts_as_unset_only_where_an_alternative_is_given(tmp_path: Path) -> None:
    assert good(write(tmp_path, '[city]\nname = "<${A}${A:-b}>"'), A="").city.name == "<b>"
    assert faults(write(tmp_path, '[city]\nname = "${A:?say A}"'), A="") == [
        "$.city.name: A is not set: say A"
    ]


def test_a_variable_alone_may_stand_for_a_number_or_a_truth_value(tmp_path: Path) -> None:
    text = '[listener]\nport = "${PORT}"\nenabled = "${ON:-true}"\nconnect_s_max = "${S}"\n'
    text += '[[subscriber]]\nname = "s"\nurl = "mqtt://b"\nfilters = ["#"]\nqos = "${QOS}"\nprotocol = "${P}"'
    config = good(write(tmp_path, text), PORT="2883", S="2.5", QOS="0", P="5")
    assert (config.listener.port, config.listener.enabled, config.listener.connect_s_max) == (2883, True, 2.5)
    assert (config.subscriber[0].qos, config.subscriber[0].protocol) == (0, "5")


def test_text_that_only_contains_a_variable_is_never_a_number(tmp_path: Path) -> None:
    assert faults(write(tmp_path, '[ops]\nport = "9${A}"'), A="0") == [
        '$.ops.port: expected int, got "9${A}"'
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("${A}", "A is not set (${A:-default} would allow that)"),
        ("${A:?}", "A is not set: it is required"),
        ("${1A}", "expected ${VAR}, ${VAR:-default}, ${VAR:?message}, or $${ for a plain ${"),
        ("${A", "expected ${VAR}, ${VAR:-default}, ${VAR:?message}, or $${ for a plain ${"),
    ],
)
def test_a_variable_that_cannot_be_replaced_is_a_fault(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(write(tmp_path, f'[city]\nname = "{text}"')) == [f"$.city.name: {fault}"]


def test_what_the_environment_says_is_never_repeated_in_a_message(tmp_path: Path) -> None:
    text = '[ops]\nport = "${A}"\nhost = 5\n[city]\ntime_zone = "${A}"\n[listener]\nport = "${N}"\n'
    text += 'tls_client_ca_file = "${A}"\n'
    told = faults(write(tmp_path, text), A="hush", N="70707")
    assert '$.ops.port: expected int, got "${A}"' in told
    assert '$.listener.port: expected at most 65535, got "${N}"' in told
    assert '$.listener.tls_client_ca_file: no such file: "${A}"' in told
    assert "hush" not in str(told)
    assert "70707" not in str(told)


def test_relative_paths_start_at_the_main_files_folder_whoever_says_them(tmp_path: Path) -> None:
    path = write(tmp_path, '[data]\ndir = "../d"\n', a='[points]\nfile = "${P}"\n')
    config = good(path, P="p.csv")
    assert config.data.dir == str(tmp_path.parent / "d")
    assert config.points.file == str(tmp_path / "p.csv")
    assert good(write(tmp_path, '[data]\ndir = "/var/lib/yuzui"'), P="p").data.dir == "/var/lib/yuzui"


# ---- secrets


def test_secrets_written_into_the_file_are_masked(tmp_path: Path) -> None:
    text = """
    [[subscriber]]
    name = "a"
    url = "mqtt://me:hush@broker"
    password = ["hush"]
    filters = ["#"]
    [[webhook]]
    name = "w"
    url = "https://hooks.example/hush"
    secret = 4711
    timeout_s = "https://me:hush@x/hush"
    [[webhook]]
    name = "v"
    url = "hush://me:hush@x/hush?hush"
    secret = "whsec_hush!"
    """
    told = faults(write(tmp_path, text))
    assert len(told) >= 6
    assert not [fault for fault in told if "hush" in fault or "4711" in fault]


def test_an_empty_path_is_no_folder(tmp_path: Path) -> None:
    """${YUZUI_DATA} that is set to nothing must not put the data where the engine happened to be started."""
    said = faults(write(tmp_path, '[data]\ndir = "${D}"\n[points]\nfile = ""\n'), D="")
    assert [line.partition(":")[0] for line in said] == ["$.data.dir", "$.points.file"]


def test_only_keys_name_files_and_not_what_an_operator_calls_something(tmp_path: Path) -> None:
    """An attribute called photo_file is where a message has it; as a path of ours it was silently never found."""
    event = '[source.event]\ntype = "finding"\nattributes = { photo_file = "order.photo" }\n'
    config = good(write(tmp_path, f'{SOURCE}topics = ["t"]\n[source.tcp]\nhost = "127.0.0.1"\n{event}'))
    assert config.source[0].event is not None
    assert config.source[0].event.attributes == {"photo_file": "order.photo"}
    config = good(write(tmp_path, '[[file_target]]\nname = "f"\ndir = "out"\n'))
    assert config.file_target[0].dir == str(tmp_path / "out")


def test_a_folder_that_may_not_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its sources an engine would refuse the whole city."""
    (tmp_path / "sources.d").mkdir()
    listdir = os.listdir

    def refused(folder: Path) -> list[str]:
        if folder.name == "sources.d":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refused)
    assert faults(write(tmp_path, "")) == ["sources.d: cannot be read: Permission denied"]
