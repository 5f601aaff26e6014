"""Logins: who may look and who may act, sessions, one-time links, and how often a guess may be made.

Owns the users file and what stands of sessions in the data folder. Knows no HTTP. Passwords and tokens are never kept,
only hashes of them.

The file is TOML::

    [[user]]
    name = "wang"
    role = "operate"                         # or "view"
    password = "scrypt$16384$8$1$…$…"        # from `yuzui console user add`; never the password itself
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import tomllib
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from storage.passwords import is_password, parts_of

VIEW: Final = "view"
OPERATE: Final = "operate"
ROLES: Final = (VIEW, OPERATE)
NAME_MAX: Final = 100
SESSIONS_FILE: Final = "console-sessions.json"
LINKS_FOLDER: Final = "console-links"
TOKEN_BYTES: Final = 32
MINUTE_S: Final = 60.0
LOOK_S: Final = 1.0
"""The users file is looked at again at most this often: a user who was taken out is out within a second or so."""
WATCHED_MAX: Final = 10_000
"""Addresses and names whose failures are remembered; the oldest are forgotten first."""
SESSIONS_MAX: Final = 10_000


class UsersFault(ValueError):  # noqa: N818 - says what is wrong with a file
    """The users file is wrong; the text names every place."""


@dataclass(frozen=True, slots=True)
class User:
    """A row of the file."""

    name: str
    role: str
    password: str


@dataclass(frozen=True, slots=True)
class Session:
    """Who somebody is. ``mark`` changes with the user's password; "" where no user of the file stands behind it."""

    key: str
    name: str
    role: str
    mark: str
    expires: float

    @property
    def may_act(self) -> bool:
        """Acknowledge and silence."""
        return self.role == OPERATE


ANONYMOUS: Final = Session("", "", VIEW, "", float("inf"))
"""Somebody on this machine who has not said who they are."""


