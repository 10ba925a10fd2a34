"""A trader and a broker apart from it, and what the broker's own log says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

from adapters.brokers.alpaca import AlpacaAccess
from adapters.brokers.alpaca_stream import AlpacaStream
from adapters.clock import FixedClock
from adapters.ledger.inbox import open_inbox
from adapters.sources.alpaca import AlpacaKeys
from quant.trading.desk import Desk
from quant.trading.exchange import ExchangeRules
from quant.trading.orders import Order, OrderState
from tests.chaos.worker import DEPOSIT, FREE, TARGETS, decide, desk_of, market
from tests.conftest import REPOSITORY
from tests.fakes.broker_server import DAY, EVENING, NEXT, RunningBroker, wait_for

KILLED = -9
SYMBOLS = sorted(TARGETS)


@dataclass
class Trial:
    server: RunningBroker
    folder: Path

    def work(self, phase: str, die_at: int = 0) -> tuple[int, list[str]]:
        """Exit code and the steps that were made by a process of its own."""
        command = [sys.executable, "-m", "tests.chaos.worker", str(self.folder), self.server.url, phase, str(die_at)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in (0, KILLED), done.stderr
        return done.returncode, done.stdout.split("\n")[:-1]

    def desk(self, at: datetime, **changes: Any) -> Desk:
        """A desk of its own on the ledger, at an instant that the broker's clock shows, too."""
        self.server.control("clock", {"now": at.isoformat()})
        return replace(desk_of(self.folder, self.server.url, at), **changes)

    def log(self, *kinds: str) -> list[dict[str, Any]]:
        """The broker's own log: rows of these kinds, or all."""
        self.server.control("state")  # what happened is in it then
        rows = [json.loads(line) for line in (self.folder / "broker.jsonl").read_text().splitlines()]
        return [row for row in rows if not kinds or row["kind"] in kinds]

    def accepted(self) -> Counter[str]:
        """How often the broker took each order, by its own log."""
        return Counter(row["symbol"] for row in self.log("accepted"))

    def order(self, symbol: str, decided: date = DAY) -> Order:
        """The order of a symbol, as the ledger has it."""
        ledger = desk_of(self.folder, self.server.url, EVENING).ledger
        (found,) = [order for order in ledger.orders("paper", decided=decided) if order.symbol == symbol]
        return found

    def begun(self, targets: Mapping[str, float] = TARGETS) -> Desk:
        """The desk on the evening of NEXT, with the holdings that it decided for on DAY."""
        decide(self.desk(EVENING), targets=targets)
        self.server.run()
        desk = self.desk(EVENING + timedelta(days=1))
        desk.settle(market(NEXT))
        return desk

    @contextmanager
    def listening(self) -> Iterator[AlpacaStream]:
        """The account's stream goes into the inbox, too."""
        inbox = open_inbox(f"sqlite:///{self.folder / 'ledger.sqlite'}", FixedClock(EVENING))
        keys = AlpacaKeys(key_id="k", secret="s")
        stream = AlpacaStream(AlpacaAccess(url=self.server.url), keys, inbox, self.server.house.exchange.account_number)
        done = Event()
        thread = Thread(target=stream.listen, args=(done.is_set,))
        thread.start()
        try:
            wait_for(lambda: self.server.control("state")["listeners"] > 0)
            yield stream
        finally:
            done.set()
            thread.join(timeout=10)

    def judge(self) -> None:
        """Every order once at the broker; nothing unknown in the ledger."""
        orders = desk_of(self.folder, self.server.url, EVENING).ledger.orders("paper")
        assert self.accepted() == Counter(SYMBOLS)
        assert {order.symbol: order.state for order in orders} == dict.fromkeys(SYMBOLS, OrderState.ACCEPTED)

    def judge_books(self, session: date = NEXT) -> None:
        """The ledger's holdings and cash are the broker's."""
        exchange = self.server.house.exchange
        state = desk_of(self.folder, self.server.url, EVENING).state(session)
        assert {s: h.quantity for s, h in state.holdings.items()} == {s: p.quantity for s, p in exchange.positions.items()}
        assert state.cash == exchange.cash


def broker_of(folder: Path) -> RunningBroker:
    return RunningBroker(log=folder / "broker.jsonl", rules=ExchangeRules(costs=FREE, deposit=DEPOSIT, pieces_ratio=1.0))
