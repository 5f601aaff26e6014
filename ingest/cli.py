"""The command line: `yuzui COMMAND`. Every command is a small module under ingest.commands.

Owns the group, the common options and how faults reach a person: one line each, exit code 2 for what
the person can mend, 1 for what went wrong, 0 else.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

COMMANDS = {
    "init": ("ingest.commands.init", "Write a config that works, with comments."),
    "run": ("ingest.commands.run", "Run the engine."),
    "check": ("ingest.commands.check", "Validate the config and the registry, offline."),
    "demo": ("ingest.commands.demo", "Run a whole simulated city: engine, gateways, storm, webhook."),
    "simulate": ("ingest.commands.simulate", "Be the city's gateways: publish readings over MQTT."),
    "city": ("ingest.commands.city", "The whole demo city of 365 systems: make, speak, check."),
    "replay": ("ingest.commands.replay", "Publish recorded readings over MQTT."),
    "backtest": ("ingest.commands.backtest", "Judge recorded readings with the same checks and rules."),
    "points": ("ingest.commands.points", "The registry: add, retire, propose, generate."),
    "source": ("ingest.commands.source", "Upstream systems: a new file, a captured message tried, counts."),
    "quarantine": (
        "ingest.commands.quarantine",
        "Refused messages: list, show, replay after a mapping is mended.",
    ),
    "credential": ("ingest.commands.credential", "Who may publish what through the listener."),
    "rules": ("ingest.commands.rules", "The city's rules with their sources; why a reading was judged so."),
    "sql": ("ingest.commands.sql", "Query the lake with DuckDB."),
    "tap": ("ingest.commands.tap", "Watch readings or refusals as they arrive."),
    "alert": ("ingest.commands.alert", "List, show, answer and test alerts."),
    "silence": ("ingest.commands.silence", "Mute alerts for a time: add, list, end."),
    "drill": ("ingest.commands.drill", "A made-up alert goes the whole way to whoever is called."),
    "report": ("ingest.commands.report", "The shift report."),
    "outbox": ("ingest.commands.outbox", "Notifications: list, retry, drop."),
    "console": ("ingest.commands.console", "The map: who may look and act, a link to log in with."),
    "status": ("ingest.commands.status", "One line on how the engine is, and an exit code."),
    "audit": ("ingest.commands.audit", "Who did what: acknowledgements, silences, reloads, logins."),
    "doctor": ("ingest.commands.doctor", "Measure what the engine depends on: disk, clock, connections."),
    "scrub": ("ingest.commands.scrub", "Verify every byte of the data folder; say what is damaged."),
    "backup": ("ingest.commands.backup", "Copy data folder and config while the engine runs."),
    "restore": ("ingest.commands.restore", "Make a data folder of a backup."),
    "verify": ("ingest.commands.verify", "Is a backup what it was when it was made."),
    "warm": ("ingest.commands.warm", "Compile what is compiled now, so that the engine starts at once."),
    "reload": ("ingest.commands.reload", "New rules and registry, without a restart."),
    "version": ("ingest.commands.version", "Versions of Yuzui and what it runs on."),
}


class Lazy(click.Group):
    """Imports a command's module only when it is called: `yuzui status` starts without DuckDB."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line a command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Yuzui 鱼嘴: takes a city's sensor readings over MQTT, acknowledges what is on disk, alerts in time."""


def config_option(function: Any) -> Any:
    """-c/--config, the same for every command."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        envvar="YUZUI_CONFIG",
        default="yuzui.toml",
        show_default=True,
        type=click.Path(dir_okay=False),
        help="Config file; YUZUI_CONFIG names another default.",
    )(function)


def json_option(function: Any) -> Any:
    """--json, the same for every command."""
    return click.option("--json", "as_json", is_flag=True, help="For machines: JSON, one object a line.")(
        function
    )


def main() -> None:
    """Entry point of the console script."""
    try:
        # Where it is not standalone click returns the code of an Exit instead of leaving with it.
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as fault:
        fault.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as fault:
        click.echo(f"Error: {_said(fault)}", err=True)
        sys.exit(1)
    except Exception as fault:
        if not isinstance(fault, _of_files()):
            raise
        text = str(fault).strip() or type(fault).__name__
        click.echo(f"Error: {text.splitlines()[0]}", err=True)
        sys.exit(1)


def _said(fault: OSError) -> str:
    """An OSError as a person reads it: the file, and what is the matter with it."""
    what = fault.strerror or str(fault) or type(fault).__name__
    if isinstance(fault, PermissionError):
        what += "; run it as a user who may, such as the engine's"
    return f"{fault.filename}: {what}" if fault.filename else what


def _of_files() -> tuple[type[Exception], ...]:
    """What libraries raise for a file that is damaged, locked or of another form. Those not imported raised nothing."""
    names = (("sqlite3", "DatabaseError"), ("duckdb", "Error"), ("polars.exceptions", "PolarsError"))
    return tuple(getattr(sys.modules[name], error) for name, error in names if name in sys.modules)


if __name__ == "__main__":
    main()
