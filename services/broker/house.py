"""The broker behind the server: the exchange, its clock, its bars and its own log."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from quant.errors import InputError, expected
from quant.trading.exchange import Bar, Listing, SimulatedAccountExchange
from quant.units import price
from services.broker import wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from pathlib import Path

    import polars as pl

    from quant.calendar import ExchangeCalendar
    from quant.ports import Clock
    from quant.trading.exchange import ExchangeRules, Happening

_LOOK_BACK = timedelta(days=7)


class ControlledClock:
    """Real time, or an instant that only control moves."""

    def __init__(self, real: Clock, at: datetime | None) -> None:
        self._real, self._at = real, at

    @property
    def runs(self) -> bool:
        """True if it is real time."""
        return self._at is None

    def now(self) -> datetime:
        """Current instant, aware, UTC."""
        return self._at or self._real.now()

    def set(self, at: datetime | None) -> None:
        """Stand at ``at``; None: real time again."""
        self._at = at


class Log:
    """An append-only file of JSON lines, each written whole by one call, so that it can be read at any moment; or none."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: str, at: datetime, row: Mapping[str, Any]) -> None:
        """One line: kind, at and the row."""
        if self._file is not None:
            os.write(self._file, (json.dumps({"kind": kind, "at": wire.instant(at), **row}, sort_keys=True) + "\n").encode())


class House:
    """The exchange with time: sessions whose auctions the clock has passed are run, from ``bars`` (session, symbol, open ... volume)."""

    def __init__(
        self,
        *,
        calendar: ExchangeCalendar,
        rules: ExchangeRules,
        symbols: Sequence[str],
        bars: pl.DataFrame | None,
        clock: ControlledClock,
        log: Log,
    ) -> None:
        self.calendar, self.clock, self.log = calendar, clock, log
        listed = sorted({*symbols, *(() if bars is None else bars["symbol"].unique().to_list())})
        self.exchange = SimulatedAccountExchange(calendar, rules, [Listing(symbol=symbol) for symbol in listed])
        self._bars: dict[date, dict[str, Bar]] = {}
        if bars is not None:
            self._load(bars)
        self._through = clock.now()
        self._told = 0
        self._value_before(self._through)

    def _load(self, bars: pl.DataFrame) -> None:
        columns = ["session", "symbol", "open", "high", "low", "close", "volume"]
        if missing := set(columns) - set(bars.columns):
            raise InputError(expected(f"columns {', '.join(columns)}", found=f"no {sorted(missing)}", where="--bars", do="rename them"))
        for session, symbol, opened, high, low, close, volume in bars.select(columns).drop_nulls().iter_rows():
            bar = Bar(open=opened, high=high, low=low, close=close, volume=volume)
            self._bars.setdefault(session, {})[symbol] = bar

    def _value_before(self, now: datetime) -> None:
        """Last closes as marks, so that buying power is asked for from the first order on."""
        for session in sorted(self._bars):
            if self.calendar.close_at(session) < now:
                for symbol, bar in self._bars[session].items():
                    self.exchange.marks[symbol] = price(bar.close)

    def pass_time(self) -> list[Happening]:
        """Run every auction between the last call and now that there are bars for; returns what happened and was not told yet."""
        now = self.clock.now()
        if self._bars and now > self._through:
            first = (self._through - _LOOK_BACK).date()
            for session in self.calendar.sessions(first, now.date()):
                if self._through < self.calendar.open_at(session) <= now:
                    self.exchange.open(session, self._bars.get(session, {}))
                if self._through < self.calendar.close_at(session) <= now:
                    self.exchange.close(session, self._bars.get(session, {}))
        self._through = max(self._through, now)
        return self._untold()

    def run(self, session: date, phase: str, bars: Mapping[str, Bar]) -> None:
        """Run a session's opening, its close or both with given bars; the clock stands at its end afterwards."""
        for symbol in bars:
            self.exchange.listings.setdefault(symbol, Listing(symbol=symbol))
        if phase in {"open", "both"}:
            self.exchange.open(session, bars)
        if phase in {"close", "both"}:
            self.exchange.close(session, bars)
        at = self.calendar.open_at(session) if phase == "open" else self.calendar.close_at(session)
        self.clock.set(max(at, self.clock.now()))
        self._through = max(self._through, self.clock.now())

    def _untold(self) -> list[Happening]:
        if self._told > len(self.exchange.happenings):
            self._told = 0  # a new account
        new = self.exchange.happenings[self._told :]
        self._told = len(self.exchange.happenings)
        for happening in new:
            self._write(happening)
        return new

    def _write(self, happening: Happening) -> None:
        order, filled = happening.order, happening.filled
        row: dict[str, Any] = {
            "account": self.exchange.account_number,
            "order_id": order.order_id,
            "client_order_id": order.ticket.client_order_id,
            "symbol": order.ticket.symbol,
            "side": order.ticket.side.value,
            "qty": wire.number(order.ticket.quantity),
            "type": order.ticket.order_type.value,
            "filled_qty": wire.number(order.filled),
        }
        if filled is not None:
            row |= {
                "execution_id": filled.execution_id,
                "execution_qty": wire.number(filled.quantity),
                "price": wire.number(filled.price),
                "commission": wire.number(filled.commission),
            }
        self.log.write("accepted" if happening.event == "new" else happening.event, happening.at, row)

    def reset(self) -> None:
        """A new account."""
        self.exchange.reset()
        self._told = 0
        self.log.write("reset", self.clock.now().astimezone(UTC), {"account": self.exchange.account_number})
