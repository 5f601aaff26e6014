"""The users file, sessions, one-time links and guesses, without HTTP."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from console import logins
from console.logins import Logins, Throttle, UsersFault, make_link, read_users
from tests.console_client import users_toml


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", ["$.x: unknown key"]),
        ("[[user]]", ["$.user[0].name", "$.user[0].role", "$.user[0].password"]),
        ('[[user]]\nname = "a"\nrole = "root"\npassword = "plain"\nextra = 1', ["extra", "role", "password"]),
        (users_toml(a="view") + users_toml(a="view"), ["stands twice"]),
        ("user = 3", ["$.user[0]: expected a table"]),
        ('[[user]]\nname = "' + "x" * 101 + '"', ["at most 100"]),
        ("[[user", ["$: "]),
    ],
)
def test_every_fault_of_the_users_file_is_named(tmp_path: Path, text: str, says: list[str]) -> None:
    (tmp_path / "u.toml").write_text(text)
    with pytest.raises(UsersFault) as caught:
        read_users(tmp_path / "u.toml")
    assert [word for word in says if word not in str(caught.value)] == []


def test_a_password_changed_or_a_role_taken_ends_sessions_and_a_broken_file_changes_nothing(
    tmp_path: Path,
) -> None:
    users = tmp_path / "u.toml"
    users.write_text(users_toml(wang="operate", lin="view"))
    one = Logins(tmp_path, str(users), 3600)

    def changed(text: str) -> None:
        users.write_text(text)
        one._looked_at -= 2 * logins.LOOK_S

    secret, session = _open(one, "wang")
    assert one.whose(secret) == session
    assert one.check("wang", "lin") is None
    assert one.check("nobody", "x") is None
    assert one.check("wang", "x" * 5000) is None
    changed("[[user")
    assert one.whose(secret) == session, "half a file is no change"
    changed(users_toml(lin="view") + users_toml(wang="view"))
    assert one.whose(secret) is None
    secret, session = _open(one, "wang")
    assert not session.may_act
    changed(users_toml(wang="view", lin="view"))
    assert one.whose(secret) is None, "a new hash, so maybe a new password"
    assert one.whose("made up") is None
    assert one.whose(None) is None


def test_sessions_grow_old_and_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = tmp_path / "u.toml"
    users.write_text(users_toml(wang="operate"))
    one = Logins(tmp_path, str(users), 100)
    secret, _ = _open(one, "wang")
    token, late = make_link(tmp_path, "a", "view", 50), make_link(tmp_path, "b", "view", 500)
    now = time.time()
    monkeypatch.setattr(logins.time, "time", lambda: now + 101)
    assert one.whose(secret) is None
    assert one.claim(token) is None
    assert one.claim(late) == ("b", "view")
    assert one.claim(late) is None
    assert one.claim("../../u.toml") is None
    assert Logins(tmp_path, str(users), 100).whose(secret) is None


def test_guesses_are_slowed_by_name_and_by_address_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(logins.time, "monotonic", lambda: now[0])
    throttle = Throttle(3)
    for _ in range(3):
        assert throttle.wait_s("address 1", "name wang") == 0
        throttle.failed("address 1", "name wang")
        now[0] += 1
    assert throttle.wait_s("address 1", "name lin") == pytest.approx(57)
    assert throttle.wait_s("address 2", "name wang") == pytest.approx(57)
    assert throttle.wait_s("address 2", "name lin") == 0
    now[0] += 57.5
    assert throttle.wait_s("address 1", "name wang") == 0
    monkeypatch.setattr(logins, "WATCHED_MAX", 10)
    for number in range(50):
        throttle.failed(f"address {number}")
    assert len(throttle._failed) == 10, "a stranger cannot fill the memory"


def _open(one: Logins, name: str) -> tuple[str, logins.Session]:
    user = one.check(name, name)
    assert user is not None
    return one.open(user.name, user.role, user.password)
