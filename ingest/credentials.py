"""Who may publish what: the credentials file.

Owns its format, password hashes and the match of topics to filters. Knows nothing of connections.

The file is TOML::

    [[credential]]
    name = "gateway-0042"
    password = "scrypt$16384$8$1$…$…"          # from hash_password; never the password itself
    publish = ["cd/gateway-0042/#"]

A credential without a password serves client certificates: its name is the certificate's common name.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from ingest.mqtt.fields import MalformedPacket
from ingest.mqtt.topics import check_filter, filter_levels, matches
from storage.passwords import PASSWORD_BYTES_MAX as PASSWORD_BYTES_MAX
from storage.passwords import hash_password as hash_password
from storage.passwords import is_password, parts_of

TOPICS_REMEMBERED_MAX = 200_000
"""Topics found allowed and kept so; beyond it they are forgotten and found again. Refusals are not kept:
a stranger could fill any memory with them."""


class CredentialsFault(ValueError):  # noqa: N818 - house word for what is wrong with a file
    """The file is wrong; ``faults`` names every place."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(slots=True)
class Credential:
    """One row of the file; ``publish`` as levels of its filters."""

    name: str
    hash: str | None
    publish: list[list[str]] = field(default_factory=list)


class Credentials:
    """The credentials of one file. ``verify`` may run in any thread; ``allows`` in the loop's only."""

    def __init__(self, rows: list[Credential], *, required: bool = True) -> None:
        self.required = required
        """Whether a name must stand in the file. Not where there is no file: then everyone whom the
        listener admits (loopback, or any certificate of its CA) may publish everything."""
        self._rows = {row.name: row for row in rows}
        self._allowed: set[tuple[str, str]] = set()
        self._verified: dict[str, bytes] = {}
        self._secret = os.urandom(32)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    @staticmethod
    def load(path: str | Path | None) -> Credentials:
        """Read the file; None is no file. Raises CredentialsFault naming every fault, OSError."""
        if path is None:
            return Credentials([], required=False)
        try:
            table = tomllib.loads(Path(path).read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise CredentialsFault([f"$: {fault}"]) from None
        faults = [f"$.{key}: unknown key" for key in table if key != "credential"]
        rows: list[Credential] = []
        names: set[str] = set()
        listed = table.get("credential", [])
        if not isinstance(listed, list):
            raise CredentialsFault([*faults, "$.credential: expected [[credential]] tables"])
        for index, row in enumerate(listed):
            found = _read(row, f"$.credential[{index}]", faults)
            if found.name in names:
                faults.append(f"$.credential[{index}].name: {found.name!r} stands twice")
            names.add(found.name)
            rows.append(found)
        if faults:
            raise CredentialsFault(faults)
        return Credentials(rows)

    def verify(self, name: str, password: bytes) -> bool:
        """Whether ``password`` is the one of ``name``. Takes some 50 ms; call it in a thread.

        A password that was right once is remembered as a keyed digest in memory, so that a city of
        gateways coming back after a power cut does not wait a minute for scrypt.
        """
        if len(password) > PASSWORD_BYTES_MAX:
            return False
        digest = hashlib.blake2b(password, key=self._secret, digest_size=32).digest()
        with self._lock:
            known = self._verified.get(name)
        if known is not None and hmac.compare_digest(known, digest):
            return True
        row = self._rows.get(name)
        right = is_password(password, row.hash if row else None)
        if right:
            with self._lock:
                self._verified[name] = digest
        return right

    def allows(self, name: str | None, topic: str) -> bool:
        """Whether the credential ``name`` may publish to ``topic``; nobody (None) and strangers may not."""
        if not self.required:
            return True
        if name is None:
            return False
        if (name, topic) in self._allowed:
            return True
        row = self._rows.get(name)
        if row is None or not any(matches(levels, topic) for levels in row.publish):
            return False
        if len(self._allowed) >= TOPICS_REMEMBERED_MAX:
            self._allowed.clear()
        self._allowed.add((name, topic))
        return True


def _read(row: object, path: str, faults: list[str]) -> Credential:
    """One [[credential]]; every fault is added to ``faults`` with its path."""
    if not isinstance(row, dict):
        faults.append(f"{path}: expected a table")
        return Credential("", None)
    faults += [f"{path}.{key}: unknown key" for key in row if key not in ("name", "password", "publish")]
    name, password, publish = row.get("name"), row.get("password"), row.get("publish")
    found = Credential(name if isinstance(name, str) else "", None)
    if not found.name:
        faults.append(f"{path}.name: expected a name")
    if isinstance(password, str):
        found.hash = password
        try:
            parts_of(password)
        except ValueError as fault:
            faults.append(f"{path}.password: {fault}; make one with `yuzui credential add`")
    elif password is not None:
        faults.append(f"{path}.password: expected a hash")
    if not isinstance(publish, list) or not publish:
        faults.append(f"{path}.publish: expected a list of topic filters")
        return found
    for index, pattern in enumerate(publish):
        try:
            found.publish.append(filter_levels(check_filter(pattern)))
        except (MalformedPacket, AttributeError, TypeError) as fault:
            faults.append(f"{path}.publish[{index}]: {fault}")
    return found
