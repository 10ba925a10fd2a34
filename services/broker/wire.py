"""Alpaca's words: orders, fills, positions, accounts and assets of the simulated exchange as JSON, and orders out of it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from quant.trading.exchange import RefusalKind, Ticket
from quant.trading.orders import OrderType, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quant.trading.exchange import Filled, Happening, Listing, Placed, Refusal, SimulatedAccountExchange

_TERMS = {
    ("market", "day"): OrderType.MARKET,
    ("limit", "day"): OrderType.LIMIT,
    ("market", "opg"): OrderType.MARKET_ON_OPEN,
    ("market", "cls"): OrderType.MARKET_ON_CLOSE,
}
_NAMES = {order_type: names for names, order_type in _TERMS.items()}
_ANSWERS: dict[RefusalKind, tuple[int, int]] = {
    RefusalKind.DUPLICATE: (422, 40010001),
    RefusalKind.INVALID: (422, 42210000),
    RefusalKind.UNKNOWN_ASSET: (422, 40010001),
    RefusalKind.NOT_TRADABLE: (422, 42210000),
    RefusalKind.TOO_LATE: (422, 42210000),
    RefusalKind.OPPOSITE_SIDE: (403, 40310000),
    RefusalKind.NOT_SHORTABLE: (403, 40310000),
    RefusalKind.NOT_FRACTIONABLE: (403, 40310000),
    RefusalKind.INSUFFICIENT_QUANTITY: (403, 40310000),
    RefusalKind.BUYING_POWER: (403, 40310000),
}


def number(value: Decimal) -> str:
    """A decimal as Alpaca writes it: a text."""
    return f"{value.normalize():f}"


def instant(at: datetime) -> str:
    """An instant in UTC, to the microsecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def asset_id(symbol: str) -> str:
    """The asset's id, made of its symbol."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, symbol))


def ticket_of(body: Mapping[str, Any]) -> Ticket | str:
    """The order that a request asks for; a text says what is wrong with it."""
    names = (str(body.get("type")), str(body.get("time_in_force")))
    if names not in _TERMS:
        return f"invalid type {names[0]} with time_in_force {names[1]}"
    if body.get("side") not in {"buy", "sell"} or "symbol" not in body:
        return "invalid side or symbol"
    try:
        quantity = Decimal(str(body["qty"]))
        limit = None if body.get("limit_price") is None else Decimal(str(body["limit_price"]))
    except (KeyError, InvalidOperation):
        return "invalid qty or limit_price"
    order_type = _TERMS[names]
    if (order_type is OrderType.LIMIT) != (limit is not None) or quantity != quantity.quantize(Decimal("1e-9")):
        return "invalid limit_price or qty"
    return Ticket(
        client_order_id=str(body.get("client_order_id") or uuid.uuid4()),
        symbol=str(body["symbol"]),
        side=Side(body["side"]),
        order_type=order_type,
        quantity=quantity,
        limit_price=limit,
    )


def refusal(said: Refusal) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    status, code = _ANSWERS[said.kind]
    return status, {"code": code, "message": said.message if said.kind is not RefusalKind.DUPLICATE else said.kind.value}


def order(placed: Placed) -> dict[str, Any]:
    """An order."""
    terms = placed.ticket
    kind, time_in_force = _NAMES[terms.order_type]
    ended = {"canceled": "canceled_at", "expired": "expired_at", "filled": "filled_at"}.get(placed.status)
    body: dict[str, Any] = {
        "id": placed.order_id,
        "client_order_id": terms.client_order_id,
        "created_at": instant(placed.placed_at),
        "submitted_at": instant(placed.placed_at),
        "updated_at": instant(placed.updated_at),
        "filled_at": None,
        "expired_at": None,
        "canceled_at": None,
        "asset_id": asset_id(terms.symbol),
        "asset_class": "us_equity",
        "symbol": terms.symbol,
        "qty": number(terms.quantity),
        "notional": None,
        "filled_qty": number(placed.filled),
        "filled_avg_price": None if placed.average_price is None else number(placed.average_price),
        "order_class": "",
        "order_type": kind,
        "type": kind,
        "side": terms.side.value,
        "time_in_force": time_in_force,
        "limit_price": None if terms.limit_price is None else number(terms.limit_price),
        "stop_price": None,
        "status": placed.status.value,
        "extended_hours": False,
        "legs": None,
    }
    return body if ended is None else {**body, ended: instant(placed.updated_at)}


def activity(filled: Filled, status: str) -> dict[str, Any]:
    """A fill among the account's activities."""
    return {
        "id": f"{filled.at.astimezone(UTC):%Y%m%d%H%M%S}000::{filled.execution_id}",
        "activity_type": "FILL",
        "transaction_time": instant(filled.at),
        "type": "fill" if status == "filled" else "partial_fill",
        "price": number(filled.price),
        "qty": number(filled.quantity),
        "side": filled.side.value,
        "symbol": filled.symbol,
        "order_id": filled.order_id,
        "cum_qty": number(filled.cumulative),
        "leaves_qty": "0",
        "order_status": status,
    }


def trade_update(happening: Happening) -> dict[str, Any]:
    """A message of the trade_updates stream."""
    data: dict[str, Any] = {"event": happening.event, "timestamp": instant(happening.at), "order": order(happening.order)}
    if happening.filled is not None:
        filled = happening.filled
        data |= {
            "execution_id": filled.execution_id,
            "price": number(filled.price),
            "qty": number(filled.quantity),
            "position_qty": number(filled.position),
        }
    else:
        data["execution_id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{happening.order.order_id}|{happening.event}"))
    return {"stream": "trade_updates", "data": data}


def position(exchange: SimulatedAccountExchange, symbol: str) -> dict[str, Any]:
    """A holding; a short's quantities are negative."""
    held = exchange.positions[symbol]
    worth = exchange.worth(symbol)
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "exchange": "NYSE",
        "asset_class": "us_equity",
        "avg_entry_price": number((held.cost / held.quantity).quantize(Decimal("1e-6"))),
        "qty": number(held.quantity),
        "qty_available": number(held.quantity),
        "side": "long" if held.quantity > 0 else "short",
        "cost_basis": number(held.cost),
        "market_value": number(worth),
        "current_price": number(worth / held.quantity),
        "unrealized_pl": number(worth - held.cost),
    }


def account(exchange: SimulatedAccountExchange) -> dict[str, Any]:
    """The account."""
    worths = [exchange.worth(symbol) for symbol in exchange.positions]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, exchange.account_number)),
        "account_number": exchange.account_number,
        "status": "ACTIVE",
        "currency": "USD",
        "cash": number(exchange.cash),
        "equity": number(exchange.equity),
        "last_equity": number(exchange.last_equity),
        "buying_power": number(exchange.buying_power),
        "long_market_value": number(sum((w for w in worths if w > 0), Decimal(0))),
        "short_market_value": number(sum((w for w in worths if w < 0), Decimal(0))),
        "multiplier": str(exchange.rules.multiplier),
        "trading_blocked": False,
        "account_blocked": False,
        "transfers_blocked": False,
        "shorting_enabled": True,
    }


def asset(listing: Listing) -> dict[str, Any]:
    """What may be done with a symbol."""
    return {
        "id": asset_id(listing.symbol),
        "class": "us_equity",
        "exchange": "NYSE",
        "symbol": listing.symbol,
        "name": listing.symbol,
        "status": "active" if listing.tradable else "inactive",
        "tradable": listing.tradable,
        "marginable": True,
        "shortable": listing.shortable,
        "easy_to_borrow": listing.shortable and listing.easy_to_borrow,
        "fractionable": listing.fractionable,
    }
