"""The simulated exchange in Alpaca's words: JSON objects with every field that its client requires; decimals are texts."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from quant.trading.orders import OrderType, Side
from quant.units import ZERO

if TYPE_CHECKING:
    from datetime import datetime

    from quant.trading.brokerage import BrokerFill, BrokerOrder, BrokerPosition
    from quant.trading.exchange import Exchange, Report

Json = dict[str, object]
_TYPES = {
    OrderType.MARKET: ("market", "day"),
    OrderType.LIMIT: ("limit", "day"),
    OrderType.MARKET_ON_OPEN: ("market", "opg"),
    OrderType.MARKET_ON_CLOSE: ("market", "cls"),
}
KINDS = {names: kind for kind, names in _TYPES.items()}


def account(exchange: Exchange, *, active: bool) -> Json:
    """GET /v2/account."""
    value = {position.symbol: position.quantity * exchange.last.get(position.symbol, ZERO) for position in exchange.positions}
    return {
        "id": uuid(exchange.account_id),
        "account_number": exchange.account_id,
        "status": "ACTIVE" if active else "ACCOUNT_CLOSED",
        "currency": "USD",
        "cash": text(exchange.cash),
        "equity": text(exchange.equity),
        "last_equity": text(exchange.equity),
        "buying_power": text(exchange.buying_power),
        "long_market_value": text(sum((v for v in value.values() if v > 0), ZERO)),
        "short_market_value": text(sum((v for v in value.values() if v < 0), ZERO)),
        "multiplier": text(exchange.leverage),
        "trading_blocked": False,
        "account_blocked": False,
    }


def order(held: BrokerOrder, *, limit_price: Decimal | None, submitted_at: datetime) -> Json:
    """An order, as every call about orders returns it."""
    kind, in_force = _TYPES[held.order_type]
    return {
        "id": uuid(held.broker_order_id),
        "client_order_id": held.client_order_id,
        "created_at": instant(submitted_at),
        "submitted_at": instant(submitted_at),
        "updated_at": instant(held.updated_at),
        "symbol": held.symbol,
        "asset_class": "us_equity",
        "qty": text(held.quantity),
        "filled_qty": text(held.filled_quantity),
        "filled_avg_price": None if held.average_price is None else text(held.average_price),
        "order_class": "",
        "type": kind,
        "order_type": kind,
        "side": held.side.value,
        "time_in_force": in_force,
        "limit_price": None if limit_price is None else text(limit_price),
        "status": held.state.value,
        "extended_hours": False,
    }


def position(held: BrokerPosition) -> Json:
    """A row of GET /v2/positions."""
    return {
        "asset_id": uuid(held.symbol),
        "symbol": held.symbol,
        "exchange": "NYSE",
        "asset_class": "us_equity",
        "avg_entry_price": text(held.average_entry_price),
        "qty": text(held.quantity),
        "side": "long" if held.quantity > 0 else "short",
        "cost_basis": text(held.quantity * held.average_entry_price),
    }


def activity(fill: BrokerFill, *, cumulated: Decimal, ordered: Decimal) -> Json:
    """A row of GET /v2/account/activities/FILL."""
    return {
        "id": fill.cursor,
        "activity_type": "FILL",
        "order_id": uuid(fill.broker_order_id),
        "symbol": fill.symbol,
        "side": fill.side.value,
        "qty": text(fill.quantity),
        "cum_qty": text(cumulated),
        "leaves_qty": text(ordered - cumulated),
        "price": text(fill.price),
        "transaction_time": instant(fill.executed_at),
        "type": "fill" if cumulated == ordered else "partial_fill",
    }


def asset(exchange: Exchange, symbol: str) -> Json:
    """GET /v2/assets/{symbol}."""
    held = exchange.asset(symbol)
    return {
        "id": uuid(symbol),
        "class": "us_equity",
        "exchange": "NYSE",
        "symbol": symbol,
        "name": symbol,
        "status": "active" if held.tradable else "inactive",
        "tradable": held.tradable,
        "marginable": True,
        "shortable": held.shortable,
        "easy_to_borrow": held.shortable,
        "fractionable": held.fractionable,
    }


def update(report: Report, *, limit_price: Decimal | None, submitted_at: datetime) -> Json:
    """A message of the stream trade_updates."""
    data: Json = {
        "event": report.event,
        "timestamp": instant(report.at),
        "order": order(report.order, limit_price=limit_price, submitted_at=submitted_at),
        "position_qty": text(report.position),
    }
    if report.fill is not None:
        data |= {
            "execution_id": uuid(report.fill.execution_id),
            "price": text(report.fill.price),
            "qty": text(report.fill.quantity),
        }
    return {"stream": "trade_updates", "data": data}


def side(name: object) -> Side:
    """Of a request."""
    return Side(str(name))


def uuid(name: str) -> str:
    """Ids are UUIDs at Alpaca; the same name has the same one."""
    return str(UUID(bytes=hashlib.sha256(name.encode()).digest()[:16]))


def text(number: Decimal) -> str:
    """A decimal as Alpaca writes it."""
    return f"{number.normalize() + ZERO:f}"


def instant(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
