from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant.calendar import exchange_calendar
from quant.errors import ContractError
from quant.market.as_of import actions_as_of, bars_as_of
from quant.market.contracts import checked
from quant.market.delivery import action_rows, digests, raw_bar_rows
from quant.ports import AdjustmentConvention, SourceFacts
from quant.tables import TABLES, UTC_INSTANT

XNYS = exchange_calendar()
FACTS = SourceFacts(
    name="vendor", convention=AdjustmentConvention.EX_DATE_CLOSE, publish_delay_minutes=30, absent=frozenset({"vwap"}), finite=False
)
THURSDAY, FRIDAY, MONDAY = date(2013, 2, 28), date(2013, 3, 1), date(2013, 3, 4)
THURSDAY_PUBLISHED = datetime(2013, 2, 28, 21, 30, tzinfo=UTC)
FRIDAY_PUBLISHED = datetime(2013, 3, 1, 21, 30, tzinfo=UTC)
FRIDAY_EVENING = datetime(2013, 3, 2, 1, 15, tzinfo=UTC)
MONDAY_BEFORE_THE_OPEN = datetime(2013, 3, 4, 14, 29, tzinfo=UTC)
MONDAY_OPEN = datetime(2013, 3, 4, 14, 30, tzinfo=UTC)
YEARS_LATER = datetime(2026, 1, 5, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")


def bars(*rows: tuple[date, str, float | None]) -> pl.DataFrame:
    """What a source delivers: session, symbol and one price for all four, volume 100."""
    frame = pl.DataFrame(rows, schema={"session": pl.Date, "symbol": pl.String, "close": pl.Float64}, orient="row")
    same = [pl.col("close").alias(name) for name in PRICES]
    return frame.select("session", "symbol", *same, volume=pl.lit(100.0), vwap=pl.lit(None, pl.Float64))


def actions(*rows: tuple[date, str, str, float]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64}, orient="row")
    return frame.with_columns(pay_date=pl.lit(None, pl.Date))


def delivered(frame: pl.DataFrame, received_at: datetime, known: pl.DataFrame | None = None, through: date | None = None) -> pl.DataFrame:
    return raw_bar_rows(frame, facts=FACTS, calendar=XNYS, received_at=received_at, known=known, decided_through=through)


def announced(frame: pl.DataFrame, received_at: datetime, known: pl.DataFrame | None = None, through: date | None = None) -> pl.DataFrame:
    return action_rows(frame, facts=FACTS, calendar=XNYS, received_at=received_at, known=known, decided_through=through)


def clocks(rows: pl.DataFrame) -> list[tuple[datetime, bool]]:
    return rows.select("known_at", "known_at_assumed").rows()


ONE = bars((FRIDAY, "A", 10.0))


def test_rows_are_those_of_the_tables():
    checked(delivered(bars((FRIDAY, "B", 1.0), (FRIDAY, "A", None)), YEARS_LATER), TABLES["raw_bars"])
    checked(announced(actions((FRIDAY, "A", "split", 2.0)), YEARS_LATER), TABLES["corporate_actions"])
    checked(delivered(ONE.clear(), YEARS_LATER), TABLES["raw_bars"])
    checked(announced(actions(), YEARS_LATER), TABLES["corporate_actions"])


ACTION = actions((FRIDAY, "A", "split", 2.0))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ONE.drop("session"), "expected column session in what vendor delivered for raw_bars, found columns symbol, open"),
        (
            ONE.with_columns(pl.col("volume").cast(pl.Int64)),
            "expected volume of type Float64 in what vendor delivered for raw_bars, found Int64",
        ),
        (ONE.with_columns(symbol=pl.lit(None, pl.String)), "expected symbol without nulls or NaN in what vendor delivered for raw_bars"),
        (
            ONE.with_columns(known_at=pl.lit(FRIDAY_EVENING)),
            "expected no other column in what vendor delivered for raw_bars, found column known_at",
        ),
        (ACTION.drop("pay_date"), "expected column pay_date in what vendor delivered for corporate_actions"),
        (
            ACTION.with_columns(value=pl.lit(float("nan"))),
            "expected value without nulls or NaN in what vendor delivered for corporate_actions",
        ),
    ],
)
def test_a_delivery_that_is_not_in_the_form_agreed_is_refused_by_the_name_of_its_source(rows: pl.DataFrame, message: str):
    with pytest.raises(ContractError) as caught:
        (announced if "ex_date" in rows.columns else delivered)(rows, YEARS_LATER)
    assert message in str(caught.value)


