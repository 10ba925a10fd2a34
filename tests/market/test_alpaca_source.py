"""Source `alpaca` through the unmodified client: what it asks for, whose bars and actions they are, when they are out, what it refuses."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from adapters.sources.alpaca import AlpacaKeys, AlpacaSource, Rename, names_of
from quant.calendar import exchange_calendar
from quant.errors import FeedFaultError, InputError, SourceUnavailableError
from quant.ports import AdjustmentConvention
from tests.conftest import REPOSITORY
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer, Asked, Fault

SESSIONS = exchange_calendar().sessions(date(2022, 5, 2), date(2022, 6, 30))
RENAMED = date(2022, 6, 9)
FACEBOOK = [(date(2012, 5, 18), "FB"), (RENAMED, "META")]
ROUNDHILL = [(date(2021, 6, 30), "META"), (date(2022, 1, 31), "METV")]
NOW = datetime(2022, 7, 1, 1, tzinfo=UTC)  # 30 June, 21:00 in New York


@dataclass
class Hands:
    """A clock whose hands a test sets."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


def daily(symbol: str, days: list[date], close: float) -> pl.DataFrame:
    """Bars of one ticker, a cent dearer every day."""
    prices = [close + n / 100 for n in range(len(days))]
    rows = pl.DataFrame({"session": days, "symbol": symbol, "open": prices, "high": prices, "low": prices, "close": prices})
    return rows.with_columns(volume=pl.lit(1000.0), vwap=pl.col("close"))


BARS = pl.concat([
    daily("FB", [day for day in SESSIONS if day < RENAMED], 190.0),
    daily("META", [day for day in SESSIONS if day >= RENAMED], 180.0),
    daily("METV", SESSIONS, 10.0),
    daily("AAPL", SESSIONS, 140.0),
])  # fmt: skip


def action(ex_date: date, symbol: str, kind: str, value: float, pay_date: date | None = None) -> dict[str, object]:
    return {"ex_date": ex_date, "symbol": symbol, "kind": kind, "value": value, "pay_date": pay_date}


def actions(*rows: dict[str, object]) -> pl.DataFrame:
    schema = {"ex_date": pl.Date, "symbol": pl.String, "kind": pl.String, "value": pl.Float64, "pay_date": pl.Date}
    return pl.DataFrame(list(rows), schema=schema)


@pytest.fixture(autouse=True)
def without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
def opened() -> Iterator[Callable[..., tuple[AlpacaSource, AlpacaServer]]]:
    """Makes a server and a source that asks it."""
    with ExitStack() as stack:

        def make(server: AlpacaServer | None = None, **settings: Any) -> tuple[AlpacaSource, AlpacaServer]:
            server = stack.enter_context(server or AlpacaServer(bars=BARS, companies=[FACEBOOK, ROUNDHILL]))
            facts: dict[str, Any] = {
                "universe": ["AAPL", "META"],
                "keys": lambda: AlpacaKeys(key_id=KEY_ID, secret=SECRET),
                "calendar": exchange_calendar(),
                "clock": Hands(),
                "asof": SESSIONS[-1],
                "first_session": date(2016, 1, 4),
                "convention": AdjustmentConvention.PREVIOUS_CLOSE,
                "publish_delay_minutes": 30,
                "data_url": server.url,
                "trading_url": server.url,
            }
            return AlpacaSource(**facts | settings), server

        yield make


Opened = Callable[..., tuple[AlpacaSource, AlpacaServer]]


def test_nothing_is_asked_and_no_key_needed_before_the_first_question(opened: Opened):
    def keys() -> AlpacaKeys:
        raise InputError("no keys")

    source, server = opened(keys=keys)
    assert source.facts.name == "alpaca"
    assert source.last_session(NOW) == SESSIONS[-1]
    assert server.asked == []
    with pytest.raises(InputError, match="no keys"):
        source.bars(SESSIONS[0], SESSIONS[0])


def test_the_source_loads_the_client_only_when_it_is_asked():
    code = "import sys, adapters.sources.alpaca; sys.exit(bool({'alpaca', 'requests', 'stamina'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_keys_show_in_no_repr():
    assert SECRET not in repr(AlpacaKeys(key_id=KEY_ID, secret=SECRET))
    assert KEY_ID not in repr(AlpacaKeys(key_id=KEY_ID, secret=SECRET))


