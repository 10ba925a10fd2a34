"""Broker ``alpaca``: a paper account at Alpaca through its own client (alpaca-py). Importing this takes most of a second: do it lazily.

The client repeats POSTs on its own, waits for ever, and takes an empty reply or a redirect for success (adapters.alpaca_rest): here a POST
is sent once, within time limits, and is a success only if the reply is the order that was sent. Everything else is unknown, and looked up.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from requests.exceptions import RequestException

from adapters.alpaca_rest import Reader, hardened
from quant.errors import BrokerError, InputError, SourceUnavailableError, expected
from quant.trading.brokerage import (
    Acknowledgement,
    Answer,
    BrokerAccount,
    BrokerAsset,
    BrokerCapabilities,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
)
from quant.trading.orders import Execution, Expiry, Order, OrderState, OrderType, Side
from quant.units import CASH_QUANTUM, PRICE_QUANTUM, ZERO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from adapters.sources.alpaca import AlpacaKeys
    from quant.calendar import ExchangeCalendar
    from quant.ports import Clock

T = TypeVar("T")

PAPER_HOST = "paper-api.alpaca.markets"
PAPER_URL = f"https://{PAPER_HOST}"
CUTOFF = time(9, 28)  # market-on-open orders are refused from here on ...
QUEUED_FROM = time(19, 0)  # ... until here, from where on they are queued for the next open
_DEFINITE = (400, 403, 404, 422)
_FORBIDDEN = "40310000"  # of an order; any other 403 is of the keys, and says nothing about the order
_NOT_UNIQUE = "must be unique"
_PAGE = 100  # of activities; the most there is
_ORDERS = 500  # of orders; the most there is
_MOST_PAGES = 10_000
_SHOWN = 200
_TYPES = {
    OrderType.MARKET: ("market", "day"),
    OrderType.LIMIT: ("limit", "day"),
    OrderType.MARKET_ON_OPEN: ("market", "opg"),
    OrderType.MARKET_ON_CLOSE: ("market", "cls"),
}
_KINDS = {names: kind for kind, names in _TYPES.items()}


def require_paper(url: str, *, live_account: str | None, allow_live: bool) -> None:
    """InputError unless ``url`` is Alpaca's paper address or one of this machine, or the settings say twice that it may be another:
    ``allow_live`` and the number of the account, which is compared with what the broker says (AlpacaBroker.account).
    """
    parts = urlsplit(url)
    if parts.hostname == PAPER_HOST and parts.scheme == "https":
        return
    if parts.hostname in {"127.0.0.1", "localhost"}:
        return
    if parts.scheme == "https" and allow_live and live_account:
        return
    do = "trade on paper; to mean real money, set [broker.alpaca] allow_live = true and AFTERCLOSE__BROKER__ALPACA__LIVE_ACCOUNT"
    raise InputError(expected(f"{PAPER_URL}, or an address of this machine", found=url, where="[broker.alpaca] url", do=do))


class AlpacaBroker:
    """Broker port. ``timeout_seconds``: to connect, and between two pieces of a reply."""

    def __init__(
        self,
        keys: AlpacaKeys,
        *,
        url: str = PAPER_URL,
        clock: Clock,
        calendar: ExchangeCalendar,
        live_account: str | None = None,
        allow_live: bool = False,
        timeout_seconds: tuple[float, float] = (5.0, 30.0),
    ) -> None:
        require_paper(url, live_account=live_account, allow_live=allow_live)
        self._live_account, self._url = live_account, url
        self._clock, self._calendar = clock, calendar

        def client() -> TradingClient:
            return TradingClient(keys.key_id, keys.secret, raw_data=True, url_override=url)

        # A client for each direction: a GET may be repeated, a POST never, and each has the status of its own last reply.
        self._reader = Reader(client(), clock, timeout_seconds=timeout_seconds, sleep=clock.wait)
        self._writer = client()
        self._transport = hardened(self._writer, timeout_seconds)

    @property
    def capabilities(self) -> BrokerCapabilities:
        return BrokerCapabilities(
            name="alpaca",
            embedded=False,
            order_types=frozenset(OrderType),
            fractional=False,
            never_books=frozenset({"dividend", "payment", "cash_in_lieu", "borrow", "interest", "regulatory_fee"}),
            opening_cutoff=CUTOFF,
        )

    def now(self) -> datetime:
        return _instant(self._item("/clock", {}, "timestamp")["timestamp"])

    def submit(self, order: Order) -> Acknowledgement:
        """One POST. A definite refusal is one of the statuses that say so; a duplicate id is looked up, like silence."""
        client: Any = self._writer
        try:
            reply = cast("object", client.post("/orders", self._request(order)))
        except APIError as error:
            return self._refused(str(error))
        except (RequestException, ValueError) as error:  # also a reply that is no JSON
            return Acknowledgement(answer=Answer.UNKNOWN, reason=f"{type(error).__name__}: {str(error)[:_SHOWN]}")
        body: Mapping[str, object] = cast("dict[str, object]", reply) if isinstance(reply, dict) else {}
        if self._transport.status != 200 or body.get("client_order_id") != order.client_order_id:
            found = json.dumps(reply)[:_SHOWN]
            return Acknowledgement(answer=Answer.UNKNOWN, reason=f"status {self._transport.status}: {found}")
        if body.get("status") == OrderState.REJECTED:
            return Acknowledgement(answer=Answer.REJECTED, broker_order_id=str(body["id"]), reason="rejected on arrival")
        return Acknowledgement(answer=Answer.ACCEPTED, broker_order_id=str(body["id"]))

    def find(self, client_order_id: str) -> BrokerOrder | None:
        found = self._ask(lambda: self._reader.item("/orders:by_client_order_id", {"client_order_id": client_order_id}, "id"))
        if found is not None and found.get("client_order_id") != client_order_id:
            what = f"the order {client_order_id}"
            raise BrokerError(expected(what, found=str(found.get("client_order_id")), where="Alpaca's reply", do="run this again"))
        return None if found is None else _order(found)

    def cancel(self, client_order_id: str) -> None:
        held = self.find(client_order_id)
        if held is None:
            raise BrokerError(expected("an order that Alpaca has", found="none", where=f"order {client_order_id}", do="leave it"))
        client: Any = self._writer
        try:
            client.delete(f"/orders/{held.broker_order_id}")
        except APIError as error:
            if self._transport.status != 422:  # 422: it has ended meanwhile, as `find` will tell
                what = "a cancellation that Alpaca takes"
                raise BrokerError(expected(what, found=str(error)[:_SHOWN], where=client_order_id, do="run this again")) from None
        except RequestException as error:
            do = "look at the order before you try again"
            raise BrokerError(expected("an answer", found=type(error).__name__, where=f"cancelling {client_order_id}", do=do)) from None

    def outcomes(self, session: date, orders: Sequence[Order]) -> Sequence[Execution | Expiry]:
        if not orders:
            return []
        executed: dict[str, list[BrokerFill]] = {}
        for fill in self._fills_since(self._calendar.previous(session)):
            executed.setdefault(fill.broker_order_id, []).append(fill)
        outcomes: list[Execution | Expiry] = []
        for order in orders:
            held = self.find(order.client_order_id)
            if held is None:
                do = "do not trade; find out what became of it"
                raise BrokerError(expected("an order that it accepted", found="none", where=f"Alpaca, {order.client_order_id}", do=do))
            outcomes += _outcomes(order, session, held, executed.get(held.broker_order_id, []))
        return outcomes

    def open_orders(self) -> Sequence[BrokerOrder]:
        rows: dict[str, dict[str, Any]] = {}
        until: str | None = None
        for _ in range(_MOST_PAGES):
            asked = {"status": "open", "limit": _ORDERS, "direction": "desc", "nested": "false"} | ({"until": until} if until else {})
            page = self._ask(lambda asked=asked: self._reader.listed("/orders", asked))
            fresh = {str(row["id"]): row for row in page if str(row["id"]) not in rows}
            rows |= fresh
            if len(page) < _ORDERS or not fresh:
                return [_order(row) for row in rows.values()]
            until = str(min(row["submitted_at"] for row in page))
        raise BrokerError(expected("a list of orders that ends", found=f"{_MOST_PAGES} pages", where="Alpaca", do="run this again"))

    def account(self) -> BrokerAccount:
        row = self._item("/account", {}, "account_number")
        account_id = str(row["account_number"])
        if urlsplit(self._url).hostname not in {PAPER_HOST, "127.0.0.1", "localhost"} and account_id != self._live_account:
            do = "correct AFTERCLOSE__BROKER__ALPACA__LIVE_ACCOUNT"
            raise InputError(expected(f"account {self._live_account}", found=account_id, where=self._url, do=do))
        blocked = any(row.get(flag) is True for flag in ("trading_blocked", "account_blocked", "trade_suspended_by_user"))
        return BrokerAccount(
            account_id=account_id,
            active=row.get("status") == "ACTIVE" and not blocked,
            cash=_number(row["cash"]),
            equity=_number(row["equity"]),
            buying_power=_number(row["buying_power"]),
        )

    def positions(self) -> Sequence[BrokerPosition]:
        return [
            BrokerPosition(symbol=str(row["symbol"]), quantity=_signed(row), average_entry_price=_number(row["avg_entry_price"]))
            for row in self._ask(lambda: self._reader.listed("/positions", {}))
        ]

    def fills(self, after: str | None = None) -> Sequence[BrokerFill]:
        return self._activities({} if after is None else {"page_token": after})

    def asset(self, symbol: str) -> BrokerAsset | None:
        row = self._ask(lambda: self._reader.item(f"/assets/{symbol}", {}, "symbol"))
        if row is None:
            return None
        return BrokerAsset(
            symbol=symbol,
            tradable=row.get("tradable") is True and row.get("status") == "active",
            shortable=row.get("shortable") is True and row.get("easy_to_borrow") is True,
            fractionable=row.get("fractionable") is True,
        )

    def _request(self, order: Order) -> dict[str, object]:
        kind, in_force = _TYPES[order.order_type]
        local = self._clock.now().astimezone(self._calendar.zone).time()
        if order.order_type is OrderType.MARKET_ON_OPEN and CUTOFF <= local < QUEUED_FROM:
            in_force = "day"  # after the close a day order waits for the next open, before 19:00 one on the open is refused
        body: dict[str, object] = {
            "symbol": order.symbol,
            "qty": f"{order.quantity.quantize(PRICE_QUANTUM).normalize():f}",
            "side": order.side.value,
            "type": kind,
            "time_in_force": in_force,
            "client_order_id": order.client_order_id,
        }
        return body if order.limit_price is None else {**body, "limit_price": f"{order.limit_price.normalize():f}"}

    def _refused(self, body: str) -> Acknowledgement:
        status, said = self._transport.status, _message(body)
        if status == 429:
            return Acknowledgement(answer=Answer.THROTTLED, reason=said)
        if status in _DEFINITE and _NOT_UNIQUE not in said and not _locked_out(status, body):
            return Acknowledgement(answer=Answer.REJECTED, reason=said)
        return Acknowledgement(answer=Answer.UNKNOWN, reason=f"{status} {said}")

    def _fills_since(self, day: date) -> Sequence[BrokerFill]:
        """Executions since the close of a session; ``after`` is exclusive."""
        return self._activities({"after": self._calendar.close_at(day).strftime("%Y-%m-%dT%H:%M:%SZ")})

    def _activities(self, first: Mapping[str, object]) -> Sequence[BrokerFill]:
        """Pages go by the id of the last row; an execution that is there twice counts once."""
        found: dict[str, BrokerFill] = {}
        asked: dict[str, object] = {"direction": "asc", "page_size": _PAGE, **first}
        for _ in range(_MOST_PAGES):
            page = self._ask(lambda asked=asked: self._reader.listed("/account/activities/FILL", asked))
            for row in page:
                found.setdefault(str(row["id"]), _fill(row))
            if len(page) < _PAGE:
                return list(found.values())
            asked = {"direction": "asc", "page_size": _PAGE, "page_token": str(page[-1]["id"])}
        raise BrokerError(expected("activities that end", found=f"{_MOST_PAGES} pages", where="Alpaca", do="run this again"))

    def _item(self, path: str, params: Mapping[str, object], holds: str) -> dict[str, Any]:
        found = self._ask(lambda: self._reader.item(path, params, holds))
        if found is None:
            raise BrokerError(expected(f"a reply with {holds}", found="404", where=f"{self._url}{path}", do="check [broker.alpaca] url"))
        return found

    @staticmethod
    def _ask(question: Callable[[], T]) -> T:
        try:
            return question()
        except SourceUnavailableError as error:
            raise BrokerError(str(error)) from None


def _outcomes(order: Order, session: date, held: BrokerOrder, fills: Sequence[BrokerFill]) -> list[Execution | Expiry]:
    """What became of one order. BrokerError while it may still execute, or while executions are missing of what it says has executed."""
    where = f"order {order.client_order_id} in {session}"
    if not held.state.terminal and held.state is not OrderState.DONE_FOR_DAY:
        do = "run the session once the exchange has closed and Alpaca has ended the order"
        raise BrokerError(expected("an order that ended", found=held.state, where=where, do=do))
    executed = sum((fill.quantity for fill in fills), ZERO)
    if executed != held.filled_quantity:
        do = "run this again: executions are reported late"
        raise BrokerError(expected(f"executions of {held.filled_quantity} shares", found=executed, where=where, do=do))
    if not fills:
        return [Expiry(order=order, session=session, reason=f"{held.state} at the broker")]
    left = order.quantity - executed
    return [
        Execution(
            execution_id=fill.execution_id,
            order=order,
            session=session,
            quantity=fill.quantity,
            price=fill.price,
            reference_price=fill.price,  # the desk holds it against the open
            commission=ZERO,  # Alpaca charges none on these
            unfilled=left if fill is fills[-1] else ZERO,
        )
        for fill in fills
    ]


def _order(row: Mapping[str, Any]) -> BrokerOrder:
    try:
        state = OrderState(row["status"])
    except ValueError:
        do = "report it; until then look at the order at Alpaca"
        raise BrokerError(expected("a status that is known", found=row["status"], where=f"order {row.get('id')}", do=do)) from None
    kind = (str(row["type"]), str(row["time_in_force"]))
    average = row.get("filled_avg_price")
    return BrokerOrder(
        client_order_id=str(row["client_order_id"]),
        broker_order_id=str(row["id"]),
        symbol=str(row["symbol"]),
        side=Side(row["side"]),
        order_type=_kind(kind),
        quantity=_number(row["qty"]),
        filled_quantity=_number(row["filled_qty"]),
        average_price=None if average is None else _number(average),
        state=state,
        updated_at=_instant(row["updated_at"]),
    )


def _kind(names: tuple[str, str]) -> OrderType:
    """Ours; a kind that we never send is some day order: somebody else's."""
    return _KINDS.get(names, OrderType.LIMIT if names[0] == "limit" else OrderType.MARKET)


