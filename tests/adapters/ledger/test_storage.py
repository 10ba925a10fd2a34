"""What stands in the file: exact integers, durable settings, and an order's state as the fold of its events."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite import dialect

from adapters.clock import FixedClock, SystemClock
from adapters.ledger import open_ledger
from adapters.ledger.sqlite import sqlite_engine
from adapters.ledger.types import ScaledDecimal
from quant.errors import InputError, LedgerError
from quant.ports import Clock
from quant.trading.orders import OrderEvent, OrderState, next_state
from tests.adapters.ledger.worker import CLOCK, numbered_entry, numbered_order

if TYPE_CHECKING:
    from pathlib import Path

SQLITE = dialect()


@given(scaled=st.integers(-(2**63), 2**63 - 1), places=st.sampled_from([6, 9]), precision=st.integers(1, 28))
def test_every_64_bit_integer_is_a_decimal_and_back_whatever_the_callers_precision(scaled: int, places: int, precision: int) -> None:
    column = ScaledDecimal(places)
    with localcontext(prec=precision):
        value = column.process_result_value(scaled, SQLITE)
        assert value is not None
        assert column.process_bind_param(value, SQLITE) == scaled


@given(scaled=st.integers(2**63, 2**80), places=st.sampled_from([6, 9]), sign=st.sampled_from([1, -1]))
def test_one_integer_more_is_refused(scaled: int, places: int, sign: int) -> None:
    beyond = sign * scaled if sign > 0 else sign * scaled - 1
    with pytest.raises(LedgerError, match=r"expected a number in \+-9223372036"):
        ScaledDecimal(places).process_bind_param(Decimal(beyond).scaleb(-places), SQLITE)


@given(value=st.decimals(min_value=-1000, max_value=1000, places=12), places=st.sampled_from([6, 9]))
def test_a_number_is_stored_exactly_or_refused(value: Decimal, places: int) -> None:
    column = ScaledDecimal(places)
    if value == round(value, places):
        assert column.process_result_value(column.process_bind_param(value, SQLITE), SQLITE) == value
    else:
        with pytest.raises(LedgerError, match=f"expected at most {places} decimal places"):
            column.process_bind_param(value, SQLITE)


def test_null_stays_null() -> None:
    column = ScaledDecimal(6)
    assert column.process_bind_param(None, SQLITE) is None
    assert column.process_result_value(None, SQLITE) is None


def test_the_file_holds_integers(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    open_ledger(f"sqlite:///{file}", CLOCK).post([numbered_entry(3)])
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT price, typeof(price), session FROM entries").fetchall() == [
            (1_500_000_000, "integer", "2013-03-01")
        ]
        assert connection.execute("SELECT account, amount, quantity, typeof(amount) FROM postings ORDER BY leg").fetchall() == [
            ("cash", -4_500_000, 0, "integer"),
            ("securities", 4_500_000, 3_000_000_000, "integer"),
        ]


def test_connections_are_durable_and_keep_references(tmp_path: Path) -> None:
    with sqlite_engine(f"sqlite:///{tmp_path / 'new folder' / 'ledger.sqlite'}").begin() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_the_state_of_an_order_is_the_fold_of_its_events(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    ledger = open_ledger(f"sqlite:///{file}", CLOCK)
    order = numbered_order(1)
    ledger.intend([order, numbered_order(2)])
    for event in (OrderEvent.SEND, OrderEvent.ACCEPT, OrderEvent.PARTIAL_FILL, OrderEvent.FILL):
        ledger.advance("paper", {order.client_order_id: event})
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT event, state FROM order_events WHERE client_order_id = ? ORDER BY sequence"
        rows = connection.execute(query, [order.client_order_id]).fetchall()
    assert [event for event, _ in rows] == ["intend", "send", "accept", "partial_fill", "fill"]
    state = OrderState.PROPOSED
    for event, stored in rows:
        state = next_state(state, OrderEvent(event), order="o")
        assert stored == state
    assert ledger.orders("paper")[0].state is state


def test_crowning_again_adds_no_row(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    ledger = open_ledger(f"sqlite:///{file}", CLOCK)
    for version in ("v1", "v1", "v2", "v1"):
        ledger.crown("alpha", numbered_entry(0).session, version)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT version FROM champion_history ORDER BY sequence").fetchall() == [("v1",), ("v2",), ("v1",)]


def test_the_system_clock_is_aware_and_moves_on() -> None:
    clock = SystemClock()
    first, second = clock.now(), clock.now()
    assert (first.tzinfo, first <= second) == (UTC, True)
    assert isinstance(clock, Clock)
    assert isinstance(CLOCK, Clock)


def test_a_fixed_clock_stands_still_and_needs_a_zone() -> None:
    assert CLOCK.now() == CLOCK.now() == datetime(2013, 3, 1, 22, tzinfo=UTC)
    with pytest.raises(InputError, match="expected an instant with a time zone"):
        FixedClock(CLOCK.at.replace(tzinfo=None))