def read_users(path: Path) -> dict[str, User]:
    """The users by name. Raises UsersFault naming every fault, OSError."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise UsersFault(f"$: {fault}") from None
    faults = [f"$.{key}: unknown key" for key in table if key != "user"]
    rows = table.get("user", [])
    found: dict[str, User] = {}
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        where = f"$.user[{number}]"
        user = _user(row, where, faults)
        if user is not None and user.name in found:
            faults.append(f"{where}.name: {user.name!r} stands twice")
        elif user is not None:
            found[user.name] = user
    if faults:
        raise UsersFault("; ".join(faults))
    return found


def _user(row: object, where: str, faults: list[str]) -> User | None:
    if not isinstance(row, dict):
        faults.append(f"{where}: expected a table")
        return None
    before = len(faults)
    faults += [f"{where}.{key}: unknown key" for key in row if key not in ("name", "role", "password")]
    name, role, password = (row.get(key) for key in ("name", "role", "password"))
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_MAX:
        faults.append(f"{where}.name: expected a name of at most {NAME_MAX} characters")
    if role not in ROLES:
        faults.append(f"{where}.role: expected {' or '.join(ROLES)}")
    try:
        parts_of(password if isinstance(password, str) else "")
    except ValueError as fault:
        faults.append(f"{where}.password: {fault}; make one with `yuzui console user add`")
    return User(str(name), str(role), str(password)) if len(faults) == before else None


class Throttle:
    """How many guesses failed of late, by address and by name."""

    def __init__(self, per_minute_max: int) -> None:
        self._most = per_minute_max
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, *of: str) -> float:
        """Seconds until another guess may be made by (or at) all of these; 0 for now."""
        now = time.monotonic()
        waits = [0.0]
        for one in of:
            times = self._failed.get(one, deque())
            while times and now - times[0] >= MINUTE_S:
                times.popleft()
            if len(times) >= self._most:
                waits.append(MINUTE_S - (now - times[0]))
        return max(waits)

    def failed(self, *of: str) -> None:
        """A guess was wrong."""
        for one in of:
            self._failed.setdefault(one, deque(maxlen=self._most)).append(time.monotonic())
            self._failed.move_to_end(one)
        while len(self._failed) > WATCHED_MAX:
            self._failed.popitem(last=False)


class Logins:
    """The users and sessions of one engine. Reads the file again when it changes; ``check`` belongs in a thread."""

    def __init__(self, root: Path, users_file: str | None, session_s: float) -> None:
        """Raises UsersFault, OSError."""
        self._root = root
        self._path = Path(users_file) if users_file else None
        self._session_s = session_s
        self._looked_at = time.monotonic()
        self._stamp = self._stamp_of()
        self._users = read_users(self._path) if self._path else {}
        self._sessions: dict[str, Session] = {}
        self._load()

    def check(self, name: str, password: str) -> User | None:
        """The user whose password this is; as slow for a name that is not there."""
        user = self._current().get(name)
        return user if is_password(password.encode(), user.password if user else None) else None

    def knows(self, name: str) -> bool:
        """Whether the users file has this name."""
        return name in self._current()

    def open(self, name: str, role: str, password_hash: str = "") -> tuple[str, Session]:
        """A new session: the secret for the cookie, kept nowhere, and who it stands for. Raises OSError."""
        secret = secrets.token_urlsafe(TOKEN_BYTES)
        now = time.time()
        session = Session(_digest(secret), name, role, _mark(password_hash), now + self._session_s)
        self._sessions = {key: one for key, one in self._sessions.items() if one.expires > now}
        if len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].expires)]
        self._sessions[session.key] = session
        self._save()
        return secret, session

    def whose(self, secret: str | None) -> Session | None:
        """The session of a cookie; None where there is none (any more)."""
        session = self._sessions.get(_digest(secret)) if secret else None
        return session if session is not None and self.holds(session) else None

    def holds(self, session: Session) -> bool:
        """Whether it still does: not ended, not too old, and its user still has that role and password."""
        if session is ANONYMOUS:
            return True
        if session.key not in self._sessions or session.expires <= time.time():
            return False
        if not session.mark:
            return True
        user = self._current().get(session.name)
        return user is not None and user.role == session.role and _mark(user.password) == session.mark

    def close(self, session: Session) -> None:
        """It is over. Raises OSError."""
        if self._sessions.pop(session.key, None) is not None:
            self._save()

    def claim(self, token: str) -> tuple[str, str] | None:
        """Name and role of a one-time link, which is used up by this; None where there is none."""
        path = self._root / LINKS_FOLDER / _digest(token)
        try:
            link = orjson.loads(path.read_bytes())
            path.unlink()
        except (OSError, ValueError):
            return None
        return (str(link["name"]), str(link["role"])) if link["expires"] > time.time() else None

    def _current(self) -> dict[str, User]:
        now = time.monotonic()
        if self._path is not None and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            stamp = self._stamp_of()
            if stamp != self._stamp:
                try:
                    self._users, self._stamp = read_users(self._path), stamp
                except (UsersFault, OSError):
                    pass  # half written, or a mistake: those of before stay in force
        return self._users

    def _stamp_of(self) -> tuple[int, int]:
        if self._path is None or not self._path.exists():
            return 0, 0
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size

    def _load(self) -> None:
        try:
            rows = orjson.loads((self._root / SESSIONS_FILE).read_bytes())
            found = [Session(**row) for row in rows]
        except (OSError, ValueError, TypeError):
            return
        self._sessions = {one.key: one for one in found if one.expires > time.time()}

    def _save(self) -> None:
        rows = [
            {name: getattr(one, name) for name in ("key", "name", "role", "mark", "expires")}
            for one in self._sessions.values()
        ]
        _write_private(self._root / SESSIONS_FILE, orjson.dumps(rows))


def make_link(root: Path, name: str, role: str, lasts_s: float) -> str:
    """A one-time token with which somebody may log in as ``name`` without a password. Raises OSError."""
    folder = root / LINKS_FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        try:
            if orjson.loads(old.read_bytes())["expires"] <= time.time():
                old.unlink()
        except (OSError, ValueError, KeyError):
            continue
    token = secrets.token_urlsafe(TOKEN_BYTES)
    link = {"name": name, "role": role, "expires": time.time() + lasts_s}
    _write_private(folder / _digest(token), orjson.dumps(link))
    return token


def _write_private(path: Path, body: bytes) -> None:
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tmp.touch(mode=0o600)
    tmp.write_bytes(body)
    tmp.replace(path)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _mark(password_hash: str) -> str:
    return hashlib.sha256(password_hash.encode()).hexdigest()[:16] if password_hash else ""
