"""The reference pages that are made from the code: data dictionary, settings, command line (`make docs`; a test holds them to it)."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from adapters.lake.delta import table_named
from orchestration.settings import REPOSITORY, FilesSourceSettings, SampleSettings, Settings
from quant.tables import TABLES, Column
from strategies.alpha_baseline.model import ModelSettings

_MADE = "<!-- Made by `make docs`; edit the code it describes. -->\n"


def data_dictionary() -> str:
    """Every table with grain, key and columns."""
    parts = [
        _MADE,
        "# Data dictionary\n",
        "Every table is a Delta Lake table in `data/lake/` and a view of its name in `data/afterclose.duckdb`.\n",
    ]
    for name in TABLES:
        table = table_named(name)
        parts.append(f"\n## {name}\n\n{table.grain}\n\nKey: {', '.join(table.key)}. Partitioned by {table.partition} of `{table.clock}`.")
        parts.append("Append-only.\n" if table.append_only else "A range of sessions is replaced at once.\n")
        parts.append("\n| column | type | unit | null | meaning |\n|---|---|---|---|---|")
        parts.extend(_row(column, spec) for column, spec in table.columns.items() if not _is_factor(name, column))
        if name == "alpha158":
            factors = [column for column in table.columns if _is_factor(name, column)]
            parts.append(f"| {factors[0]} ... {factors[-1]} | Float32 | | yes | Qlib's {len(factors)} columns: {', '.join(factors)} |")
    return "\n".join(parts) + "\n"


def _is_factor(table: str, column: str) -> bool:
    return table == "alpha158" and column not in ("session", "symbol")


def _row(name: str, column: Column) -> str:
    return f"| {name} | {column.dtype} | {column.unit} | {'yes' if column.nullable else ''} | {column.description} |".replace("  ", " ")


def settings_reference() -> str:
    """Every key of the profile with type, default and bounds."""
    parts = [
        _MADE,
        "# Settings\n",
        (
            "One profile (`afterclose.toml`, `--profile FILE` or `AFTERCLOSE_PROFILE`) and the environment: "
            "`AFTERCLOSE__SECTION__KEY=value` overrides a key. `AFTERCLOSE_DATA` names the data root. "
            "Unknown keys, unknown AFTERCLOSE variables and values out of range are refused.\n"
        ),
    ]
    for key, field in Settings.model_fields.items():
        kind = field.annotation
        if key == "source":
            for name, model in (("sample", SampleSettings), ("files", FilesSourceSettings)):
                parts += [f'\n## [source], kind = "{name}"\n', _doc(model), *_table(model)]
        elif key == "model":
            parts += [
                "\n## [model]\n",
                "Overrides of the strategy's own defaults (strategies/alpha_baseline/config.toml).",
                *_table(ModelSettings),
            ]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            parts += [f"\n## [{key}]\n", _doc(kind), *_table(kind)]
        else:
            parts.append(f"\n`{key}`: {_kind(kind)}\n")
    return "\n".join(parts) + "\n"


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "\n| key | type | default | bounds |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for nested, inner in kind.model_fields.items():
                yield _setting(f"{name}.{nested}", inner)
        else:
            yield _setting(name, field)


def _setting(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else field.get_default(call_default_factory=True)
    shown = "" if default is PydanticUndefined else str(default if not isinstance(default, Mapping) or default else "{}")
    bounds = ", ".join(str(m) for m in field.metadata)
    return f"| {name} | {_kind(field.annotation)} | {shown} | {bounds} |"


def _kind(annotation: object) -> str:
    if get_origin(annotation) is not None and str(get_origin(annotation)).endswith("Literal"):
        return " or ".join(repr(value) for value in get_args(annotation))
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return text.replace("typing.", "").replace("datetime.", "").replace("|", "or")


def command_line() -> str:
    """--help of every command."""
    from orchestration.cli import app

    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    parts = [_MADE, "# Command line\n"]
    parts.extend(f"\n## afterclose {name}".rstrip() + f"\n\n```text\n{_help(name)}```" for name in ["", *names])
    return "\n".join(parts) + "\n"


def _help(command: str) -> str:
    words = [sys.executable, "-m", "orchestration.cli", *([command] if command else []), "--help"]
    environment = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PATH": "", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    return (
        "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()).replace("python -m orchestration.cli", "afterclose")
        + "\n"
    )


PAGES = {"docs/data-dictionary.md": data_dictionary, "docs/settings.md": settings_reference, "docs/command-line.md": command_line}


def main(root: Path = REPOSITORY) -> None:
    """Write the pages."""
    for path, make in PAGES.items():
        (root / path).write_text(make())


if __name__ == "__main__":
    main()