def test_a_column_that_a_source_may_add_is_taken_and_a_row_twice_is_left_to_the_gate():
    named = ACTION.with_columns(kind=pl.lit("rename"), value=1.0, new_symbol=pl.lit("B"), origin_digest=pl.lit("d"))
    assert announced(named, YEARS_LATER).select("new_symbol", "origin_digest").row(0) == ("B", "d")
    twice = bars((FRIDAY, "A", 10.0), (FRIDAY, "A", 11.0))
    assert delivered(twice, YEARS_LATER).height == 2


@pytest.mark.parametrize("received_at", [FRIDAY_EVENING, MONDAY_BEFORE_THE_OPEN])
def test_a_bar_that_arrives_before_the_next_open_was_known_when_it_arrived(received_at: datetime):
    assert clocks(delivered(ONE, received_at)) == [(received_at, False)]


@pytest.mark.parametrize("received_at", [MONDAY_OPEN, YEARS_LATER])
def test_a_bar_of_a_history_load_is_assumed_known_when_it_was_published(received_at: datetime):
    assert clocks(delivered(ONE, received_at)) == [(FRIDAY_PUBLISHED, True)]


def test_an_early_close_is_published_early():
    assert clocks(delivered(bars((date(2012, 11, 23), "A", 1.0)), YEARS_LATER)) == [(datetime(2012, 11, 23, 18, 30, tzinfo=UTC), True)]


def test_a_revision_is_known_from_its_arrival_and_the_same_content_is_no_news():
    first = delivered(bars((FRIDAY, "A", 10.0), (FRIDAY, "B", 20.0)), YEARS_LATER)
    later = YEARS_LATER.replace(hour=9)
    again = delivered(bars((FRIDAY, "A", 10.5), (FRIDAY, "B", 20.0)), later, known=first)
    assert again.select("symbol", "close", "known_at", "known_at_assumed").rows() == [("A", 10.5, later, False)]
    assert delivered(bars((FRIDAY, "A", 10.5), (FRIDAY, "B", 20.0)), later, known=pl.concat([first, again])).is_empty()


def test_the_same_key_from_another_source_is_no_revision():
    known = delivered(ONE, YEARS_LATER).with_columns(source=pl.lit("other"), digest=pl.lit("0"))
    assert clocks(delivered(ONE, YEARS_LATER, known=known)) == [(FRIDAY_PUBLISHED, True)]


def test_a_bar_missed_in_a_past_that_is_loaded_is_known_from_its_arrival():
    assert clocks(delivered(ONE, YEARS_LATER, through=FRIDAY)) == [(YEARS_LATER, False)]
    assert clocks(delivered(ONE, YEARS_LATER, through=THURSDAY)) == [(FRIDAY_PUBLISHED, True)]


def test_different_rows_of_one_delivery_under_one_key_both_stay_and_equal_ones_are_one():
    rows = delivered(bars((FRIDAY, "A", 10.0), (FRIDAY, "A", 10.0), (FRIDAY, "A", 11.0)), YEARS_LATER)
    assert sorted(rows["close"]) == [10.0, 11.0]
    assert sorted(bars_as_of(rows, YEARS_LATER)["close"]) == [10.0, 11.0]


@pytest.mark.parametrize("day", [date(2013, 3, 2), date(1950, 1, 1), date(2099, 1, 1)])
def test_a_bar_of_no_session_has_clocks_too_for_the_gate_to_judge_it(day: date):
    rows = delivered(bars((day, "A", 1.0)), YEARS_LATER)
    assert rows["known_at"].item() <= YEARS_LATER


def test_an_action_of_a_history_load_is_assumed_known_when_the_session_before_was_published():
    assert clocks(announced(actions((FRIDAY, "A", "split", 2.0)), YEARS_LATER)) == [(THURSDAY_PUBLISHED, True)]
    assert clocks(announced(actions((MONDAY, "A", "split", 2.0)), YEARS_LATER)) == [(FRIDAY_PUBLISHED, True)]


def test_an_action_announced_before_its_ex_date_opens_was_known_when_it_arrived():
    assert clocks(announced(actions((MONDAY, "A", "split", 2.0)), FRIDAY_EVENING)) == [(FRIDAY_EVENING, False)]
    assert clocks(announced(actions((MONDAY, "A", "split", 2.0)), MONDAY_OPEN)) == [(FRIDAY_PUBLISHED, True)]


