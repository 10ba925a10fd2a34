"""`afterclose factors` as people use it, in this process."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from adapters.lake import open_lake
from adapters.sources.sample import SampleSource
from orchestration import cli, factor_files
from quant.calendar import exchange_calendar
from quant.factors.compile import compute
from quant.factors.library.frozen import frozen_library
from quant.factors.panel import panel_of
from quant.factors.plan import Mode
from tests.conftest import REPOSITORY

MINE = {"MOVE": "$close/$open-1", "BEST": "CSRank($close/Ref($close,5))"}
FIRST, LAST = date(2009, 11, 2), date(2010, 3, 31)

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    rows = SampleSource().bars(FIRST, LAST)
    return rows.filter(~((pl.col("symbol") == "IBM") & (pl.col("session") == date(2010, 2, 2))))


@pytest.fixture
def folder(tmp_path: Path, bars: pl.DataFrame) -> Path:
    bars.write_csv(tmp_path / "bars.csv")
    (tmp_path / "mine.toml").write_text("".join(f'{name} = "{text}"\n' for name, text in MINE.items()))
    return tmp_path


@pytest.fixture
def afterclose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Command:
    """Exit code, and what standard output and standard error say together."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AFTERCLOSE_DATA", str(folder / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["afterclose", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        return left.value.code, told.out + told.err  # type: ignore[return-value]

    return run


def expected_rows(bars: pl.DataFrame, factors: dict[str, str], **options: object) -> pl.DataFrame:
    calendar = exchange_calendar()
    panel = panel_of(bars.with_columns(pl.lit(1.0).alias("split_index"), pl.lit(1.0).alias("total_index")), calendar)
    return compute(factors, panel, **options).filter(panel["close"].is_not_null())  # type: ignore[arg-type]


def test_list_shows_every_factor_with_its_reach_and_expression(afterclose: Command):
    code, told = afterclose("factors", "list")
    lines = told.splitlines()
    assert (code, len(lines)) == (0, 160)
    assert lines[-1] == "158 factors; a value needs up to 60 earlier sessions."
    assert {tuple(line.split(maxsplit=2))[::2] for line in lines[1:-1]} == set(frozen_library("alpha158").items())
    code, told = afterclose("factors", "list", "--library", "mine.toml")
    assert told.splitlines()[1:] == [
        "MOVE           0  $close/$open-1",
        "BEST           5  CSRank($close/Ref($close,5))",
        "2 factors; a value needs up to 5 earlier sessions.",
    ]


def test_show_draws_the_tree_and_says_what_a_factor_needs_and_costs(afterclose: Command):
    code, told = afterclose("factors", "show", "CORD5")
    assert code == 0
    for words in (
        "CORD5 of alpha158",
        "Corr($close / Ref($close, 1), Log($volume / Ref($volume, 1) + 1), 5)",
        "├── Div\n│   ├── $close\n│   └── Ref 1 session earlier\n│       └── $close\n└── Log",
        "needs   5 earlier sessions",
        "reads   $close, $volume",
        "mode    qlib",
    ):
        assert words in told
    cost = re.search(
        r"cost +(\d+) instructions a row \((\d+) where bars are missing\); beside the others of alpha158, (\d+) of its own, (\d+) shared",
        told,
    )
    assert cost
    dense, masked, own, shared = map(int, cost.groups())
    assert own + shared == dense < masked
    assert own < shared


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["CLOSE59"], "CLOSE59 of alpha360"),
        (["BEST", "--library", "mine.toml"], "1 pass over the symbols of each session; beside the other"),
        (["Ref($close,-2)/$close"], "its own session only, and 2 later: a label may, a feature may not"),
        (["EMA(Quantile($close,5,0.8)/$close,3)", "--mode", "strict"], "EMA over 3 sessions, reads 30"),
        (["CSRank($close/$open,$sector)"], "CSRank over the symbols of a session with the same $sector"),
    ],
)
def test_show_takes_names_of_both_libraries_names_of_a_file_and_expressions(afterclose: Command, words: list[str], told: str):
    code, shown = afterclose("factors", "show", *words)
    assert code == 0
    assert told in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "MA61"], "found MA61; perhaps MA60"),
        (["show", "MA5", "--library", "mine.toml"], "in mine.toml, found MA5"),
        (["show", "/Ref(,5)"], "put the expression in single quotes, so that the shell leaves $close alone"),
        (["list", "--library", "alpha101"], "expected alpha158, alpha360 or a file ending in .toml or .py in --library, found alpha101"),
        (["list", "--library", "none.toml"], "found no such file"),
        (["check", "/Ref(,5)"], "in single quotes"),
        (["check", "MA61"], "found MA61; perhaps MA60"),
        (["check", "libs/mine.txt"], "expected a library's file ending in .toml or .py in check, found libs/mine.txt"),
        (["check", "bars.csv"], "expected a library's file ending in .toml or .py in check, found bars.csv"),
    ],
)
def test_what_nobody_knows_is_wrong_input(afterclose: Command, words: list[str], told: str):
    code, shown = afterclose("factors", *words)
    assert code == 2
    assert told in shown


