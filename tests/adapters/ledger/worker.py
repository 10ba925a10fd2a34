"""A process that posts to a ledger: ``python -m tests.adapters.ledger.worker URL FIRST LAST BATCH``.

Says "ready", waits for a line, then opens the ledger and posts the numbered entries FIRST to LAST in batches, each batch with one order
and one event, printing how many entries were new.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from adapters.clock import FixedClock
from adapters.ledger import open_ledger
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.trading.orders import Leg, Order, OrderState, Side

CLOCK = FixedClock(datetime(2013, 3, 1, 22, tzinfo=UTC))
SESSION = date(2013, 3, 1)


def numbered_entry(number: int) -> Entry:
    return Entry(
        book="paper",
        session=SESSION,
        key=str(number),
        kind=EntryKind.TRADE,
        symbol="IBM",
        price=Decimal("1.5"),
        postings=transfer(Account.CASH, Account.SECURITIES, Decimal("1.5") * number, Decimal(number)),
    )


def numbered_order(number: int) -> Order:
    return Order(
        book="paper",
        session=SESSION + timedelta(days=number),
        symbol="IBM",
        leg=Leg.OPEN,
        side=Side.BUY,
        quantity=Decimal(1),
        reference_price=Decimal(1),
        state=OrderState.PENDING_NEW,
    )


if __name__ == "__main__":
    url, (first, last, batch) = sys.argv[1], map(int, sys.argv[2:])
    print("ready", flush=True)
    sys.stdin.readline()
    ledger = open_ledger(url, CLOCK)
    for start in range(first, last, batch):
        ledger.intend([numbered_order(start)])
        print(ledger.post(numbered_entry(number) for number in range(start, min(start + batch, last))), flush=True)