def _fill(row: Mapping[str, Any]) -> BrokerFill:
    return BrokerFill(
        execution_id=str(row["id"]),
        broker_order_id=str(row["order_id"]),
        client_order_id=None,
        symbol=str(row["symbol"]),
        side=Side.BUY if str(row["side"]) == "buy" else Side.SELL,  # sell_short is a sell
        quantity=_number(row["qty"]),
        price=_number(row["price"]).quantize(CASH_QUANTUM),
        executed_at=_instant(row["transaction_time"]),
        cursor=str(row["id"]),
    )


def _signed(row: Mapping[str, Any]) -> Decimal:
    quantity = _number(row["qty"])
    return -abs(quantity) if row.get("side") == "short" else quantity


def _number(text: object) -> Decimal:
    """A decimal, which Alpaca writes as text; where its client made a float of it the shortest text that names it."""
    return Decimal(str(text)).quantize(PRICE_QUANTUM).normalize() + ZERO


def _instant(text: object) -> datetime:
    """RFC 3339 with up to nanoseconds, of which Python takes microseconds."""
    found = str(text).replace("Z", "+00:00")
    head, dot, tail = found.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return datetime.fromisoformat(f"{head}{dot}{tail[: min(digits, 6)].ljust(6, '0') if dot else ''}{tail[digits:]}").astimezone(UTC)


def _locked_out(status: int | None, body: str) -> bool:
    return status == 403 and _FORBIDDEN not in body


def _message(body: str) -> str:
    """What Alpaca says, from a JSON body or another one."""
    try:
        return str(json.loads(body)["message"])[:_SHOWN]
    except (ValueError, KeyError, TypeError):
        return " ".join(body.split())[:_SHOWN] or "without a word"