def test_an_action_that_arrives_after_the_session_before_its_ex_date_was_decided_is_known_from_its_arrival():
    both = actions((FRIDAY, "A", "split", 2.0), (MONDAY, "A", "dividend", 1.0))
    assert clocks(announced(both, YEARS_LATER, through=THURSDAY)) == [(YEARS_LATER, False), (FRIDAY_PUBLISHED, True)]
    assert clocks(announced(both, YEARS_LATER, through=FRIDAY)) == [(YEARS_LATER, False), (YEARS_LATER, False)]
    assert clocks(announced(actions((FRIDAY, "A", "split", 2.0)), FRIDAY_EVENING, through=THURSDAY)) == [(FRIDAY_EVENING, False)]


def test_an_action_corrected_is_a_new_version():
    first = announced(actions((FRIDAY, "A", "dividend", 0.5)), YEARS_LATER)
    later = YEARS_LATER.replace(hour=9)
    both = pl.concat([first, announced(actions((FRIDAY, "A", "dividend", 0.6)), later, known=first)])
    assert actions_as_of(both, YEARS_LATER)["value"].to_list() == [0.5]
    assert actions_as_of(both, later)["value"].to_list() == [0.6]
    assert actions_as_of(both, THURSDAY_PUBLISHED.replace(minute=29)).is_empty()


def test_as_of_an_instant_each_row_is_the_newest_known_by_then():
    first = delivered(bars((THURSDAY, "A", 9.0), (FRIDAY, "A", 10.0)), YEARS_LATER)
    later = YEARS_LATER.replace(hour=9)
    both = pl.concat([first, delivered(bars((FRIDAY, "A", 10.5)), later, known=first)])
    assert bars_as_of(both, THURSDAY_PUBLISHED)["close"].to_list() == [9.0]
    assert bars_as_of(both, FRIDAY_PUBLISHED)["close"].to_list() == [9.0, 10.0]
    assert bars_as_of(both, later)["close"].to_list() == [9.0, 10.5]
    assert bars_as_of(both.reverse(), later)["close"].to_list() == [10.5, 9.0]


def test_a_digest_is_the_sha256_of_source_columns_and_values():
    # the layout, written down a second time: what it covers may not change unnoticed, or every stored row would look revised
    head = hashlib.sha256(b"vendor\0session\0symbol\0open\0high\0low\0close\0volume\0vwap\0").digest()
    day = (FRIDAY - date(1970, 1, 1)).days
    flags, numbers = bytes([0, 0, 0, 0, 0, 0, 1]), struct.pack("<q6d", day, 10.0, 10.0, 10.0, 10.0, 100.0, 0.0)
    assert delivered(ONE, YEARS_LATER)["digest"].item() == hashlib.sha256(head + b"1:A" + flags + numbers).hexdigest()


def test_a_digest_depends_on_source_and_content():
    a = digests(ONE, source="a").item()
    assert digests(ONE, source="b").item() != a
    assert digests(ONE.with_columns(close=pl.lit(10.000000000000002)), source="a").item() != a
    assert digests(ONE.with_columns(vwap=pl.lit(0.0)), source="a").item() != a  # zero is not null
    assert digests(ONE.with_columns(vwap=pl.lit(float("nan"))), source="a").item() not in {
        a,
        digests(ONE.with_columns(vwap=pl.lit(0.0)), source="a").item(),
    }


def test_spellings_of_one_number_have_one_digest():
    def of(close: float) -> str:
        return digests(ONE.with_columns(close=pl.lit(close, pl.Float64)), source="a").item()

    assert of(-0.0) == of(0.0)
    assert of(struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000001))[0]) == of(float("nan"))


def test_texts_that_run_into_each_other_have_different_digests():
    one, other = actions((FRIDAY, "AB", "C", 1.0)), actions((FRIDAY, "A", "BC", 1.0))
    assert digests(one, source="a").item() != digests(other, source="a").item()
    assert digests(one, source="a").item() != digests(one.with_columns(symbol=pl.lit(None, pl.String)), source="a").item()


some_bars = st.lists(
    st.tuples(st.sampled_from([THURSDAY, FRIDAY, MONDAY]), st.sampled_from("ABC"), st.sampled_from([1.0, 2.0, float("nan"), None])),
    max_size=12,
)


@given(rows=some_bars, cut=st.integers(0, 12))
def test_the_batch_a_row_comes_in_does_not_change_it(rows: list[tuple[date, str, float | None]], cut: int):
    known = TABLES["raw_bars"].empty()
    whole = delivered(bars(*rows), YEARS_LATER, known=known)
    parts = pl.concat([delivered(bars(*rows[:cut]), YEARS_LATER), delivered(bars(*rows[cut:]), YEARS_LATER)])
    assert_frame_equal(parts.unique().sort(whole.columns), whole.sort(whole.columns), check_exact=True)


