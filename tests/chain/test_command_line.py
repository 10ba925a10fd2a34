"""The command line as people use it: exit codes, messages that say what to do, and a job that can be killed and run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from adapters.sources.sample import SampleSource
from tests.chain.command_line import PROFILE, afterclose


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good profile on files, from which each case spoils one thing."""
    made = tmp_path_factory.mktemp("inputs")
    source, last = SampleSource(), date(2010, 3, 31)
    source.bars(date(2010, 1, 4), last).drop("vwap").write_csv(made / "bars.csv")
    source.actions(date(2010, 1, 4), last).write_csv(made / "actions.csv")
    (made / "empty").mkdir()
    return made


FILES = """
name = "files"
[source]
kind = "files"
universe = {universe}
[source.files]
bars = "{bars}"
actions = "{actions}"
convention = "ex_date_close"
absent = ["vwap"]
[calendar]
start = 2010-01-04
paper_start = {paper_start}
"""


def spoilt(
    folder: Path,
    name: str,
    *,
    bars: str | None = None,
    actions: str | None = None,
    file: str = "bars.csv",
    universe: str = '"all"',
    paper_start: str = "2010-03-01",
    more: str = "",
) -> Path:
    chosen = file if bars is None else f"{name}.csv"
    if bars is not None:
        (folder / chosen).write_text(bars)
    announced = "actions.csv" if actions is None else f"{name}-actions.csv"
    if actions is not None:
        (folder / announced).write_text(actions)
    profile = folder / f"{name}.toml"
    profile.write_text(FILES.format(universe=universe, bars=chosen, actions=announced, paper_start=paper_start) + more)
    return profile


def lines(folder: Path) -> list[str]:
    return (folder / "bars.csv").read_text().splitlines()


def swapped(folder: Path, column: str, value: str) -> str:
    head, first, *rest = lines(folder)
    cells = dict(zip(head.split(","), first.split(","), strict=True)) | {column: value}
    return "\n".join([head, ",".join(cells.values()), *rest])


def renamed(folder: Path) -> str:
    head, *rest = lines(folder)
    return "\n".join([head.replace("close", "klose"), *rest])


@pytest.mark.parametrize(
    ("case", "spoil", "expected", "found"),
    [
        ("missing column", lambda f: {"bars": renamed(f)}, "close", "close"),
        ("wrong dtype", lambda f: {"bars": swapped(f, "open", "abc")}, "open", "abc"),
        ("duplicate keys", lambda f: {"bars": "\n".join([*lines(f), lines(f)[1]])}, "symbol", "2010-01-04"),
        ("negative price", lambda f: {"bars": swapped(f, "low", "-1")}, "low", "-1"),
        ("negative dividend", lambda f: {"actions": "ex_date,symbol,kind,value\n2010-02-08,IBM,dividend,-1.0"}, "value", "-1.0"),
        ("no session", lambda f: {"bars": swapped(f, "session", "2010-01-09")}, "session", "2010-01-09"),
        ("unknown symbol", lambda f: {"universe": '["AAPL", "NOPE"]'}, "NOPE", "AAPL"),
        ("paper start on a Saturday", lambda f: {"paper_start": "2010-02-27"}, "paper_start", "2010-02-27"),
        ("empty folder", lambda f: {"file": "empty"}, "empty", "none"),
        ("unknown setting", lambda f: {"more": "[portfolio]\ngros = 1.0\n"}, "known setting", "gros"),
        ("out of range", lambda f: {"more": "[portfolio]\ngross_exposure_ratio = -1\n"}, "gross_exposure_ratio", "-1"),
        ("too little history", lambda f: {}, "a paper start in 2013 or later", "paper start 2010-03-01"),
        ("misspelt variable", lambda f: {"variables": {"AFTERCLOSE_DAAT": "x"}}, "AFTERCLOSE_DATA", "AFTERCLOSE_DAAT"),
        ("unknown profile", lambda f: {"profile": f / "nowhere.toml"}, "profile", "no such file"),
    ],
)
def test_bad_input_gives_one_clear_message_exit_code_2_and_writes_nothing(
    folder: Path, tmp_path: Path, case: str, spoil: Callable[[Path], dict[str, Any]], expected: str, found: str
):
    spoilt_by = spoil(folder)
    variables = spoilt_by.pop("variables", {})
    profile = spoilt_by.pop("profile", None) or spoilt(folder, case.replace(" ", "-"), **spoilt_by)
    root = tmp_path / "root"
    done = afterclose(root, "history", profile=profile, **variables)
    message = done.stderr.replace("\n", " ")
    assert done.returncode == 2, done.stderr
    assert "wrong input: expected" in message
    assert "found" in message
    assert expected in message
    assert found in message
    assert "Traceback" not in message
    assert not (root / "lake").exists()
    assert not (root / "ledger.sqlite").exists()
    assert not (root / "identity.json").exists()  # the corrected profile may use this root


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper-run", "--session", "2013-02-18"], "2013-02-18"),
        (["paper-run", "--session", "yesterday"], "YYYY-MM-DD"),
        (["paper-run", "--session", "2013-03-01"], "2013-02-28"),
        (["paper-run"], "afterclose history"),
        (["backfill", "--from", "2013-02-27", "--to", "2013-02-26"], "swap them"),
        (["sql", "select 1"], "afterclose demo"),
        (["report"], "afterclose demo"),
    ],
)
def test_a_wrong_question_is_answered_with_what_to_do(folder: Path, words: list[str], message: str):
    profile = folder / "p.toml"
    profile.write_text(PROFILE)
    done = afterclose(folder / "fresh", *words, profile=profile)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.replace("\n", " ")


