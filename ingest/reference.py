"""docs/reference: pages made of the code itself, so that they say what is. ``scripts/reference`` writes them.

Owns the form of these pages. What stands in them is said where it is true: help in the commands, reasons of options in
configs/sample.toml, words for metrics in ingest.ops, comments of views in lake.sql.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ingest.cli import COMMANDS, cli
from ingest.config import Config
from ingest.configfaults import model_in

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
WIDTH: Final = 100
MADE: Final = "<!-- made by scripts/reference; change the code, not this page -->"


def commands() -> str:
    """Every command and what it says of itself."""
    parts = ["# Commands", MADE, "`yuzui COMMAND --help` says the same."]
    parts += [f"[{name}](#yuzui-{name})" for name in COMMANDS]
    lines = ["\n\n".join(parts[:3]), " · ".join(parts[3:])]
    for words, command in leaves(cli, ("yuzui",)):
        context = click.Context(
            command, info_name=" ".join(words), terminal_width=WIDTH, max_content_width=WIDTH,
            help_option_names=["-h", "--help"],
        )  # fmt: skip
        lines.append(f"## {' '.join(words)}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return "\n\n".join(lines) + "\n"


def leaves(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command with its words; a group before its own."""
    context = click.Context(group, info_name=words[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))


def config() -> str:
    """Every key of the config: type, default, bounds, what it is for."""
    said = comments((ROOT / "configs" / "sample.toml").read_text("utf-8"))
    lines = [
        "# Configuration",
        MADE,
        "One TOML file, and beside `FILE.toml` every `FILE.d/*.toml`. "
        "[configs/sample.toml](../../configs/sample.toml) shows all of it in place. "
        "`[[…]]` may stand several times. `yuzui check` names every fault with its path.",
    ]
    for loc, model in tables(Config):
        keys = {info.alias or name: info for name, info in model.model_fields.items() if not is_table(info)}
        if not keys:
            continue
        rows = ["| key | type | default | for |", "|---|---|---|---|"]
        for key, info in keys.items():
            words = said.get((loc, key), "")
            words = re.sub(r"^default\. ?", "", words).replace("|", "\\|")
            rows.append(f"| `{key}` | {type_of(info)} | {default_of(info)} | {words} |")
        lines.append(f"## {heading(loc)}\n\n" + "\n".join(rows))
    return "\n\n".join(lines) + "\n"


