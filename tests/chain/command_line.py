"""The command line in a process of its own, on a small profile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PROFILE = """
name = "test"
[source]
kind = "sample"
[calendar]
start = 2011-01-03
paper_start = 2013-02-26
end = 2013-02-28
[model]
train_years = 1
rounds = 10
early_stopping_rounds = 5
[backtest]
start = 2013-01-02
[expectations]
enabled = false
"""


def environment(root: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("AFTERCLOSE", "DAGSTER_HOME"))}
    return {**kept, "AFTERCLOSE_DATA": str(root), "COLUMNS": "200", "NO_COLOR": "1", **more}


def command(*words: str, profile: Path | None = None) -> list[str]:
    chosen = ["--profile", str(profile)] if profile else []
    return [sys.executable, "-m", "orchestration.cli", *chosen, *words]


def afterclose(root: Path, *words: str, profile: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*words, profile=profile),
        cwd=REPOSITORY,
        env=environment(root, **more),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
