"""The server: HTTP for the calls, a WebSocket for trade_updates, and /_control for whoever runs the rehearsal."""

from __future__ import annotations

import json
import os
import threading
import time as sleeping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from quant.trading.brokerage import BrokerOrder
from quant.trading.exchange import Exchange, Refusal, Report
from quant.trading.execution import Bar, CostSettings
from quant.trading.orders import Leg, Order, OrderType
from quant.units import ZERO
from services.broker import replies
from services.broker.faults import Fault, Plan

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from websockets.sync.server import ServerConnection

    from quant.calendar import ExchangeCalendar
    from quant.ports import Clock
    from services.broker.replies import Json

Reply = tuple[int, object]
_OPG_CLOSED = (time(9, 28), time(19, 0))
_CLS_CLOSED = (time(15, 50), time(19, 0))
_CONTROL = "/_control/"
_HTML = b"<html><body>Bad   Gateway</body></html>"
_NOT_FOUND: Reply = (404, {"code": 40410000, "message": "order not found"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Posted(Order):
    """An order as it came: it has the id that the client gave it."""

    given_id: str

    @property
    def client_order_id(self) -> str:
        return self.given_id


@dataclass(kw_only=True)
class BrokerServer:
    """Everything the server knows. One lock: a request is done whole before the next.

    ``log``: one JSON line for every order taken, refused or cancelled and every execution, written and synced before the answer leaves:
    what the broker itself says happened.
    """

    exchange: Exchange
    calendar: ExchangeCalendar
    clock: Clock
    key_id: str
    secret: str
    log: Path | None = None
    plans: list[Plan] = field(default_factory=list[Plan])
    at: datetime | None = None  # a clock that stands, instead of the machine's
    active: bool = True

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._submitted: dict[str, datetime] = {}
        self._told = 0
        self._listeners: list[ServerConnection] = []
        self._file: IO[str] | None = None if self.log is None else self.log.open("a")

    @contextmanager
    def running(self, port: int = 0, stream_port: int = 0) -> Generator[tuple[str, str]]:
        """Serve on 127.0.0.1 until the block ends; gives the addresses of HTTP and of the stream."""
        from websockets.sync.server import serve

        handler = type("Handler", (_Handler,), {"broker": self})
        http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        http.daemon_threads, http.block_on_close = True, False
        stream = serve(self.listen, "127.0.0.1", stream_port)
        threads = [
            threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True),
            threading.Thread(target=stream.serve_forever, daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}", f"ws://127.0.0.1:{stream.socket.getsockname()[1]}/stream"
        finally:
            http.shutdown()
            http.server_close()
            stream.shutdown()
            for thread in threads:
                thread.join(timeout=5)
            if self._file is not None:
                self._file.close()

    def now(self) -> datetime:
        """The server's clock."""
        return self.at or self.clock.now()

    def planned(self, asked: Asked) -> Plan | None:
        """The fault that this request meets, if any."""
        with self._lock:
            return next((plan for plan in self.plans if plan.takes(asked.method, asked.path)), None)

    def reply(self, asked: Asked) -> Reply:
        """Status and JSON; None for no body."""
        with self._lock:
            if asked.path.startswith(_CONTROL):
                return self._control(asked.path.removeprefix(_CONTROL), asked)
            given = {name.lower(): value for name, value in asked.headers.items()}
            if (given.get("apca-api-key-id"), given.get("apca-api-secret-key")) != (self.key_id, self.secret):
                return 403, {"message": "forbidden."}
            try:
                return self._routed(asked)
            finally:
                self._tell()

    def _routed(self, asked: Asked) -> Reply:
        head, _, rest = asked.path.removeprefix("/v2/").partition("/")
        match asked.method, head:
            case "GET", "account" if not rest:
                return 200, replies.account(self.exchange, active=self.active)
            case "GET", "account" if rest == "activities/FILL":
                return 200, self._activities(asked.query)
            case "GET", "clock":
                return 200, self._clock()
            case "GET", "calendar":
                return 200, self._calendar(asked.query)
            case "GET", "assets":
                return 200, replies.asset(self.exchange, unquote(rest))
            case "GET", "positions":
                return self._positions(unquote(rest))
            case "GET", "orders:by_client_order_id":
                return self._one(asked.query.get("client_order_id", ""))
            case "GET", "orders":
                return self._one(self._named(rest)) if rest else (200, self._orders(asked.query))
            case "POST", "orders":
                return self._submit(asked.body)
            case "DELETE", "orders":
                return self._cancel(self._named(rest)) if rest else (207, [self._cancelled(name) for name in self._open()])
        return 404, {"code": 40410000, "message": "endpoint not found."}

    def _submit(self, body: Mapping[str, Any]) -> Reply:
        kind = (str(body.get("type")), str(body.get("time_in_force")))
        try:
            quantity, limit = Decimal(str(body["qty"])), body.get("limit_price")
            order = _Posted(
                given_id=str(body["client_order_id"]),
                book="broker",
                session=self.now().date(),
                symbol=str(body["symbol"]),
                leg=Leg.OPEN,
                side=replies.side(body["side"]),
                quantity=quantity,
                reference_price=self.exchange.last.get(str(body["symbol"]), ZERO),
                order_type=replies.KINDS[kind],
                limit_price=None if limit is None else Decimal(str(limit)),
            )
        except (KeyError, ValueError, InvalidOperation) as error:
            return 422, {"code": 40010001, "message": f"invalid order: {error}"}
        if quantity <= 0 or quantity != quantity.to_integral_value():
            return 403, {"code": 40310000, "message": "qty must be whole shares above zero"}
        local = self.now().astimezone(self.calendar.zone).time()
        closed = {OrderType.MARKET_ON_OPEN: _OPG_CLOSED, OrderType.MARKET_ON_CLOSE: _CLS_CLOSED}.get(order.order_type)
        if closed is not None and closed[0] <= local < closed[1]:
            return 422, {"code": 42210000, "message": f"{kind[1]} orders are not accepted between {closed[0]} and {closed[1]} ET"}
        held = self.exchange.submit(order, self.now())
        if isinstance(held, Refusal):
            duplicate = "must be unique" in held.reason
            self._write("refused", order.client_order_id, reason=held.reason)
            return (422, {"code": 40010001, "message": held.reason}) if duplicate else (403, {"code": 40310000, "message": held.reason})
        self._submitted[held.client_order_id] = self.now()
        self._write(
            "accepted", held.client_order_id, symbol=held.symbol, side=held.side.value, qty=replies.text(held.quantity), type=list(kind)
        )
        return 200, self._json(held)

    def _cancel(self, name: str) -> Reply:
        if name not in self.exchange.taken:
            return _NOT_FOUND
        if not self.exchange.cancel(name, self.now()):
            return 422, {"code": 42210000, "message": "order is not cancelable"}
        self._write("canceled", name)
        return 204, None

    def _cancelled(self, name: str) -> Json:
        self._cancel(name)
        held = self.exchange.taken[name][1]
        return {"id": replies.uuid(held.broker_order_id), "status": 200, "body": self._json(held)}

    def _one(self, name: str) -> Reply:
        held = self.exchange.taken.get(name)
        return _NOT_FOUND if held is None else (200, self._json(held[1]))

    def _orders(self, query: Mapping[str, str]) -> list[Json]:
        status, limit = query.get("status", "open"), min(int(query.get("limit", "50")), 500)
        held = [o for o in self.exchange.orders if status == "all" or o.state.terminal == (status == "closed")]
        made = sorted((self._json(o) for o in held), key=lambda row: str(row["submitted_at"]), reverse=query.get("direction") != "asc")
        after, until = query.get("after", ""), query.get("until", "9")
        return [row for row in made if after < str(row["submitted_at"]) < until][:limit]

    def _positions(self, symbol: str) -> Reply:
        rows = [replies.position(held) for held in self.exchange.positions if not symbol or held.symbol == symbol]
        if not symbol:
            return 200, rows
        return (200, rows[0]) if rows else (404, {"code": 40410000, "message": "position does not exist"})

    def _activities(self, query: Mapping[str, str]) -> list[Json]:
        made, executed = [], dict[str, Decimal]()
        for fill in self.exchange.fills:
            name = fill.client_order_id or ""
            executed[name] = executed.get(name, ZERO) + fill.quantity
            made.append(replies.activity(fill, cumulated=executed[name], ordered=self.exchange.taken[name][1].quantity))
        after, token = query.get("after", ""), query.get("page_token")
        rows = [row for row in made if str(row["transaction_time"]) > after]
        if query.get("direction", "desc") == "desc":
            rows.reverse()
        start = 0 if token is None else next((n + 1 for n, row in enumerate(rows) if row["id"] == token), 0)
        return rows[start : start + min(int(query.get("page_size", "100")), 100)]

    def _clock(self) -> Json:
        now, day = self.now(), self.now().astimezone(self.calendar.zone).date()
        coming = [self.calendar.on_or_after(day), self.calendar.next(self.calendar.on_or_after(day))]
        opens = next(at for at in map(self.calendar.open_at, coming) if at > now)
        closes = next(at for at in map(self.calendar.close_at, coming) if at > now)
        return {"timestamp": now.isoformat(), "is_open": closes < opens, "next_open": opens.isoformat(), "next_close": closes.isoformat()}

    def _calendar(self, query: Mapping[str, str]) -> list[Json]:
        first, last = (date.fromisoformat(query[name][:10]) for name in ("start", "end"))
        zone = self.calendar.zone
        return [
            {
                "date": str(day),
                "open": f"{self.calendar.open_at(day).astimezone(zone):%H:%M}",
                "close": f"{self.calendar.close_at(day).astimezone(zone):%H:%M}",
            }
            for day in self.calendar.sessions(first, last)
        ]

    def _open(self) -> list[str]:
        return [held.client_order_id for held in self.exchange.orders if not held.state.terminal]

    def _named(self, broker_order_id: str) -> str:
        return next((o.client_order_id for o in self.exchange.orders if replies.uuid(o.broker_order_id) == broker_order_id), "")

    def _json(self, held: BrokerOrder) -> Json:
        order = self.exchange.taken[held.client_order_id][0]
        return replies.order(held, limit_price=order.limit_price, submitted_at=self._submitted.get(held.client_order_id, self.now()))

    # What a rehearsal asks for. Without keys: it listens on this machine alone, and trades nothing but paper.

    def _control(self, what: str, asked: Asked) -> Reply:
        if not (self._control_server(what, asked.body) or self._control_account(what, asked.body)):
            return 404, {"message": f"no control {what}"}
        self._tell()
        return 200, {
            "cash": replies.text(self.exchange.cash),
            "positions": {p.symbol: replies.text(p.quantity) for p in self.exchange.positions},
            "orders": {o.client_order_id: o.state.value for o in self.exchange.orders},
            "fills": len(self.exchange.fills),
        }

    def _control_server(self, what: str, body: Mapping[str, Any]) -> bool:
        match what:
            case "faults":
                self.plans = [Plan(**{**plan, "fault": Fault(plan["fault"])}) for plan in body["faults"]]
            case "clock":
                self.at = None if body["at"] is None else datetime.fromisoformat(body["at"])
            case "session":
                self._hold_session(date.fromisoformat(body["session"]), body["bars"])
            case "active":
                self.active = bool(body["active"])
            case "reset":
                self.exchange = Exchange(costs=self.exchange.costs, cash=Decimal(str(body["cash"])), account_id=body["account_id"])
                self._told, self._submitted = 0, {}
            case _:
                return what == "state"
        return True

    def _control_account(self, what: str, body: Mapping[str, Any]) -> bool:
        match what:
            case "prices":
                self.exchange.last |= {symbol: Decimal(str(price)) for symbol, price in body.items()}
            case "symbol":
                for state in ("halted", "delisted", "hard_to_borrow"):
                    if state in body:
                        (set.add if body[state] else set.discard)(getattr(self.exchange, state), body["symbol"])
            case "split":
                self.exchange.split(body["symbol"], Decimal(str(body["ratio"])))
            case "trade":
                self.exchange.move(body["symbol"], Decimal(str(body["shares"])), Decimal(str(body["price"])))
            case "cash":
                self.exchange.cash += Decimal(str(body["amount"]))
            case _:
                return False
        return True

    def _hold_session(self, session: date, bars: Mapping[str, Mapping[str, float]]) -> None:
        opens, closes = self.calendar.open_at(session), self.calendar.close_at(session)
        self.exchange.hold_session(session, {symbol: Bar(**bar) for symbol, bar in bars.items()}, opens=opens, closes=closes)
        if self.at is not None:
            self.at = max(self.at, closes + timedelta(minutes=1))

    def _tell(self) -> None:
        """Log and stream what happened at the exchange since the last time."""
        news, self._told = self.exchange.reports[self._told :], len(self.exchange.reports)
        for report in news:
            if report.fill is not None:
                fill = report.fill
                terms = {
                    "symbol": fill.symbol,
                    "side": fill.side.value,
                    "qty": replies.text(fill.quantity),
                    "price": replies.text(fill.price),
                }
                self._write("executed", report.order.client_order_id, **terms)
        self._stream(news)

    def _stream(self, news: list[Report]) -> None:
        for report in news:
            order = self.exchange.taken[report.order.client_order_id][0]
            at = self._submitted.get(report.order.client_order_id, report.at)
            message = json.dumps(replies.update(report, limit_price=order.limit_price, submitted_at=at))
            for listener in list(self._listeners):
                try:
                    listener.send(message.encode())
                except Exception:  # noqa: BLE001 (a listener that went is nobody's business but its own)
                    self._listeners.remove(listener)

    def listen(self, connection: ServerConnection) -> None:
        """One client of the stream: it says who it is, then what it wants to hear."""
        for raw in connection:
            asked = cast("dict[str, Any]", json.loads(raw))
            match asked.get("action"):
                case "authenticate" | "auth":
                    given = asked.get("data", asked)
                    known = (given.get("key_id", given.get("key")), given.get("secret_key", given.get("secret"))) == (
                        self.key_id,
                        self.secret,
                    )
                    status = "authorized" if known else "unauthorized"
                    connection.send(json.dumps({"stream": "authorization", "data": {"action": "authenticate", "status": status}}).encode())
                    if not known:
                        return
                case "listen":
                    connection.send(json.dumps({"stream": "listening", "data": asked["data"]}).encode())
                    with self._lock:
                        self._listeners.append(connection)
                case _:
                    return

    def _write(self, event: str, client_order_id: str, **more: object) -> None:
        if self._file is None:
            return
        line = {"at": replies.instant(self.now()), "event": event, "client_order_id": client_order_id, **more}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class _Handler(BaseHTTPRequestHandler):
    broker: BrokerServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        given = self.rfile.read(length)
        try:
            body: object = json.loads(given) if given else {}
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._send(400, b'{"code":40010000,"message":"request body format is invalid"}')
            return
        asked = Asked(self.command, address.path, dict(parse_qsl(address.query)), cast("dict[str, Any]", body), dict(self.headers))
        plan = self.broker.planned(asked)
        if plan is None:
            self._send_reply(self.broker.reply(asked))
            return
        reply = self.broker.reply(asked) if plan.fault.after else (200, {"message": "not done"})
        self._fail(plan, reply)

    def _fail(self, plan: Plan, reply: Reply) -> None:
        match plan.fault:
            case Fault.SLOW:
                sleeping.sleep(plan.seconds)
                self._send_reply(reply)
            case Fault.THROTTLED:
                self._send(429, b'{"code":42910000,"message":"too many requests."}', more={"Retry-After": "0"})
            case Fault.BROKEN | Fault.BROKEN_AFTER:
                self._send(500, b'{"code":50010000,"message":"internal server error occurred"}')
            case Fault.GATEWAY | Fault.GATEWAY_AFTER:
                self._send(504, _HTML, kind="text/html")
            case Fault.EMPTY | Fault.EMPTY_AFTER:
                self._send(200, b"")
            case Fault.REDIRECT | Fault.REDIRECT_AFTER:
                self._send(302, b"", more={"Location": "/elsewhere"})
            case Fault.HTML:
                self._send(200, _HTML, kind="text/html")
            case Fault.CUT | Fault.CUT_AFTER:
                self.close_connection = True
            case Fault.HALF | Fault.HALF_AFTER:
                whole = json.dumps(reply[1]).encode()
                self._send(reply[0], whole[: len(whole) // 2], length=len(whole))
                self.close_connection = True

    def _send_reply(self, reply: Reply) -> None:
        status, body = reply
        self._send(status, b"" if body is None else json.dumps(body).encode())

    def _send(
        self, status: int, body: bytes, *, kind: str = "application/json", length: int | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        size = len(body) if length is None else length
        headers = {"Content-Type": kind, "Content-Length": str(size), "X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "199"}
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in {**headers, **(more or {})}.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        pass


def new_server(
    *,
    calendar: ExchangeCalendar,
    clock: Clock,
    key_id: str,
    secret: str,
    cash: Decimal = Decimal(1_000_000),
    costs: CostSettings | None = None,
    account_id: str = "PA-REHEARSAL",
    seed: int = 0,
    partial_share: float = 0.0,
    log: Path | None = None,
) -> BrokerServer:
    """A server with a fresh account. Commissions are none, as at Alpaca, unless ``costs`` say otherwise."""
    rules = costs or CostSettings(commission_per_share_usd=0, commission_minimum_usd=0)
    exchange = Exchange(costs=rules, cash=cash, account_id=account_id, seed=seed, partial_share=partial_share)
    return BrokerServer(exchange=exchange, calendar=calendar, clock=clock, key_id=key_id, secret=secret, log=log)
