"""States of books as they were folded, so that a fold goes on from the last one: a cache, never more than what the entries say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

from adapters.ledger.entries import stream_entries
from adapters.ledger.schema import book_states, entries
from quant.ledger.book import BookState, Holding, SessionValue, valued_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from quant.ledger.entries import Entry

FOLD = 3
"""Raise it when the fold gives another state for the same entries: older states are passed over then."""
STORED_EVERY = 20_000  # entries: they take as long to read as a session of the chain takes to write


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The state of a book at the close of ``session``, and its value at every close before, from the entries up to ``sequence``;
    ``unstored`` entries of them are in no stored state.
    """

    session: date
    sequence: int
    state: BookState
    values: Sequence[SessionValue]
    unstored: int


def fold(connection: Connection, book: str, through: date, known: Iterable[Folded]) -> Folded:
    """The state of a book at the close of ``through``: from the newest of ``known`` or of what is stored that still holds, else from the
    beginning.
    """
    newest = connection.execute(select(func.coalesce(func.max(entries.c.sequence), 0))).scalar_one()
    usable = sorted((f for f in known if f.session <= through), key=lambda f: f.session, reverse=True)
    base = next((f for f in (*usable, *_stored(connection, book, through)) if _holds(connection, book, f)), None)
    column = entries.c
    where = [column.book == book, column.session <= through, *([column.session > base.session] if base else [])]
    count = 0

    def counted(made: Iterator[Entry]) -> Iterator[Entry]:
        nonlocal count
        for count, entry in enumerate(made, start=1):  # noqa: B007
            yield entry

    state, values = valued_after(base.state if base else BookState(), counted(stream_entries(connection, *where)))
    before, unstored = (base.values, base.unstored) if base else ((), 0)
    return Folded(session=through, sequence=newest, state=state, values=(*before, *values), unstored=count + unstored)


def store(connection: Connection, book: str, folded: Folded, recorded_at: datetime) -> None:
    """Keep a state, once."""
    column = book_states.c
    key = (column.book == book, column.session == folded.session, column.sequence == folded.sequence, column.fold == FOLD)
    if connection.execute(select(column.session).where(*key)).first() is None:
        row = {"book": book, "session": folded.session, "sequence": folded.sequence, "fold": FOLD, "recorded_at": recorded_at}
        connection.execute(insert(book_states), {**row, "state": _encoded(folded)})


def untrue_states(connection: Connection) -> Iterator[tuple[str, date]]:
    """Book and session of every stored state that would be gone on from, and is not what the entries say."""
    for book in connection.scalars(select(book_states.c.book).where(book_states.c.fold == FOLD).distinct()).all():
        state, values, done = BookState(), list[SessionValue](), date.min
        column = entries.c
        stored = sorted(_stored(connection, book, date.max), key=lambda folded: folded.session)
        for kept in (folded for folded in stored if _holds(connection, book, folded)):
            since = stream_entries(connection, column.book == book, column.session > done, column.session <= kept.session)
            state, made = valued_after(state, since)
            values, done = [*values, *made], kept.session
            if (kept.state, list(kept.values)) != (state, values):
                yield book, kept.session


def _holds(connection: Connection, book: str, folded: Folded) -> bool:
    """False if something was booked on an older session since."""
    later = connection.execute(select(entries.c.book, entries.c.session).where(entries.c.sequence > folded.sequence))
    return not any(of == book and session <= folded.session for of, session in later)


def _stored(connection: Connection, book: str, through: date) -> Iterator[Folded]:
    column = book_states.c
    where = (column.book == book, column.session <= through, column.fold == FOLD)
    query = select(column.session, column.sequence, column.state).where(*where).order_by(column.session.desc(), column.sequence.desc())
    for session, sequence, state in connection.execute(query):
        values = [
            SessionValue(session=date.fromisoformat(day), nav=Decimal(nav), flows=Decimal(flows)) for day, nav, flows in state["values"]
        ]
        yield Folded(session=session, sequence=sequence, state=_decoded(state), values=values, unstored=0)


def _encoded(folded: Folded) -> dict[str, Any]:
    state = folded.state
    return {
        "values": [[value.session.isoformat(), str(value.nav), str(value.flows)] for value in folded.values],
        "cash": str(state.cash),
        "divergence": str(state.divergence),
        "holdings": {symbol: [str(h.quantity), str(h.mark), h.stale, h.stale_sessions, h.delisted] for symbol, h in state.holdings.items()},
        "receivables": [[symbol, due.isoformat(), str(amount)] for (symbol, due), amount in state.receivables.items()],
    }


def _decoded(stored: dict[str, Any]) -> BookState:
    def holding(values: Sequence[Any]) -> Holding:
        quantity, mark, stale, sessions, delisted = values
        return Holding(quantity=Decimal(quantity), mark=Decimal(mark), stale=stale, stale_sessions=sessions, delisted=delisted)

    return BookState(
        cash=Decimal(stored["cash"]),
        divergence=Decimal(stored["divergence"]),
        holdings={symbol: holding(values) for symbol, values in sorted(stored["holdings"].items())},
        receivables={(symbol, date.fromisoformat(due)): Decimal(amount) for symbol, due, amount in stored["receivables"]},
    )