def test_check_accepts_an_expression_and_says_what_it_depends_on(afterclose: Command):
    code, told = afterclose("factors", "check", "Corr($close,Log($volume+1), 5)")
    assert code == 0
    assert told.splitlines() == [
        "accepted: Corr($close, Log($volume + 1), 5)",
        "needs   4 earlier sessions",
        "reads   $close, $volume",
        "prices  their level does not matter",
        "volume  its level matters: adjust it for splits",
    ]


@pytest.mark.parametrize(
    ("expression", "words", "marked"),
    [
        ("Mean($close, 5) / Meen($close, 7)", "found Meen; perhaps Mean", "Meen($close, 7)"),
        ("$close / $clsoe", "found $clsoe; perhaps $close", "$clsoe"),
        ("Mean($close, 5", "never closed", "($close, 5"),
        ("Mean($close)", "expected Mean(x, N)", "Mean($close)"),
        ("$close / Mean($close, -5)", "cannot reach forward", "-5)"),
        ("1 + Ref($close,-1) / $close", "through Ref($close, -1)", "Ref($close,-1) / $close"),
        ("Mean(Delta(Mean($close,2) / Ref($close,1), -2), 5)", "a reach of 2 session(s)", "Delta(Mean($close,2) / Ref($close,1), -2), 5)"),
        ("+".join(["$close/$open"] * 30 + ["Meen($close,5)"] + ["$close/$open"] * 30), "found Meen", "Meen($close,5)+$close"),
    ],
)
def test_check_marks_the_place_of_what_it_refuses(afterclose: Command, expression: str, words: str, marked: str):
    code, told = afterclose("factors", "check", expression)
    assert code == 2
    message, line, mark = told.splitlines()
    assert message.startswith("refused: ")
    assert words in message
    assert mark.strip() == "^"
    assert line[mark.index("^") :].startswith(marked)
    assert len(line) <= 120


def test_check_says_that_a_group_is_not_for_the_chain(afterclose: Command, folder: Path):
    (folder / "own.toml").write_text('A = "CSRank($close/$open, $sector)"\n')
    for asked in ("own.toml", "CSRank($close/$open, $sector)"):
        code, told = afterclose("factors", "check", asked)
        assert code == 0
        assert "groups  by $sector: with `compute --bars` only, not in the chain" in told.splitlines()


def test_check_takes_the_name_of_a_factor_as_show_does(afterclose: Command):
    code, told = afterclose("factors", "check", "VOLUME1")
    assert code == 0
    assert told.splitlines()[0] == "accepted: VOLUME1 of alpha360: Ref($volume, 1) / ($volume + 1e-12)"
    assert afterclose("factors", "check", "MOVE", "-l", "mine.toml")[1].startswith("accepted: MOVE of mine.toml: $close / $open - 1\n")
    assert afterclose("factors", "check", "--", "-Delta($close, 5)/$close")[0] == 0


def test_check_says_which_factors_of_a_library_depend_on_the_level_of_volume(afterclose: Command, folder: Path):
    (folder / "own.toml").write_text(
        'A = "Log($volume+1)"\nB = "$volume/Ref($volume, 1)"\nC = "Corr($close,$volume**2+1000,5)"\nD = "$close/$open"\n'
    )
    assert afterclose("factors", "check", "own.toml")[1].splitlines()[-1] == "volume  its level matters in A: adjust it for splits"
    (folder / "own.toml").write_text('B = "$volume/Ref($volume, 1)"\n')
    assert afterclose("factors", "check", "own.toml")[1].splitlines()[-1] == "volume  its level does not matter"


def test_check_refuses_what_depends_on_the_level_of_prices(afterclose: Command):
    code, told = afterclose("factors", "check", "$close-$open")
    assert code == 2
    assert "refused: expected a value that does not depend on the level of prices in factor $close-$open, found" in told


