from __future__ import annotations

import hashlib
import math
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from quant.calendar import exchange_calendar
from quant.errors import ContractError, FactorError, InputError, LookaheadError
from quant.factors import kernels, streaming
from quant.factors.compile import Backend, compute, evaluate
from quant.factors.expression import FIELDS, parse
from quant.factors.kernels import Op
from quant.factors.panel import MAX_GAP, panel_of
from quant.factors.plan import Mode, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CALENDAR = exchange_calendar()
DAYS = CALENDAR.days[2600:]
INF = math.inf


def _values(text: str, close: Sequence[float | None], volume: Sequence[float | None] | None = None) -> list[float | None]:
    columns = {"close": close, "volume": volume or close}
    fields = {name: pl.Series(values, dtype=pl.Float64) for name, values in columns.items()}
    panel = pl.DataFrame({"session": DAYS[: len(close)], "symbol": ["A"] * len(close), **fields})
    return compute({"x": text}, panel, dtype=pl.Float64, allow_future=True)["x"].to_list()


@pytest.mark.parametrize(
    ("text", "close", "expected"),
    [
        ("Ref($close,1)", [1.0, 2.0, None, 4.0], [None, 1.0, 2.0, None]),
        ("Ref($close,-1)", [1.0, 2.0, 3.0], [2.0, 3.0, None]),
        ("Mean($close,2)", [1.0, 2.0, None, None, 4.0], [1.0, 1.5, 2.0, None, 4.0]),
        ("Sum($close,2)", [1.0, None, None, 4.0], [1.0, 1.0, None, 4.0]),
        ("Count($close,2)", [1.0, None, None, 4.0], [1.0, 1.0, 0.0, 1.0]),
        ("Count(1/$close,2)", [0.0, 2.0, None, 0.0], [1.0, 2.0, 1.0, 1.0]),
        ("Ref(Count($close,2),1)", [1.0, None, None, 4.0], [None, 1.0, 1.0, 0.0]),
        ("Mean(Count($close,2),3)", [1.0, 2.0, 3.0, 4.0], [1.0, 1.5, 5 / 3, 2.0]),
        ("Var($close,3)", [1.0, 3.0, None, 7.0], [None, 2.0, 2.0, 8.0]),
        ("Max($close,2)", [3.0, 1.0, None, None], [3.0, 3.0, 1.0, None]),
        ("IdxMax($close,3)", [3.0, 1.0, 3.0, 2.0, 2.0], [1.0, 1.0, 1.0, 2.0, 1.0]),
        ("IdxMin($close,3)", [3.0, 1.0, None, 2.0, None, None, None], [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, None]),
        ("IdxMax($close,1)", [3.0, None, 1.0], [1.0, None, 1.0]),
        ("IdxMin($close,1)", [3.0, None, INF], [1.0, None, None]),
        ("Rank($close,3)", [3.0, 1.0, 3.0, None, 3.0], [1.0, 0.5, 5 / 6, None, 0.75]),
        ("Quantile($close,3,0.25)", [4.0, 2.0, 8.0, None], [4.0, 2.5, 3.0, 3.5]),
        ("Slope($close,3)", [1.0, 3.0, None, 7.0], [None, 2.0, 2.0, 2.0]),
        ("Resi($close,3)", [1.0, 3.0, 2.0, None], [None, 0.0, -0.5, None]),
        ("Rsquare($close,3)", [5.0, 5.0, 5.0, 6.0, 7.0], [None, None, None, 0.75, 1.0]),
        ("$close>Ref($close,1)", [1.0, 2.0, None, 3.0], [0.0, 1.0, 0.0, 0.0]),
        ("1/$close", [0.0, -0.0, None, 4.0], [INF, -INF, None, 0.25]),
        ("Mean(1/$close,2)", [0.0, 4.0, 0.0, 0.0], [None, 0.25, 0.25, None]),
        ("Log($close-1)", [0.0, 1.0, 2.0], [None, -INF, 0.0]),
    ],
)
def test_an_operator_follows_qlibs_convention(text: str, close: list[float | None], expected: list[float | None]) -> None:
    assert _values(text, close) == pytest.approx(expected)


def test_in_strict_mode_what_reads_a_missing_value_is_missing_inside_a_long_history_too() -> None:
    close = [1.0] * 40 + [None] + [2.0] * 40
    panel = pl.DataFrame({"session": DAYS[:81], "symbol": ["A"] * 81, "close": close})
    factors = {"now": "$close>1", "known": "Count($close>1,2)", "count": "Count($close,2)", "if": "If($close>1,1,0)"}
    computed = compute(factors, panel, dtype=pl.Float64, mode=Mode.STRICT)
    assert computed["now"].to_list() == computed["if"].to_list() == [0.0] * 40 + [None] + [1.0] * 40
    assert computed["known"].to_list() == computed["count"].to_list() == [None] + [2.0] * 39 + [None] * 2 + [2.0] * 39


