"""Entries to rows and back."""

from __future__ import annotations

from datetime import date
from functools import cache
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, String, func, insert, select, type_coerce

from adapters.ledger.audit import record_audit
from adapters.ledger.schema import CASH, EXACT, entries, postings
from quant.errors import LedgerConflictError, expected
from quant.ledger.entries import Account, Entry, EntryKind, Posting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

KEYS_A_QUERY = 10_000  # SQLite takes 32,766 parameters
ROWS_A_FETCH = 1_000
_KINDS = {kind.value: kind for kind in EntryKind}
_ACCOUNTS = {account.value: account for account in Account}


def read_entries(connection: Connection, *where: ColumnElement[bool]) -> list[Entry]:
    """Entries that satisfy ``where`` (conditions on the table entries), in booking order."""
    return list(stream_entries(connection, *where))


def stream_entries(connection: Connection, *where: ColumnElement[bool]) -> Iterator[Entry]:
    """The same one by one: a million of them is a gigabyte.

    One row a leg, and one for an entry without any; numbers and dates are converted here, because the types of the columns do it three
    times as slowly.
    """
    e, leg = entries.c, postings.c
    query = (
        select(
            e.sequence,
            e.book,
            type_coerce(e.session, String),
            e.key,
            e.kind,
            e.symbol,
            type_coerce(e.price, BigInteger),
            e.stale,
            type_coerce(e.due, String),
            e.assumed,
            e.new_symbol,
            leg.account,
            type_coerce(leg.amount, BigInteger),
            type_coerce(leg.quantity, BigInteger),
        )
        .join_from(entries, postings, isouter=True)
        .where(*where)
        .order_by(e.session, e.sequence, leg.leg)
        .execution_options(yield_per=ROWS_A_FETCH)
    )
    return _assembled(cast("Iterable[tuple[Any, ...]]", connection.execute(query)))


def _assembled(rows: Iterable[tuple[Any, ...]]) -> Iterator[Entry]:
    day, amount, exact = cache(date.fromisoformat), CASH.exact, EXACT.exact
    for _, (first, *more) in groupby(rows, key=itemgetter(0)):
        _, book, session, key, kind, symbol, price, stale, due, assumed, new_symbol, account, _, _ = first
        legs = (
            ()
            if account is None
            else tuple(Posting(account=_ACCOUNTS[row[11]], amount=amount(row[12]), quantity=exact(row[13])) for row in (first, *more))
        )
        yield Entry(
            book=book,
            session=day(session),
            key=key,
            kind=_KINDS[kind],
            symbol=symbol,
            postings=legs,
            price=None if price is None else exact(price),
            stale=stale,
            due=None if due is None else day(due),
            assumed=assumed,
            new_symbol=new_symbol,
        )


def post_entries(connection: Connection, wanted: Sequence[Entry], recorded_at: datetime) -> int:
    """Insert what is new of ``wanted``; how many that was. LedgerConflictError if a key has other content."""
    known = {(entry.book, entry.key): entry for entry in _with_the_keys_of(connection, wanted)}
    new: list[Entry] = []
    for entry in wanted:
        stored = known.get((entry.book, entry.key))
        if stored is None:
            known[entry.book, entry.key] = entry
            new.append(entry)
        elif stored != entry:
            raise LedgerConflictError(
                expected(f"{stored}", found=f"{entry}", where=f"book {entry.book}, key {entry.key}", do="find out which one is right")
            )
    first = connection.execute(select(func.coalesce(func.max(entries.c.sequence), 0) + 1)).scalar_one()
    numbered = list(enumerate(new, start=first))
    if numbered:
        connection.execute(insert(entries), [_entry_row(sequence, entry, recorded_at) for sequence, entry in numbered])
    if legs := [row for sequence, entry in numbered for row in _posting_rows(sequence, entry)]:
        connection.execute(insert(postings), legs)
    _audit_bookings(connection, numbered, recorded_at)
    return len(new)


def _audit_bookings(connection: Connection, numbered: Sequence[tuple[int, Entry]], recorded_at: datetime) -> None:
    """One audit entry a book and session: which ledger entries, their digest, and the executions among them in full."""
    ordered = sorted(numbered, key=lambda pair: (pair[1].book, pair[1].session, pair[0]))
    for (book, session), group in groupby(ordered, key=lambda pair: (pair[1].book, pair[1].session)):
        booked = list(group)
        trades = [entry for _, entry in booked if entry.kind is EntryKind.TRADE]
        payload = {
            "book": book,
            "session": session,
            "first": booked[0][0],
            "last": booked[-1][0],
            "entries": len(booked),
            "sha256": bookings_digest(entry for _, entry in booked),
            "columns": ("key", "symbol", "quantity", "price", "cash"),
            "fills": [[entry.key, entry.symbol, entry.quantity, entry.price, entry.cash] for entry in trades],
        }
        record_audit(connection, "bookings", payload, recorded_at)


def bookings_digest(booked: Iterable[Entry]) -> str:
    """SHA-256 over entries in the order given, with cash in 1e-6 and prices and shares in 1e-9, as the database holds them."""
    digest = sha256()
    for entry in booked:
        price = None if entry.price is None else f"{entry.price:.9f}"
        terms = (entry.due, entry.assumed, entry.new_symbol)
        head = (entry.book, entry.session, entry.key, entry.kind, entry.symbol, price, entry.stale, *terms)
        legs = [f"{leg.account}|{leg.amount:.6f}|{leg.quantity:.9f}" for leg in entry.postings]
        digest.update("\x1f".join((*map(str, head), *legs, "\n")).encode())
    return digest.hexdigest()


def _with_the_keys_of(connection: Connection, wanted: Sequence[Entry]) -> Iterator[Entry]:
    for book, group in groupby(sorted(wanted, key=lambda entry: entry.book), key=lambda entry: entry.book):
        keys = [entry.key for entry in group]
        for start in range(0, len(keys), KEYS_A_QUERY):
            yield from read_entries(connection, entries.c.book == book, entries.c.key.in_(keys[start : start + KEYS_A_QUERY]))


def _entry_row(sequence: int, entry: Entry, recorded_at: datetime) -> dict[str, object]:
    return {
        "sequence": sequence,
        "recorded_at": recorded_at,
        "book": entry.book,
        "session": entry.session,
        "key": entry.key,
        "kind": entry.kind.value,
        "symbol": entry.symbol,
        "price": entry.price,
        "stale": entry.stale,
        "due": entry.due,
        "assumed": entry.assumed,
        "new_symbol": entry.new_symbol,
    }


def _posting_rows(sequence: int, entry: Entry) -> Iterator[dict[str, object]]:
    for number, leg in enumerate(entry.postings):
        yield {"entry": sequence, "leg": number, "account": leg.account.value, "amount": leg.amount, "quantity": leg.quantity}
