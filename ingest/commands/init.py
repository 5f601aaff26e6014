"""`yuzui init`: a folder with a config that works."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from shlex import quote
from typing import Final

import click

from ingest.shipped import PACKAGE, shipped
from ingest.shipped import command as called

TEMPLATE: Final = PACKAGE / "starting_point"
UNIT: Final = "yuzui.service"


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--listener-port",
    default=1883,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Of gateways; 0: any.",
)
@click.option(
    "--ops-port", default=9180, show_default=True, type=click.IntRange(0, 65535), help="Of operators; 0: any."
)
@click.option(
    "--service", is_flag=True, help=f"Also {UNIT} for systemd, with the paths of this installation."
)
def command(folder: Path, listener_port: int, ops_port: int, service: bool) -> None:
    """Write a config with comments, a source and two points as examples into FOLDER; it works as it stands.

    Nothing is overwritten: where one of the files is there already, nothing is written at all.
    """
    texts = _texts(folder.absolute(), listener_port, ops_port, service)
    there = [name for name in texts if (folder / name).exists()]
    if there:
        raise click.ClickException(
            f"{folder} has {', '.join(there)} already, and nothing is overwritten: name another folder"
        )
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as fault:
        raise click.ClickException(f"{folder}: {fault.strerror}") from None
    config = folder / "yuzui.toml"
    if service:
        click.echo("the unit may write below /var/lib/yuzui only: let [data] dir be there (docs/deploy.md)")
    click.echo(f"written: {', '.join(texts)} in {folder}\nnext:")
    message = '"{\\"ts\\": $(date +%s%3N), \\"v\\": 3.62}"'
    typed = quote(str(config))
    click.echo(f"  {called()} check -c {typed}")
    click.echo(f"  {called()} run -c {typed}")
    click.echo(f"  mosquitto_pub -p {listener_port or 'PORT'} -q 1 -t site/gw-1/level-1 -m {message}")
    click.echo(
        f'then: {called()} sql -c {typed} "SELECT point_id, time, value, flag_name(flag) FROM readings"'
    )


def _texts(folder: Path, listener_port: int, ops_port: int, service: bool) -> dict[str, str]:
    """Name below the folder to contents."""
    ports = {"@LISTENER_PORT@": str(listener_port), "@OPS_PORT@": str(ops_port)}
    found = {}
    for path in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        text = path.read_text("utf-8")
        for mark, port in ports.items():
            text = text.replace(mark, port)
        found[path.relative_to(TEMPLATE).as_posix()] = text
    found["sample.toml"] = shipped("sample.toml").read_text("utf-8")
    if service:
        ours = shutil.which("yuzui", path=str(Path(sys.executable).parent)) or shutil.which("yuzui")
        text = shipped(UNIT).read_text("utf-8").replace("/etc/yuzui/yuzui.toml", _word(folder / "yuzui.toml"))
        found[UNIT] = text.replace("/opt/yuzui/bin/yuzui", _word(ours)) if ours else text
    return found


def _word(path: Path | str) -> str:
    """A path as a word of ExecStart=: systemd cuts at spaces and has a meaning for %."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text
