"""GETs through the unmodified alpaca-py client from a server that fails as Alpaca does: repeated within bounds, never believed by half."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
import stamina
from alpaca.data.historical.stock import StockHistoricalDataClient
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.alpaca_rest import Reader
from adapters.sources.sample import SampleSource
from quant.errors import FeedFaultError, InputError, SourceUnavailableError
from tests.fakes.alpaca_server import KEY_ID, SECRET, AlpacaServer, Asked, Fault

NOW = datetime(2013, 3, 2, 12, tzinfo=UTC)
FIRST, LAST = date(2013, 2, 20), date(2013, 3, 1)
ROWS = SampleSource(universe=["IBM", "MSFT"]).bars(FIRST, LAST).with_columns(vwap=pl.col("close"))
QUERY = {
    "symbols": "IBM,MSFT",
    "timeframe": "1Day",
    "start": "2013-02-20T00:00:00-05:00",
    "end": "2013-03-01T00:00:00-05:00",
    "feed": "sip",
    "asof": "-",
    "adjustment": "raw",
    "sort": "asc",
}
KEY = ["session", "symbol", "close"]
PASSING = [fault for fault in Fault if fault not in {Fault.NONE, Fault.SILENT}]


@dataclass
class Watch:
    """A clock that only sleeping moves."""

    at: datetime = NOW
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


@pytest.fixture(autouse=True)
def without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(bars=ROWS) as running:
        yield running


def reader(
    server: AlpacaServer, watch: Watch | None = None, *, secret: str = SECRET, timeout_seconds: tuple[float, float] = (5, 5)
) -> Reader:
    watch = watch or Watch()
    client = StockHistoricalDataClient(KEY_ID, secret, raw_data=True, url_override=server.url)
    return Reader(client, watch, timeout_seconds=timeout_seconds, sleep=watch.sleep)


def count(reader: Reader) -> int:
    """Rows of all pages."""
    return sum(len(bars) for page in reader.pages("/stocks/bars", QUERY, "bars") for bars in page.values())


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_asked_for_again(server: AlpacaServer, fault: Fault):
    server.faults.extend([fault, fault])
    assert count(reader(server)) == ROWS.height
    assert server.paths() == ["/v2/stocks/bars"] * 3


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_ends_after_six_attempts_with_what_was_found(server: AlpacaServer, fault: Fault):
    server.faults.extend([fault] * 20)
    with pytest.raises(
        SourceUnavailableError, match=r"expected a reply with a field bars in 127.0.0.1:\d+/stocks/bars, found .*; run this again"
    ):
        count(reader(server))
    assert len(server.asked) == 6


def test_a_fault_in_the_middle_of_the_pages_costs_one_page_and_loses_none(server: AlpacaServer):
    server.page_rows = 4
    server.faults.extend([Fault.NONE, Fault.HALF, Fault.NONE, Fault.TOO_MANY])
    assert count(reader(server)) == ROWS.height
    assert [asked.query.get("page_token") for asked in server.asked] == [None, "4", "4", "8", "8", "12"]


@settings(max_examples=15)
@given(page_rows=st.integers(1, 20), faults=st.lists(st.sampled_from([*PASSING, Fault.NONE]), max_size=5))
def test_whatever_the_pages_and_the_faults_every_row_comes_once(page_rows: int, faults: list[Fault]):
    with AlpacaServer(bars=ROWS, page_rows=page_rows) as server:
        server.faults.extend(faults)
        pages = list(reader(server).pages("/stocks/bars", QUERY, "bars"))
    closes = [(symbol, bar["t"][:10], bar["c"]) for page in pages for symbol, bars in page.items() for bar in bars]
    assert closes == [(symbol, str(day), close) for day, symbol, close in ROWS.sort("symbol", "session").select(KEY).iter_rows()]


def test_a_silent_server_is_given_up_on(server: AlpacaServer):
    server.faults.extend([Fault.SILENT] * 2)
    with stamina.set_testing(True, attempts=2), pytest.raises(SourceUnavailableError, match="found ReadTimeout"):
        count(reader(server, timeout_seconds=(1, 0.05)))


def test_after_too_many_requests_it_waits_as_long_as_the_server_says(server: AlpacaServer):
    server.faults.append(Fault.TOO_MANY)
    watch = Watch()
    count(reader(server, watch))
    assert watch.slept == [7.0]


def test_without_retry_after_it_waits_until_the_limit_is_reset(server: AlpacaServer):
    server.faults.append(Fault.LIMIT_REACHED)
    server.reset_at = NOW + timedelta(seconds=23)
    watch = Watch()
    count(reader(server, watch))
    assert watch.slept == [23.0]


def test_it_does_not_run_into_a_limit_that_the_server_announced(server: AlpacaServer):
    server.page_rows, server.remaining, server.reset_at = 7, 0, NOW + timedelta(seconds=41)
    watch = Watch()
    count(reader(server, watch))
    assert watch.slept == [41.0]  # before the second page; then the minute is over


def test_the_limit_is_of_the_account_whoever_of_us_asks(server: AlpacaServer):
    server.page_rows, server.remaining, server.reset_at = 10_000, 0, NOW + timedelta(seconds=17)
    count(reader(server, Watch()))
    server.remaining = 200
    other = Watch()
    count(reader(server, other))
    assert other.slept == [17.0]


def test_every_further_attempt_is_told(server: AlpacaServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]):
    server.faults.append(Fault.BROKEN)
    count(reader(server))
    assert "500 internal server error occurred: attempt 2 in 0.0 s" in caplog.text
    assert capsys.readouterr().out == ""


def test_no_server_makes_it_wait_longer_than_a_limit_of_a_minute_can_last(server: AlpacaServer):
    server.faults.append(Fault.LIMIT_REACHED)
    server.reset_at = NOW + timedelta(days=365)
    watch = Watch()
    count(reader(server, watch))
    assert watch.slept == [65.0]


def test_a_redirect_is_not_followed(server: AlpacaServer):
    server.faults.append(Fault.REDIRECT)
    count(reader(server))
    assert "/elsewhere" not in server.paths()


def test_proxies_of_the_environment_are_not_used(server: AlpacaServer, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert count(reader(server)) == ROWS.height


def test_what_the_server_refuses_is_wrong_input_and_asked_once(server: AlpacaServer):
    with pytest.raises(InputError, match=r"a request that Alpaca grants in .*, found 400 invalid symbol: A\*; correct \[source\] universe"):
        list(reader(server).pages("/stocks/bars", {**QUERY, "symbols": "A*"}, "bars"))
    with pytest.raises(InputError, match="found 404 endpoint not found"):
        list(reader(server).pages("/stocks/nothing", QUERY, "bars"))
    assert len(server.asked) == 2


def test_keys_are_in_no_message_and_no_log(server: AlpacaServer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    server.faults.extend([Fault.CUT, Fault.BROKEN])
    with pytest.raises(InputError, match=r"found 403 forbidden\.; check APCA_API_KEY_ID and APCA_API_SECRET_KEY") as refused:
        count(reader(server, secret="wrong-and-still-secret"))
    assert server.asked[-1].headers["APCA-API-SECRET-KEY"] == "wrong-and-still-secret"
    told = caplog.text + repr(refused.value) + repr(refused.value.__context__)
    assert KEY_ID not in told
    assert "still-secret" not in told


class Circling(AlpacaServer):
    """Its pages never end."""

    def reply(self, asked: Asked) -> tuple[int, object]:
        return 200, {"bars": {}, "next_page_token": "again"}


def test_pages_that_go_round_in_a_circle_are_a_fault_of_the_feed():
    with Circling(bars=ROWS) as server, pytest.raises(FeedFaultError, match="expected pages that come to an end"):
        count(reader(server))
