"""Passwords are kept as salted hashes, filters decide who publishes what, faults are named all at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ingest.config import ListenerSettings
from ingest.credentials import PASSWORD_BYTES_MAX, Credentials, CredentialsFault, hash_password
from ingest.mqtt.admission import BAN_S, Admission

QUICK = {"n": 2}


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials.load(
        write(
            tmp_path / "c.toml",
            f"""
            [[credential]]
            name = "gw-1"
            password = "{hash_password("right", n=2)}"
            publish = ["cd/gw-1/#", "shared/+/x"]
            [[credential]]
            name = "by-certificate"
            publish = ["#"]
            """,
        )
    )


def test_only_the_right_password_verifies(credentials: Credentials) -> None:
    assert credentials.verify("gw-1", b"right")
    assert not credentials.verify("gw-1", b"wrong")
    assert not credentials.verify("gw-1", b"")
    assert not credentials.verify("nobody", b"right")
    assert not credentials.verify("by-certificate", b"")
    assert not credentials.verify("gw-1", b"right" + b"x" * PASSWORD_BYTES_MAX)
    assert credentials.verify("gw-1", b"right")
    assert not credentials.verify("gw-1", b"wrong")


def test_a_hash_is_salted_and_says_its_parameters() -> None:
    first, second = hash_password("p", n=4, r=2, p=1), hash_password("p", n=4, r=2, p=1)
    assert first != second
    assert first.startswith("scrypt$4$2$1$")
    assert "p" not in first.split("$")[4:]


def test_coming_back_is_quick_because_a_right_password_is_remembered(tmp_path: Path) -> None:
    file = write(tmp_path / "c", f'[[credential]]\nname="a"\npassword="{hash_password("p")}"\npublish=["#"]')
    credentials = Credentials.load(file)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert credentials.verify("a", b"p")
        times.append(time.perf_counter() - began)
    assert sorted(times[1:])[9] < times[0] / 10


def test_topics_are_allowed_by_filter(credentials: Credentials) -> None:
    for _ in range(2):
        assert credentials.allows("gw-1", "cd/gw-1/rain")
        assert credentials.allows("gw-1", "shared/7/x")
        assert not credentials.allows("gw-1", "cd/gw-2/rain")
        assert not credentials.allows("gw-1", "shared/7/8/x")
        assert not credentials.allows("nobody", "cd/gw-1/rain")
        assert not credentials.allows(None, "cd/gw-1/rain")
        assert not credentials.allows("by-certificate", "$SYS/broker")


def test_without_a_file_whoever_is_admitted_may_publish_everything() -> None:
    credentials = Credentials.load(None)
    assert not credentials.required
    assert credentials.allows(None, "anything")


def test_every_fault_of_a_file_is_named_with_its_path(tmp_path: Path) -> None:
    file = write(
        tmp_path / "c.toml",
        """
        extra = 1
        [[credential]]
        name = "a"
        password = "plain text"
        publish = ["a/#/b", 7]
        [[credential]]
        name = "a"
        colour = "red"
        password = "scrypt$16384$8$1$AAAA$AAAA"
        publish = []
        [[credential]]
        password = "scrypt$1099511627776$8$1$AAAA$AAAA"
        publish = ["#"]
        """,
    )
    with pytest.raises(CredentialsFault) as caught:
        Credentials.load(file)
    text = str(caught.value)
    for path in (
        "$.extra",
        "$.credential[0].password",
        "$.credential[0].publish[0]",
        "$.credential[0].publish[1]",
        "$.credential[1].name",
        "$.credential[1].colour",
        "$.credential[1].password",
        "$.credential[1].publish",
        "$.credential[2].name",
        "$.credential[2].password",
    ):
        assert path + ":" in text
    assert "plain text" not in text


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsFault):
        Credentials.load(write(tmp_path / "c", "[[credential"))
    with pytest.raises(OSError):
        Credentials.load(tmp_path / "absent")


def test_connections_are_limited_in_all_and_by_address() -> None:
    admission = Admission(ListenerSettings(connections_max=3, connections_per_address_max=2))
    for address in ("a", "a"):
        assert admission.objection(address, 0.0) == ""
        admission.opened(address)
    assert admission.objection("a", 0.0) == "connections_per_address"
    admission.opened("b")
    assert admission.objection("c", 0.0) == "connections"
    admission.closed("a")
    assert admission.objection("a", 0.0) == ""


def test_an_address_with_many_wrong_passwords_is_unheard_for_a_minute() -> None:
    admission = Admission(ListenerSettings(failed_logins_per_minute_max=3))
    for now in (0.0, 30.0, 59.0):
        assert admission.objection("a", now) == ""
        admission.failed("a", now)
    assert admission.objection("a", 59.0 + BAN_S - 1) == "failed_logins"
    assert admission.objection("b", 60.0) == ""
    assert admission.objection("a", 59.0 + BAN_S) == ""


def test_wrong_passwords_now_and_then_are_forgiven() -> None:
    admission = Admission(ListenerSettings(failed_logins_per_minute_max=3))
    for now in range(0, 6000, 50):
        admission.failed("a", float(now))
        assert not admission.banned("a", float(now))
