from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.lake import open_lake
from quant.calendar import exchange_calendar
from quant.errors import InputError
from quant.factors.library.alpha158 import alpha158_table
from quant.factors.panel import MAX_GAP
from quant.tables import TABLES
from strategies.alpha_baseline.features import (
    FEATURE_REACH,
    alpha158_features,
    get_alpha158_features,
    sessions_needed,
    user_factor_features,
)
from strategies.alpha_baseline.labels import LABELS, forward_returns, label_reach

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CALENDAR = exchange_calendar()
DAYS = CALENDAR.days[2600:2900]
SPLIT = 150


def _bars(rng: np.random.Generator, symbol: str, kept: Sequence[int]) -> pl.DataFrame:
    close = 40 * np.exp(np.cumsum(rng.normal(0, 0.02, len(DAYS))))
    opened = close * np.exp(rng.normal(0, 0.01, len(DAYS)))
    high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
    volume = np.round(np.exp(rng.normal(12, 0.5, len(DAYS))))
    split = np.where(np.arange(len(DAYS)) < SPLIT, 1.0, 2.0)
    frame = pl.DataFrame(
        {
            "session": DAYS,
            "symbol": [symbol] * len(DAYS),
            **{name: prices / split for name, prices in {"open": opened, "high": high, "low": low, "close": close}.items()},
            "volume": volume * split,
            "vwap": pl.Series([None] * len(DAYS), dtype=pl.Float64),
            "split_index": split,
            "total_index": split * 1.01,
        }
    )
    return frame[list(kept)]


@pytest.fixture(scope="module")
def adjusted() -> pl.DataFrame:
    """A whole history, a late listing, an early end, and absences of 1, 40, MAX_GAP, MAX_GAP + 1 and 130 sessions."""
    rng = np.random.default_rng(11)
    every = range(len(DAYS))

    def without(first: int, length: int) -> list[int]:
        return [at for at in every if not first <= at < first + length]

    kept = {
        "FULL": every,
        "LATE": every[170:],
        "GONE": every[:200],
        "ONE": without(180, 1),
        "FORTY": without(140, 40),
        "BOUND": without(120, MAX_GAP),
        "OVER": without(120, MAX_GAP + 1),
        "LONG": without(60, 130),
        "TWICE": [at for at in without(100, 50) if at not in range(155, 210)],
    }
    return pl.concat(_bars(rng, symbol, rows) for symbol, rows in kept.items())


@settings(max_examples=40, deadline=None)
@given(at=st.integers(1, len(DAYS) - 1), length=st.integers(1, 5))
def test_features_of_a_session_have_the_bits_of_the_whole_range(adjusted: pl.DataFrame, whole: pl.DataFrame, at: int, length: int) -> None:
    first, last = DAYS[at], DAYS[min(at + length, len(DAYS)) - 1]
    needed = pl.col("session").is_between(CALENDAR.shift(first, -FEATURE_REACH), last)
    daily = alpha158_features(adjusted.filter(needed), CALENDAR, first, last)
    assert daily.equals(whole.filter(pl.col("session").is_between(first, last)))


@pytest.fixture(scope="module")
def whole(adjusted: pl.DataFrame) -> pl.DataFrame:
    return alpha158_features(adjusted, CALENDAR, DAYS[0], DAYS[-1])


def test_features_have_a_row_for_every_bar_and_the_tables_columns(adjusted: pl.DataFrame, whole: pl.DataFrame) -> None:
    assert whole.schema == alpha158_table().schema
    assert whole.select("symbol", "session").equals(adjusted.select("symbol", "session").sort("symbol", "session"))


def test_features_do_not_jump_at_a_split(whole: pl.DataFrame) -> None:
    split = whole.filter(pl.col("symbol") == "FULL", pl.col("session") == DAYS[SPLIT])
    assert split["ROC5"].item() == pytest.approx(1, abs=0.2)
    assert split["VMA5"].item() == pytest.approx(1, abs=0.8)


def test_features_of_an_absent_vwap_are_null_and_the_others_of_a_full_window_are_not(whole: pl.DataFrame) -> None:
    row = whole.filter(pl.col("symbol") == "FULL", pl.col("session") == DAYS[-1]).row(0, named=True)
    assert [name for name, value in row.items() if value is None] == ["VWAP0"]


def test_the_farthest_factor_reads_sixty_earlier_sessions() -> None:
    assert FEATURE_REACH == 60 + MAX_GAP


LIBRARY = {
    "reversal": "-Delta($close, 5)/$close",
    "steady": "CSRank(Mean($close, 20)/$close)",
    "kept": "Mean(CSZScore($volume/$close), 40)",
}


@pytest.fixture(scope="module")
def own(adjusted: pl.DataFrame) -> pl.DataFrame:
    return user_factor_features(LIBRARY, adjusted, CALENDAR, DAYS[0], DAYS[-1])


@settings(max_examples=40, deadline=None)
@given(at=st.integers(1, len(DAYS) - 1), length=st.integers(1, 5))
def test_factors_of_a_library_have_the_bits_of_the_whole_range(adjusted: pl.DataFrame, own: pl.DataFrame, at: int, length: int) -> None:
    first, last = DAYS[at], DAYS[min(at + length, len(DAYS)) - 1]
    needed = pl.col("session").is_between(CALENDAR.shift(first, -sessions_needed(LIBRARY)), last)
    daily = user_factor_features(LIBRARY, adjusted.filter(needed), CALENDAR, first, last)
    assert daily.equals(own.filter(pl.col("session").is_between(first, last)))


