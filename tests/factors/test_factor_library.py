"""Factor libraries: Qlib's two, frozen, and those that users bring."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.factor_library import load_library
from quant.errors import FactorError, InputError, LookaheadError
from quant.factors.cost import cost
from quant.factors.expression import FIELDS, features, parse
from quant.factors.library.frozen import LIBRARIES, frozen_library
from quant.factors.library.reader import MAX_CHARACTERS, MAX_FACTORS, read_library
from quant.factors.library.user_factors import user_factors_table
from quant.factors.reach import Reach, reach
from quant.tables import TABLES

needs_pyqlib = pytest.mark.skipif(find_spec("qlib") is None, reason="pyqlib has no wheel for this Python")


@needs_pyqlib
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_names_and_expressions_are_those_of_pyqlibs_own_class(library: str) -> None:
    from adapters.freeze_factors import frozen

    stored = files("quant.factors.library") / f"{library}.toml"
    assert stored.read_text(encoding="utf-8") == frozen(library), "run `make factors`"


def test_alpha360_is_sixty_sessions_of_each_field_over_the_last_close_or_volume() -> None:
    alpha360 = frozen_library("alpha360")
    assert [name.rstrip("0123456789") for name in list(alpha360)[::60]] == ["CLOSE", "OPEN", "HIGH", "LOW", "VWAP", "VOLUME"]
    nodes = {name: parse(text) for name, text in alpha360.items()}
    assert len(nodes) == 360
    assert {field for node in nodes.values() for field in features(node)} == set(FIELDS)
    for name, node in nodes.items():
        assert reach(node) == Reach(past=int("".join(filter(str.isdigit, name))), future=0), name


def test_a_library_that_nobody_froze_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of alpha158, alpha360 in the factor libraries, found alpha101"):
        frozen_library("alpha101")


Kind = Literal["toml", "python"]
MINE = {"MOVE": "$close/$open-1", "QUIET": "Std($close/Ref($close,1),20)"}
TOML = """# mine
MOVE = "$close/$open-1"  # of the session
"QUIET" = 'Std($close/Ref($close,1),20)'
"""
LINES = """\"\"\"Mine.\"\"\"

