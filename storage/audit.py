"""Who did what: acknowledgements, silences, reloads, logins, a line each, for ever.

Owns the file ``audit.jsonl`` of the data folder. It is only ever appended to. Each line carries a hash over itself and
the line before, so a line that was changed, taken out or put in between is found. What is noted holds no secret.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from storage.fsync import fsync_dir

log = logging.getLogger("yuzui.audit")

FILE: Final = "audit.jsonl"
FORMAT: Final = 1
"""Of a line, in its field ``format``."""
TEXT_MAX: Final = 500
LINE_BYTES_MAX: Final = 16 * 1024
"""Six texts of TEXT_MAX characters, escaped, and the rest: the last line is within so many bytes of the end."""
FIRST: Final = ""
"""What stands before the first line."""
LOGIN, LOGIN_REFUSED, LOGOUT = "login", "login_refused", "logout"
ACKNOWLEDGED, SILENCED, UNSILENCED = "acknowledged", "silenced", "silence_ended"
RELOADED, RELOAD_REFUSED, RELOAD_ASKED = "reloaded", "reload_refused", "reload_asked"
KINDS: Final = (
    LOGIN, LOGIN_REFUSED, LOGOUT, ACKNOWLEDGED, SILENCED, UNSILENCED, RELOADED, RELOAD_REFUSED, RELOAD_ASKED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Act:
    """One thing somebody did.

    what     one of KINDS
    who      the person, as they said or as they logged in; "" where that is not known
    through  where they did it: "console 10.0.0.7", "command line, root", "signal"
    subject  what it was done to: an alert, a silence's number, a digest
    detail   their note, why, or what was refused
    """

    what: str
    who: str = ""
    through: str = ""
    subject: str = ""
    detail: str = ""


class AuditFault(ValueError):  # noqa: N818 - says what is wrong with the file
    """The file is not as it was written; the text names the line."""


def note(root: Path, act: Act) -> bool:
    """Append an act and put it on disk; False, and a log line, where that cannot be done.

    What a person does on the night of a flood is never refused because it cannot be noted.
    """
    assert act.what in KINDS, act.what
    try:
        _append(root / FILE, act)
    except (OSError, ValueError) as fault:
        log.error("not noted in the audit log: %s by %r: %s", act.what, act.who, fault)
        return False
    return True


def _append(path: Path, act: Act) -> None:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        last = _last(fd)
        said = {name: str(text)[:TEXT_MAX] for name, text in asdict(act).items()}
        body = {
            "format": FORMAT,
            "n": last["n"] + 1,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **said,
        }
        line = json.dumps({**body, "hash": _hash(last["hash"], body)}, ensure_ascii=False)
        whole = line.encode() + b"\n"
        if os.write(fd, whole) != len(whole):
            # What a disk takes of a line before it is full is closed by the next; it is not noted.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
    finally:
        os.close(fd)
    if last["n"] == 0:
        fsync_dir(path.parent)


def _last(fd: int) -> dict[str, Any]:
    """The last whole line. A line that a full disk or a power cut left unfinished is closed, and stays."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, LINE_BYTES_MAX * 2, max(0, size - LINE_BYTES_MAX * 2))
    if tail and not tail.endswith(b"\n"):
        os.write(fd, b"\n")
    for line in reversed(tail.split(b"\n")):
        try:
            found: dict[str, Any] = json.loads(line)
            return {"n": int(found["n"]), "hash": str(found["hash"])}
        except (ValueError, KeyError, TypeError):
            continue
    return {"n": 0, "hash": FIRST}


def _hash(before: str, body: dict[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()[:32]


def format_of(root: Path) -> int:
    """Of the last whole line; 0 where there is none."""
    last: dict[str, Any] = {}
    for last in read(root):  # noqa: B007 - the last one is wanted
        pass
    return int(last.get("format", 0))


def read(root: Path, *, verify: bool = False) -> Iterator[dict[str, Any]]:
    """All that was noted, the oldest first, as dicts with format, n, at, what, who, through, subject, detail.

    Raises AuditFault, with ``verify`` at the first line that does not follow from the one before.
    """
    before, number = FIRST, 0
    try:
        raw = (root / FILE).read_bytes()
    except FileNotFoundError:
        return
    last_is_whole = True
    at = 0
    for at, line in enumerate(raw.removesuffix(b"\n").split(b"\n") if raw else (), 1):
        try:
            body = json.loads(line)
            said = body.pop("hash")
        except (ValueError, KeyError, AttributeError):
            last_is_whole = False  # cut short, or damaged: then the next does not follow
            continue
        last_is_whole = True
        if verify and (said != _hash(before, body) or body.get("n") != number + 1):
            raise AuditFault(
                f"line {at} of {FILE} does not follow from the one before: it was changed or moved"
            )
        before, number = said, int(body.get("n", number + 1))
        yield body
    if verify and not last_is_whole and raw.endswith(b"\n"):
        raise AuditFault(f"line {at} of {FILE} is not whole")