def test_a_cross_section_is_over_the_symbols_that_traded_in_the_session(adjusted: pl.DataFrame, own: pl.DataFrame) -> None:
    traded = adjusted.filter(pl.col("session") == DAYS[150])["symbol"]
    ranks = own.filter(pl.col("session") == DAYS[150])["steady"].sort()
    assert traded.len() < adjusted["symbol"].n_unique()
    assert ranks.to_list() == pytest.approx([place / traded.len() for place in range(1, traded.len() + 1)])


@pytest.fixture
def data_dir(tmp_path: Path, adjusted: pl.DataFrame) -> Path:
    open_lake(tmp_path).replace("adjusted_bars", adjusted.sort("session", "symbol"), first=DAYS[0], last=DAYS[-1])
    return tmp_path


def test_features_come_from_the_lake_by_symbols_and_dates(data_dir: Path, whole: pl.DataFrame) -> None:
    saturday = next(day for day in DAYS[250:] if day.weekday() == 4) + timedelta(days=1)
    features = get_alpha158_features(["LATE", "FULL"], saturday, DAYS[-1], data_dir)
    assert features.equals(whole.filter(pl.col("symbol").is_in(["LATE", "FULL"]), pl.col("session") >= saturday))


def test_a_symbol_that_is_listed_later_has_no_rows(data_dir: Path) -> None:
    assert get_alpha158_features(["FULL", "LATE"], DAYS[0], DAYS[9], data_dir)["symbol"].unique().to_list() == ["FULL"]


@pytest.mark.parametrize(
    ("symbols", "first", "last", "words"),
    [
        (["FULL", "NOPE"], DAYS[0], DAYS[9], "a known symbol.*found NOPE"),
        (["FULL"], date(2000, 7, 1), date(2000, 7, 2), "at least one session"),
        (["FULL"], DAYS[9], DAYS[0], "expected start_date not after end_date"),
        ("FULL", DAYS[0], DAYS[9], r"expected a list of symbols in symbols, found 'FULL'; write it as \["),
        ([], DAYS[0], DAYS[9], "expected a list of symbols"),
        (["FULL", 5], DAYS[0], DAYS[9], "expected a list of symbols"),
        (None, DAYS[0], DAYS[9], "expected a list of symbols"),
        (["FULL"], "2010-05-03", DAYS[9], "expected a datetime.date in start_date, found '2010-05-03'"),
        (["FULL"], DAYS[0], datetime(2012, 1, 1, tzinfo=UTC), "expected a datetime.date in end_date"),
        (["FULL"], DAYS[9], DAYS[-1] + timedelta(days=10), f"expected bars for {DAYS[9]} to .*found {DAYS[0]} to {DAYS[-1]}"),
        (["FULL"], DAYS[0] - timedelta(days=40), DAYS[0] - timedelta(days=10), f"found {DAYS[0]} to {DAYS[-1]}"),
    ],
)
def test_wrong_symbols_or_dates_are_refused(data_dir: Path, symbols: Any, first: Any, last: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        get_alpha158_features(symbols, first, last, data_dir)


def test_a_folder_without_data_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected bars in table adjusted_bars of .*, found none; run"):
        get_alpha158_features(["FULL"], DAYS[0], DAYS[9], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_label_is_the_return_from_the_next_open_to_the_one_after(adjusted: pl.DataFrame) -> None:
    labels = forward_returns(adjusted, CALENDAR, "open_to_open", DAYS[2], DAYS[-1])
    bars = {row["session"]: row for row in adjusted.filter(pl.col("symbol") == "FULL").iter_rows(named=True)}
    for at in (0, SPLIT - 2, SPLIT - 1, 200):
        bought, sold = (bars[DAYS[at + later]]["open"] * bars[DAYS[at + later]]["total_index"] for later in (1, 2))
        row = labels.row(by_predicate=(pl.col("symbol") == "FULL") & (pl.col("session") == DAYS[at]), named=True)
        assert row["label"] == sold / bought - 1
        assert row["known_session"] == DAYS[at + 2]


def test_a_label_needs_the_decisions_bar_and_both_later_ones(adjusted: pl.DataFrame) -> None:
    labels = forward_returns(adjusted, CALENDAR, "open_to_open", DAYS[0], DAYS[-1])
    around = labels.filter(pl.col("symbol") == "ONE", pl.col("session").is_between(DAYS[176], DAYS[182]))
    assert around["session"].to_list() == [DAYS[at] for at in (176, 177, 181, 182)]
    assert labels.filter(pl.col("symbol") == "GONE")["session"].max() == DAYS[197]


@pytest.mark.parametrize("label", LABELS)
def test_labels_by_session_are_those_of_the_range(adjusted: pl.DataFrame, label: str) -> None:
    ahead = label_reach(label)
    known = DAYS[ahead:]
    whole = forward_returns(adjusted, CALENDAR, label, known[0], known[-1])
    daily = pl.concat(
        forward_returns(adjusted.filter(pl.col("session") >= CALENDAR.shift(day, -ahead)), CALENDAR, label, day, day) for day in known[::7]
    )
    assert whole.schema == TABLES["forward_returns"].schema
    assert whole.filter(pl.col("known_session").is_in(list(known[::7]))).equals(daily)


def test_the_reach_of_a_label_is_read_off_its_expression() -> None:
    assert {label: label_reach(label) for label in LABELS} == {"open_to_open": 2, "close_to_close": 2}


@pytest.mark.parametrize("ask", [label_reach, lambda label: forward_returns(pl.DataFrame(), CALENDAR, label, DAYS[0], DAYS[0])])
def test_an_unknown_label_is_refused(ask: Callable[[str], object]) -> None:
    with pytest.raises(InputError, match=r"one of open_to_open, close_to_close.*found tomorrow"):
        ask("tomorrow")