MOVE = "$close/$open-1"  # of the session
QUIET = ("Std($close/Ref($close,1)," "20)")
"""
LITERAL = """
MOVE = "$close/$open-1"
FACTORS = {
    "QUIET": "Std($close/Ref($close,1),20)",
}
"""


@pytest.mark.parametrize(("kind", "text"), [("toml", TOML), ("python", LINES), ("python", LITERAL)])
def test_a_library_is_read_in_its_order_from_either_kind_of_text(kind: Kind, text: str) -> None:
    assert list(read_library(text, kind=kind, where="mine").items()) == list(MINE.items())


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("toml", "", 'expected NAME = "expression" in mine, found no factor'),
        ("python", "# nothing\n", 'expected NAME = "expression" in mine, found no factor'),
        ("toml", "A = $close", "expected a TOML file in mine, found Invalid value (at line 1, column 5)"),
        ("toml", 'A = "$close/$open"\nA = "$high/$open"', "expected each name once in mine, found A in lines 1 and 2; keep one"),
        ("toml", 'B = "$close/$open"\nA = 5', 'mine, line 2, A: expected an expression in quotes in factor A, found 5; write A = "$close'),
        ("toml", '\n[factors]\nA = "$close/$open"', "mine, line 2, factors: expected lines of names and expressions only"),
        ("toml", '"A-1" = "$close/$open"', "mine, line 1: expected a name of 1 to 63 letters, digits and _, no digit first"),
        ("toml", f'{"A" * 64} = "$close/$open"', "expected a name of 1 to 63 letters"),
        ("toml", '"1A" = "$close/$open"', "expected a name of 1 to 63 letters"),
        ("toml", '"É" = "$close/$open"', "expected a name of 1 to 63 letters"),
        ("toml", 'Symbol = "$close/$open"', "found Symbol, which is a key of every table; rename it"),
        ("toml", 'Month = "$close/$open"', "found Month, which is the column that user_factors is partitioned by; rename it"),
        ("toml", 'library = "$close/$open"', "found library, which is column library of table user_factors; rename it"),
        ("toml", 'SCORE = "$close/$open"', "found SCORE, which is column score of table scores; rename it"),
        ("toml", 'label = "$close/$open"', "found label, which is column label of table forward_returns; rename it"),
        ("toml", 'ma5 = "$close/$open"', "found ma5, which is Alpha158's MA5; rename it"),
        (
            "toml",
            '\nMove = "$close/$open"\nMOVE = "$close/$open"',
            "line 3, MOVE: expected a name that is free (capitals do not tell names apart) ",
        ),
        ("python", 'A = "$close/$open"\nA = "$close/$open"', "found A, which is A of line 1; rename it"),
        ("python", 'FACTORS = {"A": "$close/$open",\n "A": "$close/$open"}', "mine, line 2, A: expected a name that is free"),
        ("python", "A = ", "expected a Python file in mine, line 1, found invalid syntax"),
        ("python", "A = '\0'", "expected a Python file in mine"),
        ("python", "A = " + "-" * 100_000 + "1", "expected a Python file in mine"),
        (
            "python",
            "import os",
            'mine, line 1: expected NAME = "expression" or FACTORS = {"NAME": "expression"} in a factor library, found import os',
        ),
        ("python", "def f():\n    return 1", "found def f():...; the file is read, never run"),
        ("python", "A: str = '$close/$open'", "found A: str = '$close/$open'"),
        ("python", "A = B = '$close/$open'", "found A = B = '$close/$open'"),
        ("python", "A = f'{1}'", "expected an expression in quotes in factor A, found f'{1}'"),
        ("python", "A = '$close' + '/$open'", "found '$close' + '/$open'"),
        ("python", "A = None", "found None"),
        ("python", "A = b'$close/$open'", "found b'$close/$open'"),
        ("python", "A = x" + ".y" * 5000, "expected "),
        ("python", "FACTORS = dict(A='$close/$open')", "found FACTORS = dict(A='$close/$open')"),
        ("python", "FACTORS = {**A}", "expected names in quotes in FACTORS, found **A; write every name out"),
        ("python", "FACTORS = {5: '$close/$open'}", "expected names in quotes in FACTORS, found 5"),
        ("toml", 'A = "Meen($close,5)/$close"', "mine, line 1, A: expected an operator in "),
        ("toml", 'A = "Mean($close,5)"', "mine, line 1, A: expected a value that does not depend on the level of prices in factor A"),
        ("toml", "x" * (MAX_CHARACTERS + 1), "expected at most 1000000 characters in mine, found 1000001"),
        ("toml", "".join(f'F{n} = ""\n' for n in range(MAX_FACTORS + 1)), "expected at most 5000 factors in mine, found 5001"),
    ],
)
def test_a_text_that_is_no_library_is_refused_with_the_line(kind: Kind, text: str, words: str) -> None:
    with pytest.raises(FactorError) as refused:
        read_library(text, kind=kind, where="mine")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "name", [*TABLES["user_factors"].columns, *TABLES["scores"].columns, *TABLES["forward_returns"].columns, "month", "MONTH", "kmid"]
)
def test_the_reader_and_the_table_refuse_the_same_names(name: str) -> None:
    with pytest.raises(FactorError, match=f"found {name}, which is "):
        read_library(f'{name} = "$close/$open"', kind="toml", where="mine")
    with pytest.raises(InputError, match=f"found {name}, which is taken by "):
        user_factors_table({name: "$close/$open"})


def test_every_problem_of_a_library_has_its_line() -> None:
    text = 'import os\nA = "$close/$open"\na = "$close"\nB = "Ref($close,-1)/$close"\nC = "Mean($close)"\nFACTORS = {**A,\n "D": 5}\n'
    with pytest.raises(FactorError) as refused:
        read_library(text, kind="python", where="mine.py")
    head, *problems = str(refused.value).splitlines()
    assert head == "mine.py has 7 problems"
    assert [problem.split(":")[0].strip() for problem in problems] == [
        "line 1",
        "line 3, a",
        "line 3, a",
        "line 4, B",
        "line 5, C",
        "line 6",
        "line 7, D",
    ]
    assert not isinstance(refused.value, LookaheadError)


def test_a_library_that_only_reaches_forward_is_a_lookahead() -> None:
    with pytest.raises(LookaheadError, match=r"through Ref\(\$close, -1\)"):
        read_library('A = "Ref($close,-1)/$close"', kind="toml", where="mine")


def test_a_python_library_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(FactorError, match="never run"):
        read_library(f"open({str(trace)!r}, 'w')", kind="python", where="mine")
    assert not trace.exists()


@given(st.text(st.sampled_from("AB='\"{}$close/:,\n[]#\\ \0é1."), max_size=40), st.sampled_from(["toml", "python"]))
def test_any_text_is_a_library_or_refused_and_nothing_else(text: str, kind: Kind) -> None:
    try:
        library = read_library(text, kind=kind, where="mine")
    except FactorError:
        return
    assert library


@pytest.mark.parametrize(("name", "text"), [("mine.toml", TOML), ("mine.py", LINES)])
def test_a_library_is_loaded_from_its_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert load_library(tmp_path / name) == MINE


def test_a_byte_order_mark_and_a_suffix_in_capitals_are_fine(tmp_path: Path) -> None:
    for name, text in (("MINE.TOML", TOML), ("Mine.Py", LINES)):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert load_library(tmp_path / name) == MINE


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    for name, words in {
        "mine.txt": "ending in .toml or .py",
        "none.toml": "no such file",
        "folder.toml": "Is a directory",
        "binary.py": "UTF-8",
    }.items():
        with pytest.raises(InputError, match=words):
            load_library(tmp_path / name)


def test_what_factors_have_in_common_costs_once_and_a_cross_section_is_a_pass() -> None:
    short, long, ranked = (parse(text) for text in ("Mean($close,5)/$close", "Mean($close,10)/$close", "CSRank(Mean($close,5)/$close)"))
    assert cost([short, long]).dense < cost([short]).dense + cost([long]).dense
    assert cost([short, short]) == cost([short])
    assert cost([short]).masked > cost([short]).dense
    assert [cost([node]).passes for node in (short, ranked, parse("CSRank(CSDemean($close/$open))"))] == [0, 1, 2]
