"""The ledger over 16 years x 500 names, a million entries: seconds of posting, reading and folding them, and peak memory.

python -m benchmarks.ledger [--entries 1000000] [--names 500]

Every session trades, earns, is paid and marks. The folds are those that the product uses; with a figure above its limit it ends with an
error.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from adapters.clock import SystemClock
from adapters.ledger import open_ledger
from benchmarks.measure import MemoryPeak
from quant.calendar import exchange_calendar
from quant.ledger.entries import Account, Entry, EntryKind, Posting, transfer
from quant.units import CASH_QUANTUM, ZERO, cents

BOOK = "paper"
FIRST, YEARS = date(2005, 1, 3), 16
LIMIT_SECONDS = 10.0


def generated(entries: int, names: int, seed: int = 1) -> Iterator[list[Entry]]:
    """The entries of one session after another: a book of ``names`` names that trades a fifth of a session's entries and marks the rest."""
    chance, days = random.Random(seed), exchange_calendar().sessions(FIRST, FIRST.replace(year=FIRST.year + YEARS))  # noqa: S311
    symbols = [f"S{number:03d}" for number in range(names)]
    price, held = {s: Decimal(chance.randrange(1_000, 50_000)) / 100 for s in symbols}, dict.fromkeys(symbols, ZERO)
    a_session, made, owed = entries // len(days), 0, dict[tuple[str, date], Decimal]()
    for day in days:
        rows: list[Entry] = []
        for symbol in chance.sample(symbols, a_session // 5):
            price[symbol] = (price[symbol] * Decimal(repr(round(chance.uniform(0.97, 1.031), 4)))).quantize(CASH_QUANTUM)
            change = Decimal(chance.randrange(-300, 301))
            held[symbol] += change
            trade = transfer(Account.CASH, Account.SECURITIES, (change * price[symbol]).quantize(CASH_QUANTUM), change)
            fee = transfer(Account.CASH, Account.COMMISSIONS, cents(abs(change) * Decimal("0.005")))
            rows.append(_entry(day, EntryKind.TRADE, symbol, trade, price[symbol]))
            rows.append(_entry(day, EntryKind.COMMISSION, symbol, fee))
        for symbol, due in [key for key in owed if key[1] <= day]:
            paid = transfer(Account.RECEIVABLES, Account.CASH, owed.pop((symbol, due)))
            rows.append(_entry(day, EntryKind.PAYMENT, symbol, paid, number=f"|{due}", due=due))
        for symbol in chance.sample(symbols, a_session // 50):
            due, amount = day + timedelta(days=21), cents(held[symbol] * Decimal("0.25"))
            earned = transfer(Account.DIVIDENDS, Account.RECEIVABLES, amount)
            rows.append(_entry(day, EntryKind.DIVIDEND, symbol, earned, due=due))
            owed[symbol, due] = amount
        wanted = entries - made if day == days[-1] else a_session
        marked = (symbols[number % names] for number in range(made, made + wanted - len(rows)))
        rows += [_entry(day, EntryKind.MARK, symbol, (), price[symbol], f"|{place}") for place, symbol in enumerate(marked)]
        made += len(rows)
        yield rows


def _entry(
    day: date,
    kind: EntryKind,
    symbol: str,
    postings: tuple[Posting, ...],
    price: Decimal | None = None,
    number: str = "",
    due: date | None = None,
) -> Entry:
    key = f"{day}|{kind}|{symbol}{number}"
    return Entry(book=BOOK, session=day, key=key, kind=kind, symbol=symbol, postings=postings, price=price, due=due)


@contextmanager
def timed(what: str, memory: MemoryPeak) -> Iterator[Callable[[], float]]:
    memory.reset()
    began = time.monotonic()
    spent = [0.0]
    yield lambda: spent[0]
    spent[0] = time.monotonic() - began
    print(f"{what:<64}{spent[0]:8.2f} s {memory.peak_gb():6.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--names", type=int, default=500)
    given, memory = parser.parse_args(), MemoryPeak()
    with tempfile.TemporaryDirectory(prefix="afterclose-benchmark-") as folder:
        ledger = open_ledger(f"sqlite:///{folder}/ledger.sqlite", SystemClock())
        with timed(f"make and post {given.entries:,} entries, {YEARS} years x {given.names} names", memory):
            batch: list[Entry] = []
            for rows in generated(given.entries, given.names):
                batch += rows
                if len(batch) >= 20_000:
                    ledger.post(batch)
                    batch = []
            ledger.post(batch)
        last = FIRST.replace(year=FIRST.year + YEARS)
        with timed("cash, positions, receivables, NAV of every session: from the start", memory) as whole:
            state = ledger.state(BOOK, through=last)
        with timed("the same in a new process, from the state that was kept", memory):
            reopened = open_ledger(f"sqlite:///{folder}/ledger.sqlite", SystemClock())
            again, values = reopened.state(BOOK, through=last), reopened.values(BOOK, through=last)
        with timed("tax lots and realised gains: read and folded from the start", memory) as lots:
            book = ledger.lots(BOOK, through=last)
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        print(
            f"{len(state.holdings)} holdings, NAV {state.nav:,.2f} USD, {sum(map(len, book.open.values())):,} open lots, "
            f"{len(book.closed):,} closed ones, database {size:.0f} MB"
        )
        if (
            again != state
            or values[-1].nav != state.nav
            or {s: sum((lot.quantity for lot in held), ZERO) for s, held in book.open.items()}
            != {s: h.quantity for s, h in state.holdings.items()}
        ):
            raise SystemExit("the folds disagree")
        if not (folds := max(whole(), lots())) < LIMIT_SECONDS:
            raise SystemExit(f"the slower fold took {folds:.1f} s, the limit is {LIMIT_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
