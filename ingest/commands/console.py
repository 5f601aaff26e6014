"""`yuzui console`: who may look at the map and who may act, and a link to log in with."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ingest.cli import config_option, json_option
from ingest.commands.common import ENGINE_FILE, alone, load_or_fail, refuse_password, write_private
from ingest.commands.silence import span_us

PASSWORD_CHARS_MIN = 10
ROLES = ("view", "operate")
LINK_S_MAX = 86_400


@click.group()
def command() -> None:
    """The map's logins. A running engine takes changes within seconds."""


@command.group()
def user() -> None:
    """Who may look (view) and who may acknowledge and silence too (operate)."""


@user.command("add")
@config_option
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="view", show_default=True)
@click.option("--password", envvar="YUZUI_CONSOLE_PASSWORD", help="Asked for where it is not given.")
@click.option("--replace", is_flag=True, help="NAME is there already: give it this password and role.")
def add(config_path: str, name: str, role: str, password: str | None, replace: bool) -> None:
    """Add NAME to the console's users file; only a salted scrypt hash of the password is kept."""
    from storage.passwords import hash_password

    path, data = _file(config_path)
    _refuse_known(name, _rows(path), replace)
    if password is None:
        password = click.prompt("password", hide_input=True, confirmation_prompt=True)
    refuse_password(password, PASSWORD_CHARS_MIN)
    with alone(path):
        known = _rows(path)
        _refuse_known(name, known, replace)  # another may have added it while a password was typed
        rows = [row for row in known if row["name"] != name]
        rows.append({"name": name, "role": role, "password": hash_password(password)})
        _write(path, rows, data)
    click.echo(f"{name} may {'look and act' if role == 'operate' else 'look'}")


def _refuse_known(name: str, rows: list[dict[str, Any]], replace: bool) -> None:
    if not replace and name in [row["name"] for row in rows]:
        raise click.ClickException(f"{name} is there already; --replace gives a new password and role")


@user.command("list")
@config_option
@json_option
def list_(config_path: str, as_json: bool) -> None:
    """Names and roles."""
    rows = _rows(_file(config_path)[0])
    for row in rows:
        click.echo(json.dumps({k: row[k] for k in ("name", "role")}, ensure_ascii=False) if as_json
                   else f"{row['role']:8} {row['name']}")  # fmt: skip
    if not rows and not as_json:
        click.echo("no users")


@user.command("remove")
@config_option
@click.argument("name")
def remove(config_path: str, name: str) -> None:
    """Take NAME out; its maps are closed within seconds."""
    path, data = _file(config_path)
    with alone(path):
        rows = _rows(path)
        left = [row for row in rows if row["name"] != name]
        if len(left) == len(rows):
            raise click.ClickException(f"no user {name}")
        _write(path, left, data)
    click.echo(f"{name} is out")


@command.command()
@config_option
@click.option("--name", required=True, help="Who: what they do is kept under this name.")
@click.option("--role", type=click.Choice(ROLES), default="view", show_default=True)
@click.option("--for", "span", default="15m", show_default=True, help="How long it can be used: 15m, 2h.")
def link(config_path: str, name: str, role: str, span: str) -> None:
    """Print a link that logs somebody in once, without a password. Needs to write to the data folder."""
    make_link = _make_link()
    config = load_or_fail(config_path)
    lasts_s = span_us(span) / 1e6
    _quoted(name)
    if not 0 < lasts_s <= LINK_S_MAX:
        raise click.ClickException("a link can be used for at most a day")
    root = Path(config.data.dir)
    address = _address(root)
    if address is None:
        raise click.ClickException(f"no engine with a map runs on {root}")
    click.echo(f"{address}#token={make_link(root, name, role, lasts_s)}")


def _make_link() -> Any:
    try:
        from console.logins import make_link
    except ModuleNotFoundError:
        raise click.ClickException("the console is not installed: yuzui[console]") from None
    return make_link


def _address(root: Path) -> str | None:
    try:
        found: str | None = json.loads((root / ENGINE_FILE).read_text()).get("console")
    except (OSError, ValueError):
        return None
    return found


def _file(config_path: str) -> tuple[Path, Path]:
    """The users file, and the data folder, whose owner is the engine's user."""
    config = load_or_fail(config_path)
    if config.console.users_file is None:
        raise click.ClickException("the config names no $.console.users_file")
    return Path(config.console.users_file), Path(config.data.dir)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = tomllib.loads(path.read_text("utf-8")).get("user", [])
        return [{key: str(row[key]) for key in ("name", "role", "password")} for row in rows]
    except (ValueError, KeyError, TypeError) as fault:
        raise click.ClickException(f"{path} cannot be read: {fault}") from None


def _write(path: Path, rows: list[dict[str, Any]], like: Path) -> None:
    body = "".join(
        "[[user]]\n" + "".join(f"{key} = {_quoted(value)}\n" for key, value in row.items()) + "\n"
        for row in rows
    )
    check: Callable[[Path], object] | None = None
    with suppress(ModuleNotFoundError):  # without the console nobody reads it yet
        from console.logins import read_users

        check = read_users
    try:
        write_private(path, body, like, check)
    except ValueError as fault:
        raise click.ClickException(f"nothing was changed: {fault}") from None


def _quoted(text: str) -> str:
    """A TOML basic string."""
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in text) or not text.strip():
        raise click.ClickException("a name is text without control characters")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