def test_it_asks_for_raw_prices_of_the_feed_named_as_of_the_day_given_and_for_no_minute_after_midnight(opened: Opened):
    source, server = opened(feed="iex")
    source.bars(SESSIONS[-2], SESSIONS[-1])
    query = server.asked[0].query
    wanted = {"adjustment": "raw", "feed": "iex", "asof": "2022-06-30", "timeframe": "1Day", "limit": "10000", "symbols": "AAPL,META"}
    assert query.items() >= wanted.items()
    assert (query["start"], query["end"]) == ("2022-06-29T04:00:00+00:00", "2022-06-30T04:00:00+00:00")


def test_all_pages_are_read_whatever_symbol_they_break_in(opened: Opened):
    whole, _ = opened()
    paged, server = opened(AlpacaServer(bars=BARS, companies=[FACEBOOK, ROUNDHILL], page_rows=7))
    assert_frame_equal(paged.bars(SESSIONS[0], SESSIONS[-1]), whole.bars(SESSIONS[0], SESSIONS[-1]))
    assert len(server.asked) == -(-2 * len(SESSIONS) // 7)


def test_a_long_universe_is_asked_for_in_portions(opened: Opened):
    many = [f"S{n:04}" for n in range(450)]
    rows = pl.concat(daily(symbol, SESSIONS[-1:], 10.0) for symbol in many)
    source, server = opened(AlpacaServer(bars=rows), universe=many)
    assert source.bars(SESSIONS[-1], SESSIONS[-1])["symbol"].to_list() == many
    assert [len(asked.query["symbols"].split(",")) for asked in server.asked] == [200, 200, 50]


def test_faults_on_the_way_change_nothing_of_what_is_delivered(opened: Opened):
    calm, _ = opened()
    rough, server = opened()
    server.faults.extend([Fault.GATEWAY, Fault.BROKEN, Fault.CUT, Fault.NONE, Fault.HALF])
    assert_frame_equal(rough.bars(SESSIONS[0], SESSIONS[9]), calm.bars(SESSIONS[0], SESSIONS[9]))
    assert_frame_equal(rough.bars(SESSIONS[10], SESSIONS[-1]), calm.bars(SESSIONS[10], SESSIONS[-1]))
    server.faults.extend([Fault.EMPTY] * 6)
    with pytest.raises(SourceUnavailableError, match="found nothing with status 200"):
        rough.bars(SESSIONS[0], SESSIONS[9])


def test_a_renamed_company_is_one_series_under_the_name_it_had_on_the_day_given(opened: Opened):
    later, _ = opened()
    earlier, _ = opened(universe=["FB"], asof=RENAMED - timedelta(days=1))
    series = pl.concat([BARS.filter(pl.col("symbol") == ticker) for ticker in ("FB", "META")])
    values = later.bars(SESSIONS[0], SESSIONS[-1]).filter(pl.col("symbol") == "META").drop("symbol")
    assert_frame_equal(values, series.drop("symbol"))
    assert_frame_equal(earlier.bars(SESSIONS[0], SESSIONS[-1]).drop("symbol"), values)


def test_tickers_as_traded_are_what_traded_under_them(opened: Opened):
    source, _ = opened(universe=["FB", "META"], asof="-")
    assert_frame_equal(
        source.bars(SESSIONS[0], SESSIONS[-1]),
        BARS.filter(pl.col("symbol").is_in(["FB", "META"])).sort("session", "symbol"),
    )


def test_a_range_over_a_rename_is_its_sessions_put_together(opened: Opened):
    source, _ = opened()
    around = exchange_calendar().sessions(RENAMED - timedelta(days=2), RENAMED + timedelta(days=1))
    assert_frame_equal(source.bars(around[0], around[-1]), pl.concat([source.bars(day, day) for day in around]))


def test_actions_follow_the_company_and_not_the_ticker(opened: Opened):
    listed = actions(
        action(date(2022, 1, 20), "META", "dividend", 0.07),  # Roundhill's
        action(date(2022, 3, 1), "FB", "dividend", 0.5),
        action(date(2022, 6, 20), "META", "split", 2.0),
        action(date(2022, 6, 21), "METV", "dividend", 0.08),
    )
    source, _ = opened(AlpacaServer(bars=BARS, actions=listed, companies=[FACEBOOK, ROUNDHILL]))
    found = source.actions(date(2022, 1, 3), SESSIONS[-1])
    assert found.rows() == [
        (date(2022, 3, 1), "META", "dividend", 0.5, None, None),
        (date(2022, 6, 20), "META", "split", 2.0, None, None),
    ]
    fund, _ = opened(AlpacaServer(bars=BARS, actions=listed, companies=[FACEBOOK, ROUNDHILL]), universe=["METV"])
    assert fund.actions(date(2022, 1, 3), SESSIONS[-1])["value"].to_list() == [0.07, 0.08]


def test_a_dividend_is_found_by_its_ex_date_although_alpaca_files_it_under_the_day_it_is_paid(opened: Opened):
    ex_date = SESSIONS[5]
    listed = actions(action(ex_date, "AAPL", "dividend", 0.23, ex_date + timedelta(days=90)))
    source, _ = opened(AlpacaServer(bars=BARS, actions=listed))
    assert source.actions(ex_date, ex_date).rows() == [(ex_date, "AAPL", "dividend", 0.23, ex_date + timedelta(days=90), None)]
    assert source.actions(ex_date + timedelta(days=1), SESSIONS[-1]).is_empty()


def test_dividends_of_one_day_are_added_up_and_splits_are_new_shares_an_old_one(opened: Opened):
    ex_date = SESSIONS[5]
    listed = actions(
        action(ex_date, "AAPL", "dividend", 0.25, SESSIONS[9]),
        action(ex_date, "AAPL", "dividend", 1.5, SESSIONS[8]),
        action(SESSIONS[6], "AAPL", "split", 0.1),
        action(SESSIONS[7], "AAPL", "dividend", 0.0),
    )
    stock = {"stock_dividends": [{"symbol": "AAPL", "rate": 0.05, "ex_date": str(SESSIONS[8]), "process_date": str(SESSIONS[8])}]}
    source, _ = opened(AlpacaServer(bars=BARS, actions=listed, corporate=stock, page_rows=2))
    assert source.actions(SESSIONS[0], SESSIONS[-1]).rows() == [
        (ex_date, "AAPL", "dividend", 1.75, SESSIONS[9], None),
        (SESSIONS[6], "AAPL", "split", 0.1, None, None),
        (SESSIONS[8], "AAPL", "split", 1.05, None, None),
    ]


def test_what_nothing_applies_is_said(opened: Opened, caplog: pytest.LogCaptureFixture):
    listed = {
        "redemptions": [{"symbol": "AAPL", "rate": 10.0, "process_date": str(SESSIONS[5])}],
        "spin_offs": [{**SPUN, "new_symbol": "UNTRADED"}],
    }
    source, _ = opened(AlpacaServer(bars=BARS, corporate=listed))
    with caplog.at_level(logging.WARNING):
        assert source.actions(SESSIONS[0], SESSIONS[-1]).is_empty()
    day = SESSIONS[5]
    assert f"redemptions of AAPL, {day}, not applied to prices or holdings; nothing here stands for it" in caplog.text
    assert f"spin_offs of AAPL, {day}, not applied to prices or holdings; what was given for it has no price yet" in caplog.text
    told = source.announcements(SESSIONS[0], SESSIONS[-1], ["AAPL"])
    assert [(item.day, item.symbol, item.what, item.observed) for item in told] == [
        (day, "AAPL", "action_not_applied", "redemptions"),
        (day, "AAPL", "action_not_applied", "spin_offs"),
    ]
    assert json.loads(told[0].evidence)["rate"] == 10.0


UPCOMING = exchange_calendar().next(SESSIONS[-1])


def test_hours_of_another_calendar_and_symbols_that_cannot_be_traded_any_more_are_announced(opened: Opened):
    mourning, short = SESSIONS[3], SESSIONS[4]
    source, server = opened(AlpacaServer(bars=BARS, hours={mourning: None, short: time(13)}, inactive={"AAPL", "META"}), universe=["AAPL"])
    told = source.announcements(SESSIONS[0], UPCOMING, ["AAPL"])
    assert [(item.day, item.symbol, item.what, item.expected.partition(", ")[0], item.observed) for item in told] == [
        (mourning, "*", "other_hours", "09:30 to 16:00 America/New_York", "closed"),
        (short, "*", "other_hours", "09:30 to 16:00 America/New_York", "09:30 to 13:00 America/New_York"),
        (
            SESSIONS[-1],
            "AAPL",
            "not_tradable",
            "a symbol with bars to be active and tradable; if it was delisted or renamed",
            "inactive, tradable true",
        ),
    ]
    assert source.announcements(SESSIONS[-1], UPCOMING, []) == [], "one without a bar may have been gone for long"
    server.asked.clear()
    assert len(source.announcements(SESSIONS[0], SESSIONS[-1], ["AAPL"])) == 2
    assert "/v2/assets" not in server.paths(), "what can be traded now says nothing of an older session"


def test_the_company_of_the_universe_is_asked_about_under_the_name_it_has_now(opened: Opened):
    renamed = AlpacaServer(bars=BARS, companies=[FACEBOOK, ROUNDHILL], inactive={"FB"})
    source, _ = opened(renamed, asof=SESSIONS[0], universe=["FB"])
    assert source.announcements(SESSIONS[-1], UPCOMING, ["FB"]) == []


def test_a_spin_off_that_trades_later_is_worth_its_first_open(opened: Opened):
    later = BARS.filter((pl.col("symbol") != "METV") | (pl.col("session") > SESSIONS[7]))
    source, _ = opened(AlpacaServer(bars=later, corporate={"spin_offs": [SPUN]}))
    opened_at = later.filter(pl.col("symbol") == "METV", pl.col("session") == SESSIONS[8])["open"].item()
    assert source.actions(SESSIONS[0], SESSIONS[-1]).rows() == [(SESSIONS[5], "AAPL", "spinoff", opened_at / 4, None, "METV")]


SPUN = {
    "source_symbol": "AAPL",
    "source_rate": 4,
    "new_symbol": "METV",
    "new_rate": 1,
    "process_date": str(SESSIONS[5]),
    "ex_date": str(SESSIONS[5]),
}


def test_adjusted_closes_are_asked_for_if_wanted_and_their_returns_go_with_the_bars(opened: Opened):
    listed = actions(action(SESSIONS[5], "AAPL", "dividend", 1.4), action(SESSIONS[8], "AAPL", "split", 2.0))
    source, server = opened(AlpacaServer(bars=BARS, actions=listed), adjusted_closes=True)
    rows = source.bars(SESSIONS[4], SESSIONS[9]).filter(pl.col("symbol") == "AAPL")
    raw = BARS.filter(pl.col("symbol") == "AAPL")["close"].to_list()
    factors = {5: 1 / (1 - 1.4 / raw[4]), 8: 2.0}
    assert rows["adjusted_return"].to_list() == pytest.approx([raw[n] / raw[n - 1] * factors.get(n, 1.0) for n in range(4, 10)])
    assert {asked.query.get("adjustment") for asked in server.asked if asked.path == "/v2/stocks/bars"} == {"raw", "all"}
    plain, _ = opened(AlpacaServer(bars=BARS, actions=listed))
    assert "adjusted_return" not in plain.bars(SESSIONS[4], SESSIONS[9]).columns


def test_a_spin_off_is_worth_the_open_of_what_a_share_was_given(opened: Opened):
    source, server = opened(AlpacaServer(bars=BARS, corporate={"spin_offs": [SPUN]}))
    opened_at = server.bars.filter(pl.col("symbol") == "METV", pl.col("session") == SESSIONS[5])["open"].item()
    assert source.actions(SESSIONS[0], SESSIONS[-1]).rows() == [(SESSIONS[5], "AAPL", "spinoff", opened_at / 4, None, "METV")]


@pytest.mark.parametrize(
    ("kind", "terms", "worth"),
    [
        ("worthless_removals", {"symbol": "AAPL"}, lambda close: 0.0),
        ("cash_mergers", {"acquiree_symbol": "AAPL", "acquirer_symbol": "METV", "rate": 12.5}, lambda close: 12.5),
        (
            "stock_mergers",
            {"acquiree_symbol": "AAPL", "acquiree_rate": 2, "acquirer_symbol": "METV", "acquirer_rate": 3},
            lambda close: close * 1.5,
        ),
        (
            "stock_and_cash_mergers",
            {"acquiree_symbol": "AAPL", "acquiree_rate": 1, "acquirer_symbol": "METV", "acquirer_rate": 1, "cash_rate": 2.0},
            lambda close: close + 2.0,
        ),
    ],
)
def test_a_merger_or_removal_delists_at_what_a_share_became_worth(
    opened: Opened, kind: str, terms: dict[str, object], worth: Callable[[float], float]
):
    day = SESSIONS[6]
    source, server = opened(AlpacaServer(bars=BARS, corporate={kind: [{**terms, "process_date": str(day), "effective_date": str(day)}]}))
    close = server.bars.filter(pl.col("symbol") == "METV", pl.col("session") == SESSIONS[5])["close"].item()
    ((ex_date, symbol, ours, value, _, _),) = source.actions(SESSIONS[0], SESSIONS[-1]).rows()
    assert (ex_date, symbol, ours, value) == (day, "AAPL", "delisting", pytest.approx(worth(close)))


def test_as_traded_a_name_change_is_a_rename_if_the_new_name_is_of_the_universe(opened: Opened, caplog: pytest.LogCaptureFixture):
    both, _ = opened(AlpacaServer(bars=BARS, companies=[FACEBOOK, ROUNDHILL]), asof="-", universe=["FB", "META"])
    (day, _) = FACEBOOK[1]
    assert both.actions(SESSIONS[0], SESSIONS[-1]).rows() == [(day, "FB", "rename", 1.0, None, "META")]
    old, _ = opened(AlpacaServer(bars=BARS, companies=[FACEBOOK, ROUNDHILL]), asof="-", universe=["FB"])
    with caplog.at_level(logging.WARNING):
        assert old.actions(SESSIONS[0], SESSIONS[-1]).is_empty()
    assert f"name change to META of FB, {day}, not applied to prices or holdings; add META to the universe" in caplog.text


BAD_ITEMS = [
    ("cash_dividends", {"symbol": "AAPL", "rate": -1.0, "ex_date": "2022-05-09"}),
    ("cash_dividends", {"symbol": "AAPL", "rate": 1.0, "ex_date": None}),
    ("cash_dividends", {"symbol": "AAPL", "rate": "much", "ex_date": "2022-05-09"}),
    ("forward_splits", {"symbol": "AAPL", "new_rate": 2, "old_rate": 0, "ex_date": "2022-05-09"}),
    ("forward_splits", {"symbol": "AAPL", "new_rate": 2, "ex_date": "2022-05-09"}),
    ("reverse_splits", {"symbol": "AAPL", "new_rate": 0, "old_rate": 2, "ex_date": "2022-05-09"}),
    ("cash_mergers", {"acquiree_symbol": "AAPL", "acquirer_symbol": "METV", "rate": -1.0}),
    ("cash_mergers", {"acquiree_symbol": "AAPL", "acquirer_symbol": "METV", "rate": None}),
    ("stock_mergers", {"acquiree_symbol": "AAPL", "acquiree_rate": 0, "acquirer_symbol": "METV", "acquirer_rate": 1}),
    ("spin_offs", {"source_symbol": "AAPL", "source_rate": 4, "new_symbol": "METV", "new_rate": -1, "ex_date": "2022-05-09"}),
    ("name_changes", {"old_symbol": "AAPL", "new_symbol": None}),
]


@pytest.mark.parametrize(("kind", "item"), BAD_ITEMS)
def test_an_action_without_a_meaning_is_a_fault_of_the_feed_that_shows_it(opened: Opened, kind: str, item: dict[str, object]):
    source, _ = opened(AlpacaServer(bars=BARS, corporate={kind: [{**item, "process_date": "2022-05-09"}]}))
    with pytest.raises(FeedFaultError, match=rf'expected {kind} with .*, found \{{.*symbol": "AAPL"'):
        source.actions(SESSIONS[0], SESSIONS[-1])


class Answering(AlpacaServer):
    """Answers everything with one body."""

    body: object = None

    def reply(self, asked: Asked) -> tuple[int, object]:
        return 200, self.body


@pytest.mark.parametrize(
    ("bars", "found"),
    [
        ({"AAPL": [{"t": "yesterday", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1, "vw": 1}]}, "found 'yesterday'"),
        ({"AAPL": [{"o": 1, "h": 1, "l": 1, "c": 1, "v": 1, "vw": 1}]}, "found None"),
        ({"AAPL": [{"t": "2022-05-09T04:00:00Z", "o": "dear"}]}, 'found .*"dear"'),
        ({"AAPL": ["a bar"]}, "found "),
        (["a bar"], "found "),
    ],
)
def test_bars_of_another_form_are_a_fault_of_the_feed(opened: Opened, bars: object, found: str):
    server = Answering(bars=BARS)
    server.body = {"bars": bars, "next_page_token": None}
    source, _ = opened(server)
    with pytest.raises(FeedFaultError, match=f"expected .*in source alpaca, /stocks/bars, {found}"):
        source.bars(SESSIONS[0], SESSIONS[-1])


def test_a_symbol_without_bars_today_is_known_if_it_ever_had_one(opened: Opened):
    gone = daily("GONE", SESSIONS[:3], 5.0)
    source, server = opened(AlpacaServer(bars=pl.concat([BARS, gone])), universe=["AAPL", "GONE"])
    assert source.bars(SESSIONS[-1], SESSIONS[-1])["symbol"].to_list() == ["AAPL"]
    source.bars(SESSIONS[-2], SESSIONS[-2])
    assert [asked.query["timeframe"] for asked in server.asked] == ["1Day", "12Month", "1Day"]  # looked up once


def test_a_session_is_out_its_publish_delay_after_its_close_on_half_days_too(opened: Opened):
    source, _ = opened(publish_delay_minutes=60)
    before, half = date(2022, 11, 23), date(2022, 11, 25)
    closed = datetime(2022, 11, 25, 18, tzinfo=UTC)
    assert source.last_session(closed + timedelta(minutes=59)) == before
    assert source.last_session(closed + timedelta(minutes=60)) == half
    assert source.last_session(closed + timedelta(days=2)) == half
    late, _ = opened(publish_delay_minutes=960)
    assert late.last_session(datetime(2022, 11, 23, 12, tzinfo=UTC)) == date(2022, 11, 21)


def test_a_session_that_is_not_out_yet_is_an_error_that_says_when(opened: Opened):
    source, server = opened(clock=Hands(datetime(2022, 6, 30, 20, 15, tzinfo=UTC)))
    with pytest.raises(
        InputError, match=r"sessions from 2016-01-04 to 2022-06-29 in source alpaca, found 2022-06-30; .* comes 30 minutes after"
    ):
        source.bars(SESSIONS[-1], SESSIONS[-1])
    assert server.asked == []


def test_what_the_subscription_does_not_allow_is_told_in_alpacas_words(opened: Opened):
    source, _ = opened(AlpacaServer(bars=BARS, real_time_from=datetime(2022, 6, 30, tzinfo=UTC)))
    with pytest.raises(InputError, match=r"403 subscription does not permit querying recent SIP data; check .* allows this feed that soon"):
        source.bars(SESSIONS[-1], SESSIONS[-1])


def test_an_empty_universe_is_refused():
    with pytest.raises(InputError, match="expected symbols in universe of source alpaca"):
        AlpacaSource(
            universe=[],
            keys=lambda: AlpacaKeys(key_id="", secret=""),
            calendar=exchange_calendar(),
            clock=Hands(),
            asof="-",
            first_session=SESSIONS[0],
            convention=AdjustmentConvention.PREVIOUS_CLOSE,
            publish_delay_minutes=0,
        )


def test_minutes_come_with_their_instants_and_only_as_far_as_they_are_out(opened: Opened):
    minutes = [
        datetime(2022, 6, 30, 13, 30, tzinfo=UTC),
        datetime(2022, 6, 30, 23, 59, tzinfo=UTC),
        datetime(2022, 7, 1, 0, 45, tzinfo=UTC),
    ]
    rows = daily("AAPL", SESSIONS[-3:], 140.0).drop("session").with_columns(at=pl.Series(minutes))
    source, _ = opened(AlpacaServer(bars=BARS, minutes=rows), universe=["AAPL"])
    found = source.minute_bars(SESSIONS[-1], SESSIONS[-1])
    assert found["started_at"].to_list() == minutes[:2]  # it is 1:00 UTC, and the delay 30 minutes
    assert found.columns == ["started_at", "symbol", "open", "high", "low", "close", "volume", "vwap"]


def test_its_calendar_is_ours(opened: Opened):
    source, _ = opened()
    ours = exchange_calendar()
    days = ours.sessions(date(2022, 11, 21), date(2022, 11, 30))  # with a half day
    assert source.calendar(days[0], days[-1]).rows() == [(day, ours.open_at(day), ours.close_at(day)) for day in days]


def test_its_assets_say_what_may_be_done_with_them(opened: Opened):
    source, server = opened()
    assets = source.assets()
    assert assets["symbol"].to_list() == ["AAPL", "FB", "META", "METV"]
    assert assets["shortable"].all()
    assert server.asked[-1].query == {"asset_class": "us_equity"}


TICKERS = st.sampled_from("ABC")


@given(
    changes=st.lists(st.builds(Rename, day=st.dates(date(2020, 1, 1), date(2020, 1, 20)), old=TICKERS, new=TICKERS), max_size=6),
    asof=st.dates(date(2019, 12, 30), date(2020, 1, 25)),
)
def test_whatever_the_renames_a_company_has_one_name_on_every_day_and_its_own_on_the_day_given(changes: list[Rename], asof: date):
    names = names_of("A", asof, changes)
    assert names[0].first == date.min
    assert names[-1].last == date.max
    assert all(later.first - earlier.last == timedelta(days=1) for earlier, later in pairwise(names))
    assert [name.symbol for name in names if name.first <= asof <= name.last] == ["A"]


def test_what_was_given_or_paid_in_shares_is_priced_by_the_company_that_had_the_name_that_day(opened: Opened):
    later = date(2022, 6, 20)
    spun = [(SESSIONS[0], "CORE"), (later, "COREX")]
    other = [(SESSIONS[0], "ELSE"), (later, "CORE")]  # takes the name over: on the day asof it is theirs
    bars = pl.concat([
        BARS,
        daily("CORE", [day for day in SESSIONS if day < later], 20.0),
        daily("COREX", [day for day in SESSIONS if day >= later], 21.0),
        daily("ELSE", [day for day in SESSIONS if day < later], 500.0),
    ])  # fmt: skip
    paid = {"acquiree_symbol": "META", "acquiree_rate": 1, "acquirer_symbol": "CORE", "acquirer_rate": 1}
    listed = {
        "spin_offs": [{**SPUN, "new_symbol": "CORE"}],
        "stock_mergers": [{**paid, "acquiree_symbol": "METV", "process_date": str(SESSIONS[6])}],
    }
    source, _ = opened(AlpacaServer(bars=bars, companies=[spun, other], corporate=listed), universe=["AAPL", "METV"])
    assert source.actions(SESSIONS[0], SESSIONS[-1])["value"].to_list() == pytest.approx([20.05 / 4, 20.05])


def test_a_change_of_the_company_name_alone_is_no_rename(opened: Opened):
    change = {"old_symbol": "AAPL", "new_symbol": "AAPL", "old_cusip": "0", "new_cusip": "1", "process_date": str(SESSIONS[4])}
    source, _ = opened(AlpacaServer(bars=BARS, corporate={"name_changes": [change]}), asof="-", universe=["AAPL"])
    assert source.actions(SESSIONS[0], SESSIONS[-1]).is_empty()


def test_what_lies_outside_the_days_asked_for_costs_no_question_no_warning_and_no_fault(opened: Opened, caplog: pytest.LogCaptureFixture):
    ahead = str(SESSIONS[-1] + timedelta(days=90))
    listed = {
        "redemptions": [{"symbol": "AAPL", "rate": 10.0, "process_date": ahead}],
        "spin_offs": [{**SPUN, "ex_date": ahead, "process_date": ahead}, {**SPUN}],
        "cash_mergers": [{"acquiree_symbol": "AAPL", "rate": None, "process_date": ahead, "effective_date": ahead}],  # not agreed on yet
    }
    source, server = opened(AlpacaServer(bars=BARS, corporate=listed))
    with caplog.at_level(logging.WARNING):
        assert source.actions(SESSIONS[8], SESSIONS[-1]).is_empty()
    assert caplog.text == ""
    assert "/v2/stocks/bars" not in server.paths()


def test_a_name_that_alpaca_refuses_to_price_leaves_the_other_actions(opened: Opened, caplog: pytest.LogCaptureFixture):
    listed = {"spin_offs": [{**SPUN, "new_symbol": "CORE-WI"}]}
    dividend = actions(action(SESSIONS[4], "AAPL", "dividend", 0.5))
    source, _ = opened(AlpacaServer(bars=BARS, actions=dividend, corporate=listed))
    with caplog.at_level(logging.WARNING):
        assert source.actions(SESSIONS[0], SESSIONS[-1])["kind"].to_list() == ["dividend"]
    assert "what was given for it has no price yet" in caplog.text


def test_a_kind_without_items_is_none(opened: Opened):
    server = Answering(bars=BARS)
    server.body = {"corporate_actions": {"cash_dividends": None}, "next_page_token": None}  # as a list is written that never was made
    source, _ = opened(server)
    assert source.actions(SESSIONS[0], SESSIONS[-1]).is_empty()