def test_a_correlation_with_a_flat_series_is_missing() -> None:
    ramp = [1.0, 2.0, 3.0, 4.0]
    assert _values("Corr($close,$volume,3)", ramp, [7.0, 7.0, 7.0, 8.0]) == pytest.approx([None, None, None, math.sqrt(3) / 2])
    assert _values("Corr($close,$volume,3)", ramp, [1.0, 1.00001, 1.00002, 1.00003]) == [None] * 4


def test_the_deviation_of_a_price_that_stands_still_is_exactly_zero() -> None:
    assert _values("Std($close,7)", [812.3, 17.7, *[61.3] * 9])[8:] == [0.0] * 3


SECTION = (  # two symbols with a value, one infinite, one missing; then one alone
    ("A", 3.0, "x"),
    ("B", 1.0, "x"),
    ("C", INF, "x"),
    ("D", None, None),
    ("E", 5.0, None),
    ("F", 1.0, "y"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CSRank($close)", [0.75, 0.375, None, None, 1.0, 0.375]),
        ("CSRank($close,$sector)", [1.0, 0.5, None, None, None, 1.0]),
        ("CSDemean($close)", [0.5, -1.5, None, None, 2.5, -1.5]),
        ("CSZScore($close,$sector)", [math.sqrt(0.5), -math.sqrt(0.5), None, None, None, None]),
        ("CSScale($close)", [0.3, 0.1, None, None, 0.5, 0.1]),
        ("2*CSRank(CSDemean($close)+$close)-1", [0.5, -0.25, None, None, 1.0, -0.25]),
        ("Mean(CSScale($close*0),3)", [None] * 6),
    ],
)
def test_a_cross_section_is_over_the_symbols_that_have_a_value(text: str, expected: list[float | None]) -> None:
    keys = pl.DataFrame(SECTION, schema={"symbol": pl.String, "close": pl.Float64, "sector": pl.String}, orient="row")
    panel = keys.with_columns(session=pl.lit(DAYS[0]))
    assert compute({"x": text}, panel, dtype=pl.Float64)["x"].to_list() == pytest.approx(expected)


def test_a_symbol_does_not_see_its_neighbours(make_panel: Callable[..., pl.DataFrame], every_operator: dict[str, str]) -> None:
    panel = make_panel(3, symbols=6)
    together = compute(every_operator, panel, dtype=pl.Float64)
    apart = pl.concat(compute(every_operator, part, dtype=pl.Float64) for part in panel.partition_by("symbol"))
    assert together.equals(apart)


def test_the_order_of_the_symbols_does_not_matter(make_panel: Callable[..., pl.DataFrame], every_operator: dict[str, str]) -> None:
    panel = make_panel(4, symbols=4)
    backwards = pl.col("symbol").replace({"S00": "Z3", "S01": "Z2", "S02": "Z1", "S03": "Z0"})
    turned = compute(every_operator, panel.with_columns(backwards).sort("symbol", "session"), dtype=pl.Float64)
    straight = compute(every_operator, panel, dtype=pl.Float64).with_columns(backwards).sort("symbol", "session")
    assert turned.equals(straight)


def test_a_common_part_is_computed_once() -> None:
    nodes = tuple(parse(text) for text in ("Log($close)", "Mean(Log( $close ),2)", "Log($close)+1", "Log($close)*Log($close)"))
    planned = plan(nodes, Mode.QLIB)
    for program in (planned.dense, planned.masked):
        assert (program.code[:, 0] == Op.LOG).sum() == 1


def test_a_missing_value_is_null_and_an_infinite_one_stays() -> None:
    panel = pl.DataFrame({"session": DAYS[:3], "symbol": ["A"] * 3, "close": [0.0, None, 2.0]})
    column = compute({"x": "1/$close"}, panel)["x"]
    assert column.dtype == pl.Float32
    assert column.to_list() == [INF, None, 0.5]


@pytest.mark.parametrize("backend", Backend)
@pytest.mark.parametrize("text", ["Mean($close,5)", "CSRank(Mean($close,5))-1"])
def test_an_empty_panel_gives_an_empty_frame_with_the_columns(text: str, backend: Backend) -> None:
    panel = pl.DataFrame(schema={"session": pl.Date, "symbol": pl.String, "close": pl.Float64})
    assert compute({"x": text}, panel, backend=backend).schema == {"session": pl.Date, "symbol": pl.String, "x": pl.Float32}


