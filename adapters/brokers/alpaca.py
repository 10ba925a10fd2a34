"""Alpaca as a broker, through its own unmodified client. Paper trading, unless the settings say otherwise twice.

The client's traps: adapters.alpaca_rest takes its retries, its patience without end and the environment's proxies; here nothing that it
returns is believed before it names the order that was sent. Replies are parsed here, since one unknown word fails the client's models.
Importing alpaca-py takes seconds: it is imported when the broker is first used.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from quant.errors import AftercloseError, BrokerError, InputError, expected
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
from quant.trading.inbox import BrokerEvent, Channel, execution_key, outcomes, state_key
from quant.trading.orders import OrderState, OrderType, Side
from quant.units import PRICE_QUANTUM, ZERO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import date

    from alpaca.trading.client import TradingClient

    from adapters.alpaca_rest import Reader, Transport
    from adapters.sources.alpaca import AlpacaKeys
    from quant.calendar import ExchangeCalendar
    from quant.ports import Clock, Inbox
    from quant.trading.orders import Execution, Expiry, Order

PAPER_URL = "https://paper-api.alpaca.markets"
NEVER_BOOKS = frozenset({"dividend", "payment", "cash_in_lieu", "regulatory_fee", "borrow", "interest"})
OPENING_CUTOFF, QUEUES_FROM = time(9, 28), time(19)
_REJECTED = frozenset({400, 403, 404, 422})
_OF_THE_ORDER = 40310000  # any other 403 is of the keys, and tells nothing about the order
_PAGE_ORDERS, _PAGE_FILLS = 500, 100
_CLOCK_SECONDS = 30.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TERMS = {
    OrderType.MARKET: ("market", "day"),
    OrderType.LIMIT: ("limit", "day"),
    OrderType.MARKET_ON_OPEN: ("market", "opg"),
    OrderType.MARKET_ON_CLOSE: ("market", "cls"),
}
_TYPES = {names: order_type for order_type, names in _TERMS.items()}
_STATES = {state.value: state for state in OrderState}
_Reply = TypeVar("_Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlpacaAccess:
    """Where the account is and how patient to be. ``live_account``: number of the one real account that may be traded, said twice (the
    setting allow_live and the environment); None: paper only.
    """

    url: str = PAPER_URL
    allow_live: bool = False
    live_account: str | None = None
    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    all_attempts_seconds: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        local = parts.hostname in _LOOPBACK
        if not (parts.scheme == "https" or (parts.scheme == "http" and local)) or parts.path.strip("/"):
            do = "the keys travel with every request"
            what = "https://host without a path, or http:// on this machine"
            raise InputError(expected(what, found=self.url, where="[broker] url", do=do))
        if not self.paper and not (self.allow_live and self.live_account):
            do = f"use {PAPER_URL}, or say twice that you mean it: [broker] allow_live = true and AFTERCLOSE_LIVE_ACCOUNT"
            raise InputError(expected("a paper account", found=self.url, where="[broker] url", do=do))

    @property
    def paper(self) -> bool:
        """True if no real money is behind the address."""
        return urlsplit(self.url).hostname in {*_LOOPBACK, urlsplit(PAPER_URL).hostname}


class AlpacaBroker:
    """Broker port. Reports go through the inbox, so what polling and the stream tell is told once."""

    def __init__(
        self,
        access: AlpacaAccess,
        keys: Callable[[], AlpacaKeys],
        clock: Clock,
        inbox: Callable[[], Inbox],
        calendar: ExchangeCalendar,
        *,
        never_books: frozenset[str] = NEVER_BOOKS,
        polls: bool = True,
    ) -> None:
        """``keys`` and ``inbox`` are asked for when they are first needed. ``polls``: False where only the stream feeds the inbox."""
        self._access, self._keys, self._clock, self._open_inbox, self._calendar = access, keys, clock, inbox, calendar
        self._never_books, self._polls = never_books, polls
        self._connected: tuple[TradingClient, Reader, Transport] | None = None
        self._stored: Inbox | None = None
        self._number: str | None = None
        self._ahead: tuple[datetime, timedelta] | None = None

    @property
    def capabilities(self) -> BrokerCapabilities:
        return BrokerCapabilities(
            name="alpaca",
            embedded=False,
            order_types=frozenset(_TERMS),
            fractional=True,
            never_books=self._never_books,
            opening_cutoff=OPENING_CUTOFF,
        )

    def now(self) -> datetime:
        return _instant(self._one("/clock", {}, "timestamp")["timestamp"])

    def submit(self, order: Order) -> Acknowledgement:
        client, _, transport = self._connection()
        self._account_number()
        local = self._broker_now().astimezone(self._calendar.zone)
        closed = self._calendar.is_session(local.date()) and OPENING_CUTOFF <= local.time() < QUEUES_FROM
        if order.order_type is not OrderType.MARKET_ON_OPEN or not closed:
            return _posted(client, transport, _request(order))
        if local < self._calendar.close_at(local.date()):
            reason = f"not sent at {local:%H:%M}: until the close nothing can be sent for the next open"
            return Acknowledgement(answer=Answer.THROTTLED, reason=reason)
        # From the close to 19:00 an order on the open is refused, and a market order of the day waits for the next open.
        return _posted(client, transport, _request(order) | {"time_in_force": "day"})

    def find(self, client_order_id: str) -> BrokerOrder | None:
        raw = self._one_or_none("/orders:by_client_order_id", {"client_order_id": client_order_id}, "client_order_id")
        if raw is None:
            return None
        if raw["client_order_id"] != client_order_id:
            where = "Alpaca's reply"
            raise BrokerError(expected(f"order {client_order_id}", found=raw["client_order_id"], where=where, do="run this again later"))
        return _order(raw)

    def cancel(self, client_order_id: str) -> None:
        from alpaca.common.exceptions import APIError
        from requests.exceptions import RequestException

        found, where = self.find(client_order_id), f"order {client_order_id}"
        if found is None:
            raise BrokerError(expected("an order to cancel", found="none of this id", where=where, do="reconcile before trading"))
        session, _, transport = self._connection()
        client: Any = session  # its types are partly unknown
        try:
            client.delete(f"/orders/{found.broker_order_id}")
        except APIError as error:
            if transport.status != 422:  # it ended before
                raise BrokerError(expected("an answer", found=str(error)[:200], where=where, do="ask again")) from None
        except (RequestException, ValueError) as error:
            raise BrokerError(expected("an answer", found=type(error).__name__, where=where, do="look whether it came in time")) from None

    def outcomes(self, session: date, orders: Sequence[Order]) -> Sequence[Execution | Expiry]:
        if not orders:
            return []
        trouble: BrokerError | None = None
        since = min(order.session for order in orders)  # nothing happens to an order before the day on which it was decided
        if self._polls:
            try:
                self.poll(since)
            except BrokerError as error:  # the stream may have told everything already
                trouble = error
        try:
            return outcomes(session, orders, self._by_client_order_id(self._account_number(), self._midnight(since)))
        except BrokerError as error:
            raise error from trouble

    def poll(self, since: date) -> int:
        """Put into the inbox what the account's orders and activities say of orders and fills since a day; returns how much was new."""
        account = self._account_number()
        start = self._midnight(since)
        orders = list(self._orders({"status": "all"}, start))
        known = {str(raw["id"]): str(raw["client_order_id"]) for raw in orders}
        events = [state_event(account, raw, Channel.POLL) for raw in orders]
        events += [execution_event(account, raw, known.get(str(raw["order_id"])), Channel.POLL) for raw in self._activities(start)]
        return self._inbox().receive(events)

    def open_orders(self) -> Sequence[BrokerOrder]:
        return [_order(raw) for raw in self._orders({"status": "open"}, None)]

    def account(self) -> BrokerAccount:
        raw = self._one("/account", {}, "account_number")
        blocked = any(raw.get(name) is True for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user"))
        return BrokerAccount(
            account_id=str(raw["account_number"]),
            active=raw.get("status") == "ACTIVE" and not blocked,
            cash=_number(raw, "cash"),
            equity=_number(raw, "equity"),
            buying_power=_number(raw, "buying_power"),
        )

    def positions(self) -> Sequence[BrokerPosition]:
        return [
            BrokerPosition(
                symbol=str(raw["symbol"]),
                quantity=abs(_number(raw, "qty")) * (-1 if raw.get("side") == "short" else 1),
                average_entry_price=_number(raw, "avg_entry_price"),
            )
            for raw in self._listed("/positions", {})
        ]

    def fills(self, since: datetime) -> Sequence[BrokerFill]:
        return [
            BrokerFill(
                execution_id=execution_key(str(raw["order_id"]), _number(raw, "cum_qty")),
                broker_order_id=str(raw["order_id"]),
                client_order_id=None,
                symbol=str(raw["symbol"]),
                side=_side(raw),
                quantity=_number(raw, "qty"),
                price=_number(raw, "price"),
                executed_at=_instant(raw["transaction_time"]),
            )
            for raw in self._activities(since)
        ]

    def asset(self, symbol: str) -> BrokerAsset | None:
        raw = self._one_or_none(f"/assets/{symbol}", {}, "symbol")
        if raw is None:
            return None
        return BrokerAsset(
            symbol=str(raw["symbol"]),
            tradable=raw.get("tradable") is True and raw.get("status") == "active",
            shortable=raw.get("shortable") is True and raw.get("easy_to_borrow") is True,
            fractionable=raw.get("fractionable") is True,
        )

    # --- reading --------------------------------------------------------------------------------------------------------------------

    def _connection(self) -> tuple[TradingClient, Reader, Transport]:
        if self._connected is None:
            from alpaca.trading.client import TradingClient

            from adapters.alpaca_rest import Reader

            access, keys = self._access, self._keys()
            client = TradingClient(keys.key_id, keys.secret, paper=access.paper, raw_data=True, url_override=access.url.rstrip("/"))
            reader = Reader(
                client,
                self._clock,
                timeout_seconds=(access.connect_seconds, access.read_seconds),
                all_attempts_seconds=access.all_attempts_seconds,
                remedy="check [broker] in the profile",
            )
            self._connected = client, reader, reader.transport
        return self._connected

    def _inbox(self) -> Inbox:
        if self._stored is None:
            self._stored = self._open_inbox()
        return self._stored

    def _account_number(self) -> str:
        """Asked for once; BrokerError, before anything is sent, if it is real money under another number than was allowed."""
        if self._number is None:
            number = self.account().account_id
            if not self._access.paper and number != self._access.live_account:
                do = "set AFTERCLOSE_LIVE_ACCOUNT to the account that you mean"
                raise BrokerError(expected(f"account {self._access.live_account}", found=number, where=self._access.url, do=do))
            self._number = number
        return self._number

    def _broker_now(self) -> datetime:
        """The broker's clock, asked for every half minute: one question for a batch of orders."""
        here = self._clock.now()
        if self._ahead is None or not 0 <= (here - self._ahead[0]).total_seconds() < _CLOCK_SECONDS:
            self._ahead = here, self.now() - here
        return here + self._ahead[1]

    def _one(self, path: str, params: Mapping[str, object], holds: str) -> dict[str, Any]:
        _, reader, _ = self._connection()
        return _told(lambda: reader.one(path, params, holds))

    def _one_or_none(self, path: str, params: Mapping[str, object], holds: str) -> dict[str, Any] | None:
        _, reader, _ = self._connection()
        from adapters.alpaca_rest import AbsentError

        try:
            return reader.one(path, params, holds)
        except AbsentError:
            return None
        except AftercloseError as error:
            raise BrokerError(str(error)) from None

    def _listed(self, path: str, params: Mapping[str, object]) -> list[dict[str, Any]]:
        _, reader, _ = self._connection()
        return _told(lambda: reader.listed(path, params))

    def _orders(self, params: Mapping[str, object], since: datetime | None) -> Iterator[dict[str, Any]]:
        """Orders from ``since`` on, oldest first. Pages overlap by an instant, since ``after`` is exclusive and several share one."""
        seen: set[str] = set()
        after = since
        while True:
            start = {} if after is None else {"after": (after - timedelta(microseconds=1)).astimezone(UTC).isoformat()}
            page = self._listed("/orders", {**params, **start, "limit": _PAGE_ORDERS, "direction": "asc", "nested": "false"})
            new = [raw for raw in page if str(raw["id"]) not in seen]
            yield from new
            seen |= {str(raw["id"]) for raw in new}
            if len(page) < _PAGE_ORDERS:
                return
            if not new:
                found = f"{_PAGE_ORDERS} of one instant"
                raise BrokerError(expected("pages of orders that go on", found=found, where="/orders", do="report it"))
            after = _instant(page[-1]["submitted_at"])

    def _activities(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Fills after an instant, oldest first, page by page after the last id."""
        asked: dict[str, object] = {"after": since.astimezone(UTC).isoformat(), "page_size": _PAGE_FILLS, "direction": "asc"}
        while True:
            page = self._listed("/account/activities/FILL", asked)
            yield from page
            if len(page) < _PAGE_FILLS:
                return
            asked = {**asked, "page_token": page[-1]["id"]}

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(0), self._calendar.zone)

    def _by_client_order_id(self, account: str, since: datetime) -> dict[str, list[BrokerEvent]]:
        """Events of the account by our id; an execution on a channel that tells only the broker's is found by the order's other events."""
        events = self._inbox().events(account, since)
        names = {event.broker_order_id: event.client_order_id for event in events if event.client_order_id}
        grouped: dict[str, list[BrokerEvent]] = defaultdict(list)
        for event in events:
            name = event.client_order_id or names.get(event.broker_order_id)
            if name:
                grouped[name].append(event)
        return grouped


def state_event(account: str, raw: Mapping[str, Any], channel: Channel) -> BrokerEvent:
    """A report of an order's state, from Alpaca's form of an order."""
    cumulative, status = _number(raw, "filled_qty"), str(raw["status"])
    return BrokerEvent(
        account=account,
        event_id=state_key(str(raw["id"]), status, cumulative),
        broker_order_id=str(raw["id"]),
        client_order_id=str(raw["client_order_id"]),
        symbol=str(raw["symbol"]),
        at=_instant(raw["updated_at"]),
        channel=channel,
        cumulative=cumulative,
        status=status,
    )


def execution_event(account: str, raw: Mapping[str, Any], client_order_id: str | None, channel: Channel) -> BrokerEvent:
    """An execution, from Alpaca's form of a FILL activity."""
    cumulative = _number(raw, "cum_qty")
    return BrokerEvent(
        account=account,
        event_id=execution_key(str(raw["order_id"]), cumulative),
        broker_order_id=str(raw["order_id"]),
        client_order_id=client_order_id,
        symbol=str(raw["symbol"]),
        at=_instant(raw["transaction_time"]),
        channel=channel,
        cumulative=cumulative,
        quantity=_number(raw, "qty"),
        price=_number(raw, "price"),
    )


def _told(ask: Callable[[], _Reply]) -> _Reply:
    try:
        return ask()
    except AftercloseError as error:
        raise BrokerError(str(error)) from None


def _request(order: Order) -> dict[str, str]:
    """The request's fields. Quantities are texts: the client's own models make floats of them."""
    kind, time_in_force = _TERMS[order.order_type]
    fields = {
        "symbol": order.symbol,
        "qty": f"{order.quantity.quantize(PRICE_QUANTUM).normalize():f}",
        "side": order.side.value,
        "type": kind,
        "time_in_force": time_in_force,
        "client_order_id": order.client_order_id,
    }
    return fields if order.limit_price is None else {**fields, "limit_price": f"{order.limit_price.normalize():f}"}


def _posted(client: TradingClient, transport: Transport, fields: dict[str, str]) -> Acknowledgement:
    """One POST, never repeated, and what its reply tells for certain."""
    from alpaca.common.exceptions import APIError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    from adapters.alpaca_rest import reply_field

    untyped: Any = client  # its types are partly unknown
    try:
        reply: object = untyped.post("/orders", fields)
    except APIError as error:
        status, said = transport.status, str(reply_field(error, "message") or "without a word")
        if status == 429:
            return Acknowledgement(answer=Answer.THROTTLED, reason=f"429 {said}")
        taken_before = status == 422 and "must be unique" in said
        locked_out = status == 403 and reply_field(error, "code") != _OF_THE_ORDER
        if status in _REJECTED and not taken_before and not locked_out:
            return Acknowledgement(answer=Answer.REJECTED, reason=f"{status} {said}")
        return Acknowledgement(answer=Answer.UNKNOWN, reason=f"{status} {said}")
    except (RequestException, HTTPError, ValueError) as error:
        return Acknowledgement(answer=Answer.UNKNOWN, reason=f"{type(error).__name__}: {str(error)[:200]}")
    body = cast("dict[str, Any]", reply) if isinstance(reply, dict) else {}
    if transport.status != 200 or body.get("client_order_id") != fields["client_order_id"] or not body.get("id"):
        return Acknowledgement(answer=Answer.UNKNOWN, reason=f"{transport.status} without the order that was sent")
    if body.get("status") == "rejected":
        return Acknowledgement(answer=Answer.REJECTED, broker_order_id=str(body["id"]), reason="rejected by the exchange")
    return Acknowledgement(answer=Answer.ACCEPTED, broker_order_id=str(body["id"]))


def _order(raw: Mapping[str, Any]) -> BrokerOrder:
    try:
        average = raw.get("filled_avg_price")
        return BrokerOrder(
            client_order_id=str(raw["client_order_id"]),
            broker_order_id=str(raw["id"]),
            symbol=str(raw["symbol"]),
            side=_side(raw),
            order_type=_type(raw),
            quantity=_number(raw, "qty" if raw.get("qty") is not None else "filled_qty"),  # notional orders have none
            filled_quantity=_number(raw, "filled_qty"),
            average_price=None if average is None else _number(raw, "filled_avg_price"),
            state=_state(str(raw["status"])),
            updated_at=_instant(raw["updated_at"]),
        )
    except KeyError as error:
        raise BrokerError(expected(f"field {error}", found="none", where="an order of Alpaca", do="run this again later")) from None


def _type(raw: Mapping[str, Any]) -> OrderType:
    """An order that somebody else sent may be of a type that we do not send: by what bounds its price."""
    otherwise = OrderType.MARKET if raw.get("limit_price") is None else OrderType.LIMIT
    return _TYPES.get((str(raw.get("type")), str(raw.get("time_in_force"))), otherwise)


def _state(status: str) -> OrderState:
    """A status that is not known is one of an order that may still execute."""
    return _STATES.get(status, OrderState.ACCEPTED)


def _side(raw: Mapping[str, Any]) -> Side:
    return Side.BUY if str(raw["side"]).startswith("buy") else Side.SELL  # activities say sell_short, too


def _number(raw: Mapping[str, Any], name: str) -> Decimal:
    """A number of a reply, to 9 places; BrokerError if it is none."""
    try:
        value = Decimal(str(raw[name]))
        return Decimal(f"{value.quantize(PRICE_QUANTUM).normalize():f}") if value else ZERO
    except (KeyError, InvalidOperation):
        raise BrokerError(expected(f"a number {name}", found=raw.get(name), where="Alpaca's reply", do="run this again later")) from None


def _instant(text: object) -> datetime:
    """An instant of a reply, to the microsecond (Alpaca writes nanoseconds)."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        raise BrokerError(expected("an instant", found=text, where="Alpaca's reply", do="run this again later")) from None
