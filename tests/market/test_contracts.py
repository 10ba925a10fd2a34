from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from quant.errors import ContractError
from quant.market.contracts import checked, contract, first_rows, is_unique
from quant.tables import TABLES

ACCEPTED = TABLES["accepted_bars"]


def bars(*rows: tuple[date, str, float]) -> pl.DataFrame:
    """Rows of accepted_bars from session, symbol and one price for everything."""
    columns = {"session": pl.Date, "symbol": pl.String, "close": pl.Float64}
    priced = pl.DataFrame(rows, schema=columns, orient="row")
    same = [pl.col("close").alias(name) for name in ("open", "high", "low", "volume")]
    return priced.with_columns(*same, vwap=pl.lit(None, pl.Float64)).select(list(ACCEPTED.columns))


TWO = bars((date(2013, 2, 28), "A", 10.0), (date(2013, 2, 28), "B", 20.0))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_an_empty_frame_of_every_table_fulfils_its_contract(table):
    assert checked(table.empty(), table).is_empty()


def test_a_sound_frame_comes_back_as_it_is_whatever_the_order_of_its_columns():
    assert checked(TWO, ACCEPTED) is TWO
    turned = TWO.select(reversed(TWO.columns))
    assert checked(turned, ACCEPTED) is turned


def test_a_contract_is_built_once():
    assert contract(ACCEPTED) is contract(ACCEPTED)


BROKEN = {
    "expected column open in accepted_bars, found columns session, symbol, high, low, close, volume, vwap; add open": TWO.drop("open"),
    "expected no other column in accepted_bars, found column note; drop it": TWO.with_columns(note=1),
    "expected volume of type Float64 in accepted_bars, found Int64; cast volume": TWO.with_columns(pl.col("volume").cast(pl.Int64)),
    "expected close without nulls or NaN in accepted_bars, found 1 bad rows, first session=2013-02-28 symbol=B": TWO.with_columns(
        close=pl.when(pl.col("symbol") == "A").then("close")
    ),
    "expected high without nulls or NaN in accepted_bars, found 2 bad rows": TWO.with_columns(high=pl.lit(float("nan"))),
    "expected unique keys (session, symbol) in accepted_bars, found 2 bad rows, first session=2013-02-28 symbol=A": pl.concat(
        [TWO, TWO.head(1).with_columns(close=pl.lit(9.0))]
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_breach_says_what_was_expected_and_found_and_where(message: str):
    with pytest.raises(ContractError) as caught:
        checked(BROKEN[message], ACCEPTED)
    assert message in str(caught.value)


def test_every_breach_is_told_at_once():
    with pytest.raises(ContractError) as caught:
        checked(TWO.with_columns(pl.lit(None, pl.Float64).alias("open"), pl.lit(None, pl.Float64).alias("low")), ACCEPTED)
    assert [line.split()[1] for line in str(caught.value).splitlines()] == ["open", "low"]


def test_a_nullable_column_may_be_null():
    assert TWO["vwap"].null_count() == 2
    checked(TWO, ACCEPTED)


def test_a_lazy_frame_is_refused_because_its_checks_would_see_no_row():
    with pytest.raises(ContractError, match="expected a collected frame in accepted_bars, found a LazyFrame"):
        checked(BROKEN["expected high without nulls or NaN in accepted_bars, found 2 bad rows"].lazy(), ACCEPTED)


def test_uniqueness_is_exact():
    assert is_unique(TWO.select("session", "symbol"))
    assert not is_unique(TWO.select("session"))


def test_first_rows_are_three_at_most():
    assert first_rows(pl.DataFrame({"n": range(9)})) == "n=0; n=1; n=2"
