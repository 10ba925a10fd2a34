"""Starts and decisions of sessions, and champions, to rows and back; each with its entry in the audit log."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from adapters.ledger.audit import record_audit
from adapters.ledger.schema import book_accounts, champion_history, decisions, session_starts, trading_states
from quant.errors import LedgerError, expected
from quant.ports import DecisionRecord, SessionStart
from quant.risk.state import StateChange, TradingState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from sqlalchemy import Connection


def read_decision(connection: Connection, book: str, session: date) -> DecisionRecord | None:
    """The decision of a book for a session, if there is one."""
    query = select(decisions).where(decisions.c.book == book, decisions.c.session == session)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else DecisionRecord(**row)


def decide_once(
    connection: Connection,
    decision: DecisionRecord,
    summary: Mapping[str, object],
    evidence: Mapping[str, Mapping[str, object]],
    recorded_at: datetime,
) -> DecisionRecord:
    """The first decision of a book for a session stands, with its entries in the audit log; what stands is returned."""
    stored = read_decision(connection, decision.book, decision.session)
    if stored is None:
        row = {
            "book": decision.book,
            "session": decision.session,
            "decision_at": decision.decision_at,
            "model_version": decision.model_version,
            "table_versions": dict(decision.table_versions),
        }
        connection.execute(insert(decisions), row)
        for kind, payload in {"decision": summary, **evidence}.items():
            record_audit(connection, kind, payload, recorded_at)
    return stored or decision


def read_start(connection: Connection, book: str, through: date | None) -> SessionStart | None:
    """The newest start of a book's session up to ``through``."""
    query = select(session_starts).where(session_starts.c.book == book)
    query = query if through is None else query.where(session_starts.c.session <= through)
    row = connection.execute(query.order_by(session_starts.c.session.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else SessionStart(**row)


def begin_once(connection: Connection, start: SessionStart, recorded_at: datetime) -> SessionStart:
    """The first start of a book's session stands; what stands is returned."""
    stored = read_start(connection, start.book, start.session)
    if stored is not None and stored.session == start.session:
        return stored
    row = {"book": start.book, "session": start.session, "decision_at": start.decision_at, "rules": start.rules}
    connection.execute(insert(session_starts), row)
    rules = sha256(start.rules.encode()).hexdigest()
    begun = {"book": start.book, "session": start.session, "decision_at": start.decision_at, "rules_sha256": rules}
    record_audit(connection, "session", begun, recorded_at)
    return start


def bind_once(connection: Connection, book: str, account_id: str, recorded_at: datetime) -> None:
    """Bind, unless this very binding stands; LedgerError if the book or the account has another one."""
    column = book_accounts.c
    bound = connection.execute(select(book_accounts).where((column.book == book) | (column.account_id == account_id))).all()
    if not bound:
        connection.execute(insert(book_accounts), {"book": book, "account_id": account_id, "recorded_at": recorded_at})
    for row in bound:
        if (row.book, row.account_id) != (book, account_id):
            what, found = f"book {row.book} at account {row.account_id}, as it began", f"book {book} at account {account_id}"
            do = "use the keys of that account, or a new book with a data root of its own; a reset account is a new one"
            raise LedgerError(expected(what, found=found, where="the ledger", do=do))


STATE_COLUMNS = ("book", "session", "key", "state", "reason", "by")


def read_states(connection: Connection, book: str) -> list[StateChange]:
    """A book's changes of trading state, oldest first."""
    columns = [trading_states.c[name] for name in STATE_COLUMNS]
    rows = connection.execute(select(*columns).where(trading_states.c.book == book).order_by(trading_states.c.sequence)).mappings()
    return [replace(change, state=TradingState(change.state)) for change in (StateChange(**row) for row in rows)]


def change_state_once(connection: Connection, change: StateChange, recorded_at: datetime) -> bool:
    """The first change of a key stands, with its row in the audit log."""
    if any(change.key == stored.key for stored in read_states(connection, change.book)):
        return False
    row = {name: getattr(change, name) for name in STATE_COLUMNS}
    row["state"] = change.state.value
    connection.execute(insert(trading_states), {"recorded_at": recorded_at, **row})
    record_audit(connection, "trading_state", {**row, "session": change.session.isoformat()}, recorded_at)
    return True


def read_champion(connection: Connection, strategy: str, session: date) -> tuple[date, str] | None:
    """(effective_session, version) in force on ``session``."""
    history = champion_history.c
    query = select(history.effective_session, history.version).where(history.strategy == strategy, history.effective_session <= session)
    row = connection.execute(query.order_by(history.effective_session.desc(), history.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else (row.effective_session, row.version)


def crown_champion(
    connection: Connection, strategy: str, effective_session: date, version: str, evidence: Mapping[str, object], recorded_at: datetime
) -> None:
    """Append, unless this is what holds from that session on already."""
    if read_champion(connection, strategy, effective_session) != (effective_session, version):
        row = {"recorded_at": recorded_at, "strategy": strategy, "effective_session": effective_session, "version": version}
        connection.execute(insert(champion_history), row)
        promoted = {"strategy": strategy, "effective_session": effective_session, "version": version, **evidence}
        record_audit(connection, "promotion", promoted, recorded_at)