def tables(
    model: type[BaseModel], loc: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every table of the config with its place; of arrays and kinds, the table that repeats."""
    yield loc, model
    for name, info in model.model_fields.items():
        inner = model_in(info.annotation)
        if inner is not None:
            yield from tables(inner, (*loc, name))


def is_table(info: FieldInfo) -> bool:
    """Whether a field is a table of its own, or an array of them."""
    return model_in(info.annotation) is not None


def heading(loc: tuple[str, ...]) -> str:
    """``[listener]``, ``[[webhook]]``, ``[kinds.NAME]``."""
    model: type[BaseModel] = Config
    words, array = [], False
    for name in loc:
        annotation = model.model_fields[name].annotation
        words.append(name)
        array = get_origin(annotation) is list
        if get_origin(annotation) is dict:
            words.append("NAME")
        inner = model_in(annotation)
        assert inner is not None
        model = inner
    text = ".".join(words)
    return f"`[[{text}]]`" if array else f"`[{text}]`"


def comments(text: str) -> dict[tuple[tuple[str, ...], str], str]:
    """(table, key) → the words behind it in the sample, commented out or not; of several the first."""
    known = {loc for loc, _ in tables(Config)}
    found: dict[tuple[tuple[str, ...], str], str] = {}
    loc: tuple[str, ...] = ()
    for line in re.sub(r"^# (\w+ = .*)$", r"\1", text, flags=re.MULTILINE).splitlines():
        if head := re.fullmatch(r"\[+([\w.-]+)\]+", line):
            loc = tuple(head[1].split("."))
            while loc not in known:  # the last part is a name, of a kind or a point
                loc = loc[:-1]
        elif option := re.match(r"(\w+) = (.*)$", line):
            found.setdefault((loc, option[1]), option[2].rpartition("  # ")[2] if "  # " in option[2] else "")
    return found


_NAMES: Final = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): ""}


def type_of(info: FieldInfo) -> str:
    """A type as a person says it, with its bounds."""
    words = _type(info.annotation)
    bounds = [
        f"{sign} {getattr(one, name):g}"
        for one in info.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(one, name, None) is not None
    ]
    return f"{words}, {', '.join(bounds)}" if bounds else words


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"table of {_type(inner[1])}"
    if origin is not None and "Literal" in str(origin):
        return " or ".join(f"`{value}`" for value in inner)
    if inner:
        return " or ".join(word for word in dict.fromkeys(_type(one) for one in inner) if word)
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default_of(info: FieldInfo) -> str:
    """The default as TOML has it."""
    if info.is_required():
        return "**needed**"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return ""
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    shown = text or (f'"{value}"' if isinstance(value, str) else f"{value}").replace("'", '"')
    return f"`{shown}`".replace("|", "\\|")


def metrics() -> str:
    """Every metric of /metrics."""
    from ingest.ops import COUNTERS, GAUGES, LABELLED, LABELLED_GAUGES, OF_SOURCE

    rows = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    rows += [f"| `yuzui_{key}_total` | counter | | {text} |" for key, text in COUNTERS.items()]
    rows += [f"| `yuzui_{key}` | gauge | | {text} |" for key, text in GAUGES.items()]
    for key, (text, labels) in LABELLED.items():
        rows.append(f"| `yuzui_{key}_total` | counter | {', '.join(labels)} | {text} |")
    for key, (text, labels) in LABELLED_GAUGES.items():
        rows.append(f"| `yuzui_{key}` | gauge | {', '.join(labels)} | {text} |")
    for key, (text, grows) in OF_SOURCE.items():
        name, kind = (f"yuzui_source_{key}_total", "counter") if grows else (f"yuzui_source_{key}", "gauge")
        rows.append(f"| `{name}` | {kind} | source | {text} |")
    words = (
        "On the operators' port, for Prometheus. [prometheus-rules.yml](../../configs/prometheus-rules.yml) and "
        "[grafana-dashboard.json](../../configs/grafana-dashboard.json) use them; "
        "what to do stands in the [runbook](../runbook.md)."
    )
    return "\n\n".join(["# Metrics", MADE, words, "\n".join(rows)]) + "\n"


def reasons() -> str:
    """Why a message is refused, and why the engine is not ready."""
    from ingest.decode.reasons import REASONS as REFUSALS
    from ingest.readiness import REASONS

    refusals = ["| reason | MQTT 5 | what to do |", "|---|---|---|"]
    refusals += [f"| `{one.name}` | 0x{one.code:02x} | {one.advice} |" for one in REFUSALS.values()]
    ready = ["| reason | what it is |", "|---|---|"]
    ready += [f"| [`{name}`](../runbook.md#{name}) | {text} |" for name, text in REASONS.items()]
    return (
        "\n\n".join(
            [
                "# Reasons",
                MADE,
                "## Of refusals\n\nIn the view `quarantine`, in `yuzui_refused_total`, and in the PUBACK of MQTT 5.",
                "\n".join(refusals),
                "## Of /readyz\n\nIn `/readyz`, `yuzui status` and `yuzui_not_ready_by_reason`.",
                "\n".join(ready),
            ]
        )
        + "\n"
    )


def views() -> str:
    """Every view and macro of lake.sql, with the columns of an empty lake."""
    from storage.query import connect, write_lake_sql

    said = described((ROOT / "storage" / "sql" / "lake.sql").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        write_lake_sql(Path(folder), "Asia/Shanghai", 7200)
        con = connect(Path(folder))
        found = con.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal AND NOT starts_with(view_name, 'yuzui_')"
        ).fetchall()
        names = sorted(row[0] for row in found)
        columns = {name: con.execute(f'DESCRIBE "{name}"').fetchall() for name in names}
        macros = con.execute(
            "SELECT DISTINCT function_name, parameters, function_type FROM duckdb_functions() "
            "WHERE NOT internal AND NOT starts_with(function_name, 'yuzui_') AND function_type LIKE '%macro' "
            "ORDER BY 1, 2"
        ).fetchall()
        con.close()
    lines = [
        "# Views and macros",
        MADE,
        "Of `lake.sql`, in any DuckDB; recipes stand in [sql.md](../sql.md).",
        "## Views",
    ]
    for name in names:
        rows = ["| column | type |", "|---|---|", *(f"| `{row[0]}` | {row[1]} |" for row in columns[name])]
        lines.append(
            "\n\n".join(part for part in (f"### {name}", said.get(name, ""), "\n".join(rows)) if part)
        )
    rows = ["| macro | gives | what |", "|---|---|---|"]
    for name, parameters, kind in macros:
        words = said.get(name, "").replace("\n", " ").replace("|", "\\|")
        rows.append(
            f"| `{name}({', '.join(parameters)})` | {'rows' if kind == 'table_macro' else 'a value'} | {words} |"
        )
    return "\n\n".join([*lines, "## Macros", "\n".join(rows)]) + "\n"


def described(text: str) -> dict[str, str]:
    """Name of a view or macro → the comment right above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in text.splitlines():
        if line.startswith("--"):
            above.append(line.removeprefix("--").strip())
            continue
        if made := re.match(r"CREATE OR REPLACE (?:VIEW|MACRO) (\w+)", line):
            found.setdefault(made[1], " ".join(above))
        above = []
    return found


PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": commands,
    "config.md": config,
    "metrics.md": metrics,
    "reasons.md": reasons,
    "views.md": views,
}


def main() -> None:
    """Write all pages; with --check say which are not what the code says, exit code 1."""
    stale = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    print(
        f"{len(PAGES)} pages, {'stale' if '--check' in sys.argv[1:] else 'written'}: {', '.join(stale) or 'none'}"
    )
    sys.exit(1 if stale and "--check" in sys.argv[1:] else 0)


if __name__ == "__main__":
    main()