@pytest.mark.parametrize("query", ["", "  ;", "-- nothing", "select 1; select 2", "copy (select 1) to 'written.csv'"])
def test_a_query_that_asks_nothing_or_twice_or_writes_is_answered_with_what_to_do(tmp_path: Path, query: str):
    import duckdb

    duckdb.connect(str(tmp_path / "afterclose.duckdb")).close()
    done = afterclose(tmp_path, "sql", "--", query)
    assert done.returncode == 2, done.stderr
    assert "expected one SQL statement" in done.stderr
    assert "show tables" in done.stderr


def test_rows_that_do_not_fit_the_terminal_are_shown_one_value_a_line_and_none_is_cut(capsys: pytest.CaptureFixture[str]):
    from orchestration import cli

    columns = [f"a_rather_long_column_{n}" for n in range(9)]
    cli.print_rows([[f"value {n} [of] 9" for n in range(9)]], columns)
    shown = capsys.readouterr().out
    assert all(f"{name}  value {n} [of] 9" in shown for n, name in enumerate(columns))
    assert [cli.plain(value) for value in (Decimal("2.000000000"), Decimal("0E-9"), Decimal(1000), None)] == ["2", "0", "1000", ""]


def test_rows_in_several_pieces_are_all_written_as_json_and_texts_as_they_are(capsys: pytest.CaptureFixture[str]):
    from orchestration import terminal

    halves = [pl.DataFrame({"symbol": [symbol]}) for symbol in ("A", ":x: [B]")]
    terminal.print_frame(pl.concat(halves, rechunk=False), as_json=True, as_csv=False, nothing="")
    assert json.loads(capsys.readouterr().out) == [{"symbol": "A"}, {"symbol": ":x: [B]"}]
    terminal.print_frame(pl.concat(halves), as_json=False, as_csv=False, nothing="")
    assert ":x: [B]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bars", "odd.csv"], "expected bars as Parquet or CSV with session, symbol, open, high, low, close, volume"),
        (["--cash", "-5"], "expected an amount above zero"),
    ],
)
def test_a_stand_in_is_not_served_from_what_makes_no_market(folder: Path, words: list[str], message: str):
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    given = [str(folder / word) if word.endswith(".csv") else word for word in words]
    done = afterclose(folder / "unused", "broker", "serve", "--port", "0", *given)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr


def test_every_command_explains_itself():
    done = afterclose(Path("unused"), "--help")
    assert done.returncode == 0
    for command in ("demo", "history", "paper-run", "backfill", "status", "report", "sql", "start", "stop", "factors", "alerts"):
        assert command in done.stdout