def test_a_feature_that_reaches_forward_is_refused_and_a_label_is_not() -> None:
    panel = pl.DataFrame({"session": DAYS[:2], "symbol": ["A"] * 2, "close": [1.0, 2.0]})
    with pytest.raises(LookaheadError, match="feature PEEK"):
        compute({"PEEK": "Ref($close,-1)"}, panel)
    assert compute({"PEEK": "Ref($close,-1)"}, panel, allow_future=True)["PEEK"].to_list() == [2.0, None]


def test_kernels_are_compiled_again_where_what_they_are_made_of_has_changed() -> None:
    """numba goes by the time of the file of the function that it compiles, kernels.py: it has to change when streaming.py does."""
    digest = hashlib.sha256(Path(streaming.__file__).read_bytes()).hexdigest()
    assert digest.startswith(kernels.STREAMING), f"write {digest[:16]} into kernels.STREAMING"


def test_a_number_of_threads_below_one_is_refused() -> None:
    with pytest.raises(ContractError, match="at least one thread in threads, found -1"):
        compute({"x": "$close"}, pl.DataFrame(), threads=-1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dtype": pl.Int64}, "expected Float32 or Float64 in dtype, found Int64"),
        ({"batch_rows": 0}, "at least one row a batch"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(wrong: dict[str, Any], words: str) -> None:
    panel = pl.DataFrame({"session": DAYS[:3], "symbol": ["A"] * 3, "close": [1.0, 2.0, 3.0]})
    with pytest.raises(ContractError, match=words):
        list(evaluate({"x": "$close"}, panel, **wrong))


def test_a_mode_and_a_back_end_may_be_named() -> None:
    panel = pl.DataFrame({"session": DAYS[:3], "symbol": ["A"] * 3, "close": [1.0, 2.0, 3.0]})
    named: Any = {"mode": "strict", "backend": "polars", "dtype": pl.Float64()}
    assert compute({"x": "Mean($close,2)"}, panel, **named)["x"].to_list() == [None, 1.5, 2.5]
    with pytest.raises(ValueError, match="strikt"):
        compute({"x": "$close"}, panel, **{**named, "mode": "strikt"})


def test_a_bad_expression_is_refused() -> None:
    with pytest.raises(FactorError, match="found Meen; perhaps Mean"):
        compute({"x": "Meen($close,5)"}, pl.DataFrame())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda panel: panel.drop("close"), "column close of Float64.*found no such column"),
        (lambda panel: panel.with_columns(pl.col("close").cast(pl.Float32)), "column close of Float64.*found Float32"),
        (lambda panel: panel.reverse(), "sorted by symbol and session"),
        (lambda panel: pl.concat([panel, panel]).sort("session"), "A 2000.* out of order or twice"),
        (lambda panel: panel.with_columns(symbol=pl.Series(["A", "B", "A"])), "A 2000.* out of order or twice"),
        (lambda panel: panel.with_columns(symbol=pl.Series(["B", "A", "A"])), "A 2000.* out of order or twice"),
        (lambda panel: panel.drop("session"), "column session of Date"),
        (lambda panel: panel.with_columns(pl.col("session").cast(pl.Datetime)), "column session of Date.*found Datetime"),
        (lambda panel: panel.with_columns(session=pl.Series([DAYS[0], None, DAYS[2]])), "a session in every row.*none in row 1"),
        (lambda panel: panel.with_columns(symbol=pl.Series([None, "A", "A"])), "a symbol in every row.*none in row 0"),
        (lambda panel: panel.with_columns(listing=pl.Series([0, 0, None])), "a listing in every row.*none in row 2"),
        (
            lambda panel: pl.concat([panel, panel.with_columns(symbol=pl.lit("B")).gather([0, 2])]),
            "a row for every session, null where .* found B 2000.* after a gap",
        ),
    ],
)
@pytest.mark.parametrize("backend", Backend)
def test_a_panel_that_is_not_one_is_refused(change: Callable[[pl.DataFrame], pl.DataFrame], words: str, backend: Backend) -> None:
    panel = pl.DataFrame({"session": DAYS[:3], "symbol": ["A"] * 3, "close": [1.0, 2.0, 3.0]})
    with pytest.raises(ContractError, match=words):
        compute({"x": "$close"}, change(panel), backend=backend)