@given(deliveries=st.lists(some_bars, max_size=4))
def test_after_a_delivery_each_key_in_it_holds_what_was_delivered_and_delivering_it_again_adds_nothing(
    deliveries: list[list[tuple[date, str, float | None]]],
):
    known = TABLES["raw_bars"].empty()
    for hour, rows in enumerate(deliveries):
        at = YEARS_LATER.replace(hour=hour)
        known = pl.concat([known, delivered(bars(*rows), at, known=known)])
        assert delivered(bars(*rows), at.replace(minute=30), known=known).is_empty()
        held = bars_as_of(known, at).join(bars(*rows).select("session", "symbol").unique(), on=["session", "symbol"], how="semi")
        wanted = bars(*rows).unique()
        assert_frame_equal(held.select(wanted.columns), wanted, check_row_order=False, check_exact=True)
    assert known.select(TABLES["raw_bars"].key).is_unique().all()
    assert known.schema["known_at"] == UTC_INSTANT


def test_a_row_that_goes_back_to_what_it_was_is_a_third_version():
    known = delivered(ONE, YEARS_LATER)
    for hour, close in ((9, 10.5), (10, 10.0)):
        known = pl.concat([known, delivered(bars((FRIDAY, "A", close)), YEARS_LATER.replace(hour=hour), known=known)])
    assert known.sort("known_at")["close"].to_list() == [10.0, 10.5, 10.0]
    seen = [bars_as_of(known, YEARS_LATER.replace(hour=hour))["close"].item() for hour in (0, 9, 10)]
    assert seen == [10.0, 10.5, 10.0]


def test_a_duplicate_that_arrives_later_is_seen_beside_the_row_it_doubles_and_goes_when_it_is_taken_back():
    known = delivered(ONE, YEARS_LATER)
    both = delivered(bars((FRIDAY, "A", 10.0), (FRIDAY, "A", 11.0)), YEARS_LATER.replace(hour=9), known=known)
    known = pl.concat([known, both])
    assert sorted(bars_as_of(known, YEARS_LATER.replace(hour=9))["close"]) == [10.0, 11.0]
    known = pl.concat([known, delivered(ONE, YEARS_LATER.replace(hour=10), known=known)])
    assert bars_as_of(known, YEARS_LATER.replace(hour=10))["close"].to_list() == [10.0]


def test_a_revision_is_newer_than_what_it_replaces_though_the_clock_was_set_back():
    known = delivered(ONE, FRIDAY_EVENING)
    known = pl.concat([known, delivered(bars((FRIDAY, "A", 10.5)), FRIDAY_EVENING.replace(minute=0), known=known)])
    assert bars_as_of(known, YEARS_LATER)["close"].to_list() == [10.5]
    assert delivered(bars((FRIDAY, "A", 10.5)), YEARS_LATER, known=known).is_empty()


def test_where_a_row_was_read_from_is_kept_and_a_file_written_again_with_the_same_rows_revises_nothing():
    known = delivered(ONE.with_columns(origin_digest=pl.lit("f1")), YEARS_LATER)
    assert known["origin_digest"].to_list() == ["f1"]
    of_one_file = raw_bar_rows(ONE, facts=replace(FACTS, origin_digest="f"), calendar=XNYS, received_at=YEARS_LATER)
    assert of_one_file["origin_digest"].to_list() == ["f"]
    assert known["digest"].equals(delivered(ONE, YEARS_LATER)["digest"])
    assert delivered(ONE.with_columns(origin_digest=pl.lit("f2")), YEARS_LATER.replace(hour=9), known=known).is_empty()


def test_the_symbol_after_a_rename_is_content_and_where_there_is_none_the_digest_is_what_it_was():
    plain = actions((FRIDAY, "A", "split", 2.0), (FRIDAY, "A", "rename", 1.0))
    named = plain.with_columns(new_symbol=pl.Series([None, "B"]))
    before, after = announced(plain, YEARS_LATER), announced(named, YEARS_LATER)
    same = before["digest"].to_list() == after["digest"].to_list()
    assert not same
    assert before.filter(pl.col("kind") == "split")["digest"].equals(after.filter(pl.col("kind") == "split")["digest"])
    assert after["new_symbol"].to_list() == ["B", None]
