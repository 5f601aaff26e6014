"""`yuzui credential`: who may publish what through the listener."""

from __future__ import annotations

from pathlib import Path

import click

from ingest.cli import config_option
from ingest.commands.common import alone, load_or_fail, refuse_password, write_private


@click.group()
def command() -> None:
    """Credentials of gateways. The engine reads the file at its start."""


@command.command()
@config_option
@click.argument("name")
@click.option(
    "--publish", multiple=True, required=True, help="Topic filter it may publish to; may be repeated."
)
@click.option("--password", envvar="YUZUI_CREDENTIAL_PASSWORD", help="Asked for where it is not given.")
@click.option(
    "--certificate", is_flag=True, help="No password: NAME is the common name of a client certificate."
)
def add(
    config_path: str, name: str, publish: tuple[str, ...], password: str | None, certificate: bool
) -> None:
    """Append NAME to the listener's credentials file; only a salted scrypt hash of the password is kept."""
    from ingest.credentials import Credentials, CredentialsFault, hash_password

    config = load_or_fail(config_path)
    file = config.listener.credentials_file
    if file is None:
        raise click.ClickException("the config names no $.listener.credentials_file")
    path = Path(file)
    if not certificate and password is None:
        password = click.prompt("password", hide_input=True, confirmation_prompt=True)
    if password is not None and not certificate:
        refuse_password(password, 1)
    lines = [f"\n[[credential]]\nname = {_quoted(name)}"]
    if password is not None and not certificate:
        lines.append(f"password = {_quoted(hash_password(password))}")
    lines.append(f"publish = [{', '.join(_quoted(f) for f in publish)}]\n")
    try:
        with alone(path):
            before = path.read_text("utf-8") if path.exists() else ""
            write_private(path, before + "\n".join(lines), Path(config.data.dir), Credentials.load)
    except CredentialsFault as fault:
        raise click.ClickException(f"nothing was changed: {fault}") from None
    click.echo(f"added {name} to {path}; it is taken at the engine's next start")


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise click.ClickException("control characters cannot stand in a name, filter or password hash")
    return f'"{escaped}"'
