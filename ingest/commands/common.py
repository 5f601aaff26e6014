"""What several commands need: a config with faults shown as a person reads them, and the running engine.

Owns no behaviour of the engine.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ingest.config import Config
from ingest.configfile import ConfigFaults, load
from storage.fsync import replace_durably

ENGINE_FILE = "engine.json"
"""In the data folder: pid and ports of the engine that holds its lock."""
SOCKET_FILE = "ops.sock"
"""In the data folder, where the operators' port speaks TLS: the same answers, for whoever may enter the folder."""
ANSWER_S_MAX = 5.0
"""For its health; the engine answers in milliseconds or its loop hangs."""


class Number(click.FloatRange):
    """A number on the command line. What is none ("nan", "inf") lies in no range: click's own would let it through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As of FloatRange."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number to count with.", param, ctx)
        return number


# Of the commands that are a city's gateways.
hz_option = click.option(
    "--hz", default=1.0, show_default=True, type=Number(0, min_open=True), help="Readings a second and point."
)
qos_option = click.option("--qos", default=1, show_default=True, type=click.IntRange(0, 1))
batch_option = click.option(
    "--batch",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Readings a message; 0: one, on its own topic.",
)


def plain(text: object, keep: str = "") -> str:
    """Text of strangers as a terminal may show it: no control characters, which could move its cursor or worse."""
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in str(text))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else edits a file of ``path``'s folder by a command meanwhile: what is read, changed and written is one.

    Gateways are set up by scripts, several at once. Raises OSError.
    """
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def refuse_password(password: str, chars_min: int) -> None:
    """Raise ClickException for one that could never let anybody in, or lets in too many."""
    from storage.passwords import PASSWORD_BYTES_MAX

    if len(password) < chars_min:
        raise click.ClickException(f"a password has at least {chars_min} character{'s' * (chars_min > 1)}")
    if len(password.encode(errors="replace")) > PASSWORD_BYTES_MAX:
        raise click.ClickException(f"a password has at most {PASSWORD_BYTES_MAX:,} bytes")


def write_private(path: Path, text: str, like: Path, check: Callable[[Path], object] | None = None) -> None:
    """Put ``text`` into ``path``, whole or not at all, once ``check`` has read it.

    A file that was there keeps its mode and owner. A new one is for one user only: where root writes, that of ``like``
    (the data folder), since an engine of another user could not read it. Raises OSError, and what ``check`` raises.
    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tmp.touch(mode=0o600)
        tmp.write_text(text, "utf-8")
        if check is not None:
            check(tmp)
        there = path.exists()
        if os.geteuid() == 0 and (there or like.exists()):
            owner = (path if there else like).stat()
            os.chown(tmp, owner.st_uid, owner.st_gid)
        if there:
            tmp.chmod(path.stat().st_mode & 0o777)
        replace_durably(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def load_or_fail(path: str) -> Config:
    """The config, or every fault at once on standard error and exit code 2."""
    if not Path(path).is_file():
        raise click.ClickException(
            f"no config at {path}; name one with --config, or make one with `yuzui init DIR`"
        )
    try:
        return load(Path(path))
    except ConfigFaults as faults:
        lines = "\n".join(f"  {fault}" for fault in faults.faults)
        raise click.ClickException(f"{path}: {len(faults.faults)} fault(s)\n{lines}") from None


def running_on(config_path: str) -> tuple[Path, Config | None]:
    """The data folder, and the config where it is whole.

    An engine goes on with the config it has read: how it is can be asked while somebody types into the file.
    """
    try:
        config = load(Path(config_path))
    except ConfigFaults as faults:
        if faults.data_dir is None:
            config = load_or_fail(config_path)
        else:
            click.echo(f"note: {config_path} has {len(faults.faults)} fault(s): `yuzui check`", err=True)
            return Path(faults.data_dir), None
    return Path(config.data.dir), config


def noted(folder: Path, what: str, who: str = "", subject: str = "", detail: str = "") -> None:
    """To the audit log, with the name of whoever typed the command."""
    import getpass

    from storage import audit

    try:
        typed = getpass.getuser()
    except (OSError, KeyError):
        typed = f"user {os.getuid()}"
    audit.note(folder, audit.Act(what, who or typed, f"command line, {typed}", subject, detail))


def data_dir(config_path: str) -> Path:
    """The data folder the config names."""
    return Path(load_or_fail(config_path).data.dir)


def engine_vitals(folder: Path) -> dict[str, Any] | None:
    """/healthz of the engine running on a data folder; None where none answers.

    Raises ClickException where the folder is another user's: an engine may run there, and nobody should start a second.
    """
    try:
        engine = json.loads((folder / ENGINE_FILE).read_text())
        vitals = _asked(engine, folder, "/healthz")
        # After a kill the file stays, and another folder's engine or a stranger may have taken the port.
        return vitals if isinstance(vitals, dict) and vitals.get("pid") == engine["pid"] else None
    except PermissionError as fault:
        raise click.ClickException(
            f"{fault.filename or folder}: {fault.strerror}; run it as the engine's user: sudo -u yuzui yuzui …"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def engine_answer(folder: Path, path: str) -> Any | None:
    """JSON of a GET on the port of the engine that runs on a data folder; None where none answers."""
    if engine_vitals(folder) is None:
        return None
    try:
        engine = json.loads((folder / ENGINE_FILE).read_text())
        return _asked(engine, folder, path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Here(http.client.HTTPConnection):
    """HTTP through the engine's socket in its data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S_MAX)
        self._folder = folder

    def connect(self) -> None:
        """Through the folder's descriptor: the kernel takes no path longer than 107 bytes."""
        within = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(ANSWER_S_MAX)
            self.sock.connect(f"/proc/self/fd/{within}/{SOCKET_FILE}")
        finally:
            os.close(within)


def _asked(engine: dict[str, Any], folder: Path, path: str) -> Any:
    """JSON of a GET, ready (200) or not (503). Raises OSError, ValueError.

    Straight to it: a proxy of the environment (http_proxy) is for the world outside.
    """
    here: http.client.HTTPConnection = (
        _Here(folder)
        if engine.get("ops_tls")
        else http.client.HTTPConnection(engine["ops_host"], engine["ops_port"], timeout=ANSWER_S_MAX)
    )
    try:
        here.request("GET", path)
        return json.loads(here.getresponse().read())
    except http.client.HTTPException as fault:
        raise OSError(str(fault)) from fault
    finally:
        here.close()