def test_check_takes_a_library_and_tells_all_its_problems(afterclose: Command, folder: Path):
    assert afterclose("factors", "check", "mine.toml") == (0, "accepted: mine.toml: 2 factors\nneeds   up to 5 earlier sessions\n")
    (folder / "ONE.TOML").write_bytes('\ufeffONE = "$close/Ref($close, 1)"\n'.encode())
    assert afterclose("factors", "check", "ONE.TOML") == (0, "accepted: ONE.TOML: 1 factor\nneeds   up to 1 earlier session\n")
    (folder / "bad.py").write_text('A = "$close"\nB = "Ref($close,-1)/$close"\nimport os\n')
    code, told = afterclose("factors", "check", "bad.py")
    assert code == 2
    assert [line.split(":")[0] for line in told.splitlines()] == ["refused", "  line 1, A", "  line 2, B", "  line 3"]


@pytest.mark.parametrize("source", ["csv", "parquet", "folder"])
def test_compute_writes_what_the_engine_computes(afterclose: Command, folder: Path, bars: pl.DataFrame, source: str):
    path = folder / {"csv": "bars.csv", "parquet": "bars.parquet", "folder": "in"}[source]
    if source == "parquet":
        bars.rename({"session": "date"}).write_parquet(path)
    if source == "folder":
        path.mkdir()
        for part, rows in enumerate(bars.partition_by("symbol")):
            rows.drop("vwap").write_parquet(path / f"{part}.parquet")
    code, told = afterclose("factors", "compute", "-l", "mine.toml", "--bars", str(path), "--out", "out.parquet", "--dtype", "float64")
    assert code == 0, told
    assert f"out.parquet: {bars.height} rows, 2 factors, float64" in told
    written = pl.read_parquet(folder / "out.parquet")
    assert written.equals(expected_rows(bars, MINE, dtype=pl.Float64))
    assert str(pq.read_schema(folder / "out.parquet").field("symbol").type) == "string"


def test_compute_of_a_range_gives_the_rows_of_the_whole(afterclose: Command, folder: Path, bars: pl.DataFrame):
    words = ["factors", "compute", "-l", "alpha158", "--bars", "bars.csv", "--out", "out.parquet", "--mode", "strict"]
    code, told = afterclose(*words, "--from", "2010-01-30", "--to", "2010-02-10")
    assert code == 0, told
    whole = expected_rows(bars, dict(frozen_library("alpha158")), mode=Mode.STRICT)
    inside = whole.filter(pl.col("session").is_between(date(2010, 1, 30), date(2010, 2, 10)))
    assert pl.read_parquet(folder / "out.parquet").equals(inside)


def test_bars_that_come_later_change_no_rank_of_a_session_without_them(afterclose: Command, folder: Path, bars: pl.DataFrame):
    (folder / "ranks.toml").write_text('R = "CSRank(Max($close,15)/Min($close,15))"')
    missed = date(2010, 2, 2)  # of IBM, which comes back
    for name, rows in (("all", bars), ("then", bars.filter(pl.col("session") <= missed))):
        rows.write_csv(folder / f"{name}.csv")
        code, told = afterclose("factors", "compute", "-l", "ranks.toml", "--bars", f"{name}.csv", "--out", f"{name}.parquet")
        assert code == 0, told
    then = pl.read_parquet(folder / "then.parquet")
    assert 0 < then.filter(pl.col("session") == missed).height < then["symbol"].n_unique()
    assert pl.read_parquet(folder / "all.parquet").filter(pl.col("session") <= missed).equals(then)


@pytest.mark.parametrize("label", [[1, 2], {"a": 1}])
def test_a_group_column_that_is_no_label_is_wrong_input(afterclose: Command, folder: Path, bars: pl.DataFrame, label: object):
    bars.with_columns(sector=pl.Series([label] * bars.height)).write_parquet(folder / "odd.parquet")
    (folder / "sector.toml").write_text('BEST = "CSRank($close/Ref($close,5),$sector)"')
    code, told = afterclose("factors", "compute", "-l", "sector.toml", "--bars", "odd.parquet", "--out", "out.parquet")
    assert code == 2
    assert "expected a column of text or numbers to group by" in told


def test_a_symbol_whose_group_is_not_a_number_has_no_group(afterclose: Command, folder: Path, bars: pl.DataFrame):
    sector = pl.when(pl.col("symbol") == "IBM").then(float("nan")).otherwise(7.0).alias("sector")
    bars.with_columns(sector).write_parquet(folder / "numbers.parquet")
    (folder / "sector.toml").write_text('BEST = "CSRank($close/Ref($close,5),$sector)"')
    code, told = afterclose("factors", "compute", "-l", "sector.toml", "--bars", "numbers.parquet", "--out", "out.parquet")
    assert code == 0, told
    written = pl.read_parquet(folder / "out.parquet")
    assert written.filter(pl.col("symbol") == "IBM")["BEST"].is_null().all()
    assert written.filter(pl.col("symbol") != "IBM")["BEST"].drop_nulls().len() > 0