@pytest.mark.parametrize(
    ("factors", "error", "words"),
    [
        ({"symbol": "$close"}, FactorError, "a name of its own.*found symbol"),
        ({"x": "Mean($close,5)", "y": "Mean($close)"}, FactorError, r"Mean\(x, N\) in .* at position 1, found 1 argument"),
        ({"x": "$close+$sector"}, FactorError, r"one of \$open.* at position 8, found \$sector"),
        ({"x": "CSRank($close,$sector)"}, ContractError, "column sector to group by.*no such column"),
        ({"x": "Mean($close,-5)"}, FactorError, "at position 13, found -5; a window cannot reach forward"),
        ({"x": "CSRank(Ref($close,-1))"}, LookaheadError, "feature x"),
    ],
)
@pytest.mark.parametrize("backend", Backend)
def test_factors_that_cannot_be_are_refused(factors: dict[str, str], error: type[Exception], words: str, backend: Backend) -> None:
    panel = pl.DataFrame({"session": DAYS[:3], "symbol": ["A"] * 3, "close": [1.0, 2.0, 3.0]})
    with pytest.raises(error, match=words):
        compute(factors, panel, backend=backend)


@pytest.mark.parametrize("backend", Backend)
def test_a_symbol_with_one_row_and_one_without_values_have_defined_results(backend: Backend, every_operator: dict[str, str]) -> None:
    keys = pl.DataFrame({"session": DAYS[:1] * 2, "symbol": ["A", "B"], "close": [2.0, None]})
    panel = keys.with_columns(pl.col("close").alias(name) for name in FIELDS)
    values = compute(every_operator, panel, dtype=pl.Float64, backend=backend)
    alone = {name: values[name][0] for name in every_operator if name.split("_")[-1] == "7"}
    assert {name for name, value in alone.items() if value is None} == {
        *("Std_7", "Var_7", "Skew_7", "Kurt_7", "Slope_7", "Rsquare_7", "Resi_7", "Ref_7", "Delta_7")
    }
    assert {alone[f"{op}_7"] for op in ("Count", "Rank", "IdxMax", "IdxMin")} == {1.0}
    assert alone["Mad_7"] == 0.0
    known = {name for name in every_operator if values[name][1] is not None}
    assert known == {*(f"Count_{window}" for window in (1, 2, 7, 33)), "If", "Not", "counts"}, "comparisons and counts are 0, never missing"


def _adjusted(symbol: str, days: Sequence[date], **indices: float) -> pl.DataFrame:
    values = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100.0, "vwap": None, "split_index": 1.0, "total_index": 1.0}
    columns = [pl.lit(value, pl.Float64).alias(name) for name, value in {**values, **indices}.items()]
    return pl.DataFrame({"session": days, "symbol": [symbol] * len(days)}).with_columns(columns)


def test_a_panel_holds_total_return_prices_and_split_adjusted_volume() -> None:
    panel = panel_of(_adjusted("A", DAYS[:1], split_index=2.0, total_index=3.0), CALENDAR)
    assert panel.rows(named=True) == [
        {
            "session": DAYS[0],
            "symbol": "A",
            "listing": 0,
            "open": 30.0,
            "high": 33.0,
            "low": 27.0,
            "close": 31.5,
            "volume": 50.0,
            "vwap": None,
        }
    ]


def test_a_panel_has_a_null_row_for_a_session_that_a_symbol_misses_and_none_before_its_first() -> None:
    adjusted = pl.concat([_adjusted("B", [DAYS[4], DAYS[1]]), _adjusted("A", DAYS[3:5])])
    panel = panel_of(adjusted, CALENDAR)
    assert panel.select("symbol", "session").rows() == [("A", DAYS[3]), ("A", DAYS[4]), *(("B", day) for day in DAYS[1:5])]
    assert panel["close"].is_null().to_list() == [False, False, False, True, True, False]


@pytest.mark.parametrize(("gap", "rows", "listing", "share"), [(MAX_GAP, MAX_GAP + 2, 0, 0.2), (MAX_GAP + 1, 2, 1, 1.0)])
def test_a_symbol_back_after_a_long_gap_starts_afresh(gap: int, rows: int, listing: int, share: float) -> None:
    panel = panel_of(_adjusted("A", [DAYS[0], DAYS[gap + 1]]), CALENDAR)
    assert panel.height == rows
    assert panel["listing"].to_list()[-1] == listing
    traded = compute({"x": "Mean($close==$close,5)"}, panel)["x"]
    assert traded.to_list()[-1] == pytest.approx(share)


def test_a_panel_refuses_a_date_that_is_no_session() -> None:
    with pytest.raises(InputError, match=r"2000-07-04 \(Tuesday\)"):
        panel_of(_adjusted("A", [date(2000, 7, 4)]), CALENDAR)


def test_a_bar_that_is_there_twice_is_refused() -> None:
    twice = pl.concat([_adjusted("A", DAYS[:2]), _adjusted("A", DAYS[:1])])
    with pytest.raises(ContractError, match="twice"):
        compute({"x": "$close"}, panel_of(twice, CALENDAR))
