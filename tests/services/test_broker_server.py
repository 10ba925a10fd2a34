"""The stand-in for a broker: Alpaca's own client and models believe it, its log is whole at any moment, control moves what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import GetCalendarRequest, GetOrdersRequest, LimitOrderRequest, MarketOrderRequest

from services.broker.faults import EventFaults, FaultPlan, Faults, plan_of
from tests.fakes.broker_server import BARS, DAY, NEXT, RunningBroker

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningBroker]:
    with RunningBroker(log=tmp_path / "log.jsonl") as running:
        yield running


@pytest.fixture
def client(server: RunningBroker) -> TradingClient:
    client = TradingClient("key", "secret", url_override=server.url)
    client._session.trust_env = False
    return client


def at_open(symbol: str, quantity: float, name: str, side: OrderSide = OrderSide.BUY) -> MarketOrderRequest:
    return MarketOrderRequest(symbol=symbol, qty=quantity, side=side, time_in_force=TimeInForce.OPG, client_order_id=name)


def test_the_models_of_the_unmodified_client_take_every_reply(server: RunningBroker, client: TradingClient):
    assert not client.get_clock().is_open
    days = client.get_calendar(GetCalendarRequest(start=date(2020, 11, 25), end=date(2020, 11, 30)))
    assert [(str(day.date), f"{day.close:%H:%M}") for day in days] == [
        ("2020-11-25", "16:00"),
        ("2020-11-27", "13:00"),
        ("2020-11-30", "16:00"),
    ]
    assert client.get_asset("AAA").shortable
    limit = LimitOrderRequest(
        symbol="BBB", qty=100, side=OrderSide.SELL, time_in_force=TimeInForce.DAY, limit_price=50.25, client_order_id="l"
    )
    placed = [client.submit_order(one) for one in (at_open("AAA", 300, "m"), limit, at_open("CCC", 5, "c"))]
    client.cancel_order_by_id(placed[2].id)
    assert client.get_order_by_id(placed[0].id).status == "accepted"
    assert {order.client_order_id for order in client.get_orders()} == {"m", "l"}
    server.run()
    assert client.get_order_by_client_id("l").filled_avg_price == "50.25"
    assert client.get_order_by_client_id("c").status == "canceled"
    ended = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.CLOSED, limit=500))
    assert len(ended) == 3
    assert {position.symbol: position.qty for position in client.get_all_positions()} == {"AAA": "300", "BBB": "-100"}
    assert client.get_open_position("BBB").side == "short"
    assert client.get_account().account_number == server.house.exchange.account_number
    assert {row["order_id"] for row in client.get("/account/activities/FILL")} == {str(order.id) for order in placed[:2]}
    assert client.cancel_orders() == []


@pytest.mark.parametrize("ask", ["get_open_position", "get_asset", "get_order_by_client_id"])
def test_what_is_not_there_is_a_404(client: TradingClient, ask: str):
    with pytest.raises(APIError) as caught:
        getattr(client, ask)("ZZZ")
    assert caught.value.status_code == 404


def test_refusals_have_the_status_and_code_of_alpaca(server: RunningBroker, client: TradingClient):
    def refused(request: MarketOrderRequest) -> tuple[int, int]:
        with pytest.raises(APIError) as caught:
            client.submit_order(request)
        return caught.value.status_code, caught.value.code

    client.submit_order(at_open("AAA", 1, "once"))
    server.control("marks", {"BBB": 50})
    assert refused(at_open("AAA", 1, "once")) == (422, 40010001)
    assert refused(at_open("AAA", 1, "other", OrderSide.SELL)) == (403, 40310000)
    assert refused(at_open("BBB", 1e6, "much")) == (403, 40310000)
    server.control("asset", {"symbol": "BBB", "tradable": False})
    assert refused(at_open("BBB", 1, "gone")) == (422, 42210000)


def test_a_position_is_not_flipped_in_one_order(server: RunningBroker, client: TradingClient):
    server.control("trade", {"symbol": "AAA", "qty": 10, "price": 50})
    with pytest.raises(APIError, match="insufficient qty"):
        client.submit_order(at_open("AAA", 11, "flip", OrderSide.SELL))
    client.submit_order(at_open("AAA", 10, "close", OrderSide.SELL))


def test_the_log_names_every_order_and_execution_once_in_whole_lines(server: RunningBroker, client: TradingClient, tmp_path: Path):
    for name in ("a", "b"):
        client.submit_order(at_open("AAA", 100, name))
        rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert [row["client_order_id"] for row in rows if row["kind"] == "accepted"] == ["a", "b"][: len(rows)]
    server.run()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    executed = [row for row in rows if "execution_id" in row]
    assert sum(Decimal(row["execution_qty"]) for row in executed) == 200
    assert len({row["execution_id"] for row in executed}) == len(executed) == 4


def test_a_reset_is_a_new_account_with_nothing_in_it(server: RunningBroker, client: TradingClient):
    before = client.get_account().account_number
    client.submit_order(at_open("AAA", 100, "a"))
    server.run()
    server.control("reset")
    assert client.get_account().account_number != before
    assert client.get_all_positions() == client.get_orders() == client.get("/account/activities/FILL") == []


def test_a_split_changes_shares_and_not_the_cost_and_pays_the_fraction(server: RunningBroker, client: TradingClient):
    server.control("trade", {"symbol": "AAA", "qty": 5, "price": 50})
    cash = Decimal(client.get_account().cash)
    server.control("split", {"symbol": "AAA", "ratio": 1.5})
    held = client.get_open_position("AAA")
    assert (held.qty, held.cost_basis) == ("7", "250")
    assert Decimal(client.get_account().cash) - cash == Decimal("16.67")  # half a share at 33.33


def test_control_refuses_what_it_does_not_understand(server: RunningBroker):
    for what, asked in (("clock", {"now": "2020-01-03T10:00:00"}), ("faults", [{"kind": "unheard"}]), ("nothing", {}), ("trade", {})):
        with pytest.raises(OSError, match="400"):
            server.control(what, asked)


def test_a_request_without_keys_is_not_answered(server: RunningBroker):
    import requests

    assert requests.get(f"{server.url}/v2/account", timeout=5).status_code == 401


def test_faults_come_by_counting():
    faults = Faults(plan_of('[{"kind": "500", "skip": 1, "times": 2}, {"kind": "429", "on": "GET"}]'))
    met = [faults.of(request) for request in ["POST /v2/orders"] * 4 + ["GET /v2/clock"] * 2]
    assert [fault and fault.kind.value for fault in met] == [None, "500", "500", None, "429", None]


def test_events_are_repeated_held_and_lost_by_counting():
    faults = Faults(FaultPlan(events=EventFaults(copies=2, hold=2, lose=1)))
    sent = [[event["n"] for event in faults.sent({"n": n})] for n in range(4)]
    assert sent == [[], [], [2, 2, 1, 1], []]
    assert [event["n"] for event in faults.flush()] == [3, 3]


@pytest.mark.slow
@pytest.mark.services
def test_the_command_serves_a_history_of_bars_and_the_listener_writes_what_it_tells(tmp_path: Path):
    import polars as pl
    import requests

    rows = [{"session": session, "symbol": symbol, **bar} for session in (DAY, NEXT) for symbol, bar in BARS.items()]
    pl.DataFrame(rows).write_parquet(tmp_path / "bars.parquet")
    afterclose = [sys.executable, "-m", "orchestration.cli"]
    log = tmp_path / "log.jsonl"
    command = [*afterclose, "broker", "serve", "--port", "0", "--bars", str(tmp_path / "bars.parquet"), "--log", str(log)]
    environment = {**os.environ, "AFTERCLOSE_DATA": str(tmp_path / "data"), "APCA_API_KEY_ID": "k", "APCA_API_SECRET_KEY": "s"}
    serving = subprocess.Popen([*command, "--now", "2020-01-02T20:30:00-05:00"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        broker = {"AFTERCLOSE__BROKER__KIND": "alpaca", "AFTERCLOSE__BROKER__URL": url}
        listener = subprocess.Popen(
            [*afterclose, "broker", "listen", "--seconds", "6"], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment | broker
        )
        assert listener.stdout is not None
        assert listener.stdout.readline().startswith("Listening for account PA")
        while not requests.get(f"{url}/_control/state", timeout=5).json()["listeners"]:
            assert listener.poll() is None
        keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
        order = {"symbol": "AAA", "qty": "10", "side": "buy", "type": "market", "time_in_force": "opg", "client_order_id": "one"}
        assert requests.post(f"{url}/v2/orders", json=order, headers=keys, timeout=5).status_code == 200
        requests.post(f"{url}/_control/clock", json={"now": "2020-01-03T16:00:00-05:00"}, timeout=5)
        (held,) = requests.get(f"{url}/v2/positions", headers=keys, timeout=5).json()
        assert held["qty"] == "10"
        assert listener.communicate(timeout=60)[0].strip() in {"2 updates received, 0 of them lost.", "3 updates received, 0 of them lost."}
    finally:
        serving.terminate()
        serving.communicate(timeout=10)
    assert json.loads(log.read_text().splitlines()[0])["kind"] == "accepted"