def test_compute_groups_symbols_by_a_column_of_the_bars(afterclose: Command, folder: Path, bars: pl.DataFrame):
    sector = pl.when(pl.col("symbol") == "IBM").then(pl.lit("old")).otherwise(pl.lit("new")).alias("sector")
    bars.rename({"session": "date"}).with_columns(sector).write_csv(folder / "sectors.csv")
    (folder / "sector.toml").write_text('BEST = "CSRank($close/Ref($close,5),$sector)"')
    words = ["factors", "compute", "-l", "sector.toml", "--out", "out.parquet", "--bars"]
    code, told = afterclose(*words, "sectors.csv")
    assert code == 0, told
    written = pl.read_parquet(folder / "out.parquet")
    assert set(written.filter(pl.col("symbol") == "IBM")["BEST"].drop_nulls()) == {1.0}
    assert written.filter(pl.col("symbol") != "IBM")["BEST"].n_unique() > 2
    code, told = afterclose(*words, "bars.csv")
    assert code == 2
    assert "expected column sector to group by in bars.csv" in told


def test_compute_without_bars_takes_the_adjusted_bars_of_the_data_root(afterclose: Command, folder: Path, bars: pl.DataFrame):
    words = ["factors", "compute", "-l", "mine.toml", "--out", "out.parquet"]
    code, told = afterclose(*words)
    assert code == 2
    assert "expected adjusted bars in" in told
    assert not (folder / "data").exists()
    adjusted = bars.with_columns(pl.lit(2.0).alias("split_index"), pl.lit(3.0).alias("total_index"))
    open_lake(folder / "data").replace("adjusted_bars", adjusted, first=FIRST, last=LAST)
    code, told = afterclose(*words)
    assert code == 0, told
    assert pl.read_parquet(folder / "out.parquet").height == bars.height


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--out": "out.csv"}, "expected a file ending in .parquet in --out, found out.csv"),
        ({"--out": "none/out.parquet"}, "found no folder none"),
        ({"--bars": "none.csv"}, "Path 'none.csv' does not exist"),
        ({"--bars": "mine.toml"}, "expected files ending in .parquet or .csv in mine.toml"),
        ({"--from": "2015-01-01"}, "found bars from 2009-11-02 to 2010-03-31"),
        ({"--from": "2010-02-01", "--to": "2010-01-01"}, "expected --from not after --to"),
        ({"--from": "yesterday"}, "expected a date as YYYY-MM-DD in --from"),
        ({"--library": "none.py"}, "found no such file"),
        ({"--mode": "fast"}, "'fast' is not one of 'qlib', 'strict'"),
    ],
)
def test_compute_refuses_wrong_input_and_writes_nothing(afterclose: Command, folder: Path, change: dict[str, str], told: str):
    options = {"--library": "mine.toml", "--bars": "bars.csv", "--out": "out.parquet", **change}
    before = sorted(folder.iterdir())
    code, shown = afterclose("factors", "compute", *(word for option in options.items() for word in option))
    assert code == 2
    assert told in shown
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(("fault", "code"), [(OSError(errno.ENOSPC, "No space left on device"), 1), (KeyboardInterrupt(), 130)])
def test_a_run_that_fails_leaves_what_was_there(
    afterclose: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, code: int
):
    (folder / "out.parquet").write_text("kept")
    before = sorted(folder.iterdir())

    class Full(pq.ParquetWriter):
        def write_table(self, *args: object, **kwargs: object) -> None:
            raise fault

    monkeypatch.setattr(factor_files.pq, "ParquetWriter", Full)
    left, told = afterclose("factors", "compute", "-l", "mine.toml", "--bars", "bars.csv", "--out", "out.parquet")
    assert left == code, told
    assert "No space left on device" in told or code == 130
    assert sorted(folder.iterdir()) == before
    assert (folder / "out.parquet").read_text() == "kept"


def test_the_commands_of_the_page_work(afterclose: Command, folder: Path):
    page = (REPOSITORY / "docs" / "factors.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[::-1])
    (folder / "mine.toml").write_text(blocks["toml"])
    for line in blocks["bash"].splitlines():
        code, told = afterclose(*shlex.split(line)[1:])
        assert code == 0, told
    assert (folder / "factors.parquet").exists()
