"""A stand-in for Alpaca's paper trading on the loopback, as far as alpaca-py's TradingClient and TradingStream ask for it, backed by the
simulated exchange. Control endpoints (/_control/...) move its clock, run sessions, and choose what goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quant.trading.exchange import Bar, Listing, Refusal
from services.broker import wire
from services.broker.faults import EventFaults, Fault, FaultKind, FaultPlan, Faults, plan_of
from services.broker.house import House

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


_TRANSPORT = "afterclose.transport"
_TICK_SECONDS = 0.2
_BARS = TypeAdapter(dict[str, Bar])
_STATUS = {FaultKind.TOO_MANY: 429, FaultKind.BROKEN: 500, FaultKind.GATEWAY: 504, FaultKind.EMPTY: 200, FaultKind.REDIRECT: 302}
_BODY = {
    FaultKind.TOO_MANY: b'{"code":42910000,"message":"rate limit exceeded"}',
    FaultKind.BROKEN: b'{"code":50010000,"message":"internal server error occurred"}',
    FaultKind.GATEWAY: b"<html><body>504 Gateway Time-out</body></html>",
}


class BrokerServer:
    """The application; ``house`` has its state."""

    def __init__(self, house: House, faults: FaultPlan, *, keys: tuple[str, str] | None = None) -> None:
        """``keys``: the only pair that is let in; None: any pair."""
        self._house, self._keys = house, keys
        self._faults = Faults(faults)
        self._listeners: set[WebSocket] = set()
        self._serial = asyncio.Lock()

    @property
    def app(self) -> ASGIApp:
        """For uvicorn."""
        routes = [
            Route("/v2/account", self._asked(self._account)),
            Route("/v2/clock", self._asked(self._clock)),
            Route("/v2/calendar", self._asked(self._calendar)),
            Route("/v2/orders", self._asked(self._orders), methods=["GET", "POST", "DELETE"]),
            Route("/v2/orders:by_client_order_id", self._asked(self._by_client_order_id)),
            Route("/v2/orders/{order_id}", self._asked(self._order), methods=["GET", "DELETE"]),
            Route("/v2/positions", self._asked(self._positions)),
            Route("/v2/positions/{symbol}", self._asked(self._position)),
            Route("/v2/assets/{symbol}", self._asked(self._asset)),
            Route("/v2/account/activities/FILL", self._asked(self._activities)),
            Route("/_control/{what}", self._control, methods=["GET", "POST"]),
            WebSocketRoute("/stream", self._stream),
        ]
        return _Faulty(Starlette(routes=routes, lifespan=self._lifespan), self._faults)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        ticking = asyncio.create_task(self._tick())
        yield
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if self._house.clock.runs:
                async with self._serial:
                    await self._pass_time()

    async def _pass_time(self) -> None:
        for happening in self._house.pass_time():
            await self._send(self._faults.sent(wire.trade_update(happening)))

    async def _send(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            for listener in tuple(self._listeners):
                try:
                    await listener.send_bytes(json.dumps(message).encode())
                except (RuntimeError, WebSocketDisconnect):
                    self._listeners.discard(listener)

    def _asked(self, answer: Callable[[Request, bytes], Response]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for those with keys, one request at a time, with everything told that happened before and in it."""

        async def endpoint(request: Request) -> Response:
            if not self._let_in(request.headers):
                return JSONResponse({"code": 40110000, "message": "request is not authorized"}, 401)
            body = await request.body()
            async with self._serial:
                await self._pass_time()
                response = answer(request, body)
                await self._pass_time()
            return response

        return endpoint

    def _let_in(self, headers: Mapping[str, str]) -> bool:
        pair = (headers.get("APCA-API-KEY-ID", ""), headers.get("APCA-API-SECRET-KEY", ""))
        return all(pair) and self._keys in {None, pair}

    # --- trading --------------------------------------------------------------------------------------------------------------------

    def _account(self, request: Request, body: bytes) -> Response:
        return JSONResponse(wire.account(self._house.exchange))

    def _clock(self, request: Request, body: bytes) -> Response:
        calendar, now = self._house.calendar, self._house.clock.now()
        sessions = calendar.sessions(now.date() - timedelta(days=1), now.date() + timedelta(days=14))
        opens, closes = ([at(session) for session in sessions if at(session) > now] for at in (calendar.open_at, calendar.close_at))
        local = [at.astimezone(calendar.zone).isoformat() for at in (now, opens[0], closes[0])]
        return JSONResponse({"timestamp": local[0], "is_open": closes[0] < opens[0], "next_open": local[1], "next_close": local[2]})

    def _calendar(self, request: Request, body: bytes) -> Response:
        calendar = self._house.calendar
        first, last = (date.fromisoformat(request.query_params[name][:10]) for name in ("start", "end"))
        days = [
            {"date": day.isoformat(), "open": "09:30", "close": f"{calendar.close_at(day).astimezone(calendar.zone):%H:%M}"}
            for day in calendar.sessions(first, last)
        ]
        return JSONResponse(days)

    def _orders(self, request: Request, body: bytes) -> Response:
        if request.method == "POST":
            return self._place(body)
        if request.method == "DELETE":
            now, exchange = self._house.clock.now(), self._house.exchange
            ended = [(order.order_id, exchange.cancel(order.order_id, now)) for order in exchange.open_orders()]
            return JSONResponse([{"id": order_id, "status": 200 if done else 422, "body": None} for order_id, done in ended], 207)
        return JSONResponse(self._listed(request.query_params))

    def _place(self, body: bytes) -> Response:
        try:
            ticket = wire.ticket_of(json.loads(body))
        except (ValueError, AttributeError, InvalidOperation):
            ticket = "request body format is invalid"
        if isinstance(ticket, str):
            return JSONResponse({"code": 42210000, "message": ticket}, 422)
        placed = self._house.exchange.place(ticket, self._house.clock.now())
        if isinstance(placed, Refusal):
            status, said = wire.refusal(placed)
            self._house.log.write(
                "refused", self._house.clock.now(), {"client_order_id": ticket.client_order_id, "reason": placed.kind.value}
            )
            return JSONResponse(said, status)
        return JSONResponse(wire.order(placed))

    def _listed(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        status, ascending = query.get("status", "open"), query.get("direction", "desc") == "asc"
        after, until = (datetime.fromisoformat(query[name]) if name in query else None for name in ("after", "until"))
        symbols = set(query["symbols"].split(",")) if query.get("symbols") else None
        chosen = [
            order
            for order in sorted(self._house.exchange.orders.values(), key=lambda o: o.placed_at, reverse=not ascending)
            if (status == "all" or order.status.open == (status == "open"))
            and (after is None or order.placed_at > after)
            and (until is None or order.placed_at < until)
            and (symbols is None or order.ticket.symbol in symbols)
        ]
        return [wire.order(order) for order in chosen[: min(int(query.get("limit", "50")), 500)]]

    def _by_client_order_id(self, request: Request, body: bytes) -> Response:
        exchange = self._house.exchange
        found = exchange.by_client_id.get(request.query_params.get("client_order_id", ""))
        return _not_found("order") if found is None else JSONResponse(wire.order(exchange.orders[found]))

    def _order(self, request: Request, body: bytes) -> Response:
        exchange, order_id = self._house.exchange, request.path_params["order_id"]
        if order_id not in exchange.orders:
            return _not_found("order")
        if request.method == "GET":
            return JSONResponse(wire.order(exchange.orders[order_id]))
        if exchange.cancel(order_id, self._house.clock.now()):
            return Response(status_code=204)
        status = exchange.orders[order_id].status
        return JSONResponse({"code": 42210000, "message": f'order is already in "{status}" state'}, 422)

    def _positions(self, request: Request, body: bytes) -> Response:
        exchange = self._house.exchange
        return JSONResponse([wire.position(exchange, symbol) for symbol in sorted(exchange.positions)])

    def _position(self, request: Request, body: bytes) -> Response:
        exchange, symbol = self._house.exchange, request.path_params["symbol"]
        return JSONResponse(wire.position(exchange, symbol)) if symbol in exchange.positions else _not_found("position")

    def _asset(self, request: Request, body: bytes) -> Response:
        listing = self._house.exchange.listings.get(request.path_params["symbol"])
        return _not_found("asset") if listing is None else JSONResponse(wire.asset(listing))

    def _activities(self, request: Request, body: bytes) -> Response:
        exchange, query = self._house.exchange, request.query_params
        hidden = self._faults.events.hide_fills
        fills = exchange.fills[: len(exchange.fills) - hidden] if hidden else exchange.fills
        rows = [
            wire.activity(fill, "filled" if fill.cumulative == exchange.orders[fill.order_id].ticket.quantity else "partially_filled")
            for fill in fills
            if "after" not in query or fill.at > datetime.fromisoformat(query["after"])
        ]
        rows = rows if query.get("direction", "desc") == "asc" else rows[::-1]
        ids = [row["id"] for row in rows]
        start = ids.index(query["page_token"]) + 1 if query.get("page_token") in ids else 0
        return JSONResponse(rows[start : start + min(int(query.get("page_size", "100")), 100)])

    # --- the stream -----------------------------------------------------------------------------------------------------------------

    async def _stream(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                asked = json.loads(await _received(socket))
                data = asked.get("data") or {}
                if asked.get("action") in {"authenticate", "auth"}:
                    pair = (data.get("key_id") or asked.get("key"), data.get("secret_key") or asked.get("secret"))
                    authorized = all(pair) and self._keys in {None, pair}
                    status = "authorized" if authorized else "unauthorized"
                    reply = {"stream": "authorization", "data": {"status": status, "action": "authenticate"}}
                    await socket.send_bytes(json.dumps(reply).encode())
                    if not authorized:
                        await socket.close()
                        return
                elif asked.get("action") == "listen":
                    await socket.send_bytes(json.dumps({"stream": "listening", "data": {"streams": ["trade_updates"]}}).encode())
                    self._listeners.add(socket)
        except WebSocketDisconnect:
            pass
        finally:
            self._listeners.discard(socket)

    # --- control --------------------------------------------------------------------------------------------------------------------

    async def _control(self, request: Request) -> Response:
        body = await request.body()
        try:
            asked = json.loads(body or b"{}")
            async with self._serial:
                answer = await self._controlled(request.path_params["what"], asked)
                await self._pass_time()
        except (ValueError, KeyError, TypeError, InvalidOperation, ValidationError) as error:
            return JSONResponse({"message": f"{type(error).__name__}: {error}"}, 400)
        return JSONResponse(answer)

    async def _controlled(self, what: str, asked: Mapping[str, object] | list[object]) -> dict[str, Any]:
        house = self._house
        if what in {"faults", "events", "disconnect"}:
            await self._spoil(what, asked)
        elif isinstance(asked, list):
            raise TypeError("an object is expected")
        elif what in _CONTROLS:
            _CONTROLS[what](house, asked)
        else:
            raise KeyError(what)
        exchange = house.exchange
        return {
            "now": wire.instant(house.clock.now()),
            "account": exchange.account_number,
            "orders": len(exchange.orders),
            "listeners": len(self._listeners),
        }

    async def _spoil(self, what: str, asked: Mapping[str, object] | list[object]) -> None:
        if what == "disconnect":
            for listener in tuple(self._listeners):
                self._listeners.discard(listener)
                await listener.close(1012)
            return
        await self._send(self._faults.flush())
        if what == "faults":
            self._faults.set(plan_of(json.dumps(asked)))
        elif asked:
            self._faults.set_events(EventFaults.model_validate(asked))


class _Faulty:
    """Around the application: a request of the trading interface meets the fault that is due for it."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app, self._faults = app, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http" and not scope["path"].startswith("/_control"):
            fault = self._faults.of(f"{scope['method']} {scope['path']}")
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.seconds)
        if fault.kind is FaultKind.LATENCY:
            await self._app(scope, receive, send)
            return
        reply = b'{"id":"00000000-0000-0000-0000-000000000000","client_order_id":"'
        if fault.accepted:
            reply = await _swallowed(self._app, scope, receive)
        await _spoiled(fault, reply, scope, send)


async def _swallowed(app: ASGIApp, scope: Scope, receive: Receive) -> bytes:
    """Let the application do its work, and keep its reply."""
    pieces: list[bytes] = []

    async def keep(message: Message) -> None:
        pieces.append(message.get("body", b""))

    await app(scope, receive, keep)
    return b"".join(pieces)


async def _spoiled(fault: Fault, reply: bytes, scope: Scope, send: Send) -> None:
    if fault.kind in _STATUS:
        body = _BODY.get(fault.kind, b"")
        headers = [(b"content-length", b"%d" % len(body))]
        headers += [(b"location", b"/elsewhere")] if fault.kind is FaultKind.REDIRECT else []
        headers += [(b"retry-after", b"1")] if fault.kind is FaultKind.TOO_MANY else []
        await send({"type": "http.response.start", "status": _STATUS[fault.kind], "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    transport = scope[_TRANSPORT]
    if fault.kind is FaultKind.HALF:
        start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % max(len(reply), 100)
        transport.write(start + reply[: len(reply) // 2])
    elif fault.kind is FaultKind.HEADERS:
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    transport.close()
    await asyncio.sleep(0.01)  # until the server has noticed, so that it adds no reply of its own


class _Protocol(HttpToolsProtocol):
    """Gives the application its connection, to cut it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[_TRANSPORT] = self.transport  # type: ignore[typeddict-unknown-key]


async def _received(websocket: WebSocket) -> str | bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return message.get("text") or message.get("bytes") or b"{}"


def _not_found(what: str) -> Response:
    return JSONResponse({"code": 40410000, "message": f"{what} not found"}, 404)


def _set_clock(house: House, asked: Mapping[str, Any]) -> None:
    """``now``: stand at this instant, or run again if null; ``advance_seconds``: move a standing clock on."""
    if "advance_seconds" in asked:
        house.clock.set(house.clock.now() + timedelta(seconds=float(asked["advance_seconds"])))
        return
    at = asked["now"] and datetime.fromisoformat(asked["now"])
    if at and at.tzinfo is None:
        raise ValueError("now needs a time zone")
    house.clock.set(at or None)


def _run_session(house: House, asked: Mapping[str, Any]) -> None:
    house.run(date.fromisoformat(asked["session"]), asked.get("phase", "both"), _BARS.validate_python(asked.get("bars", {})))


def _change_asset(house: House, asked: Mapping[str, Any]) -> None:
    before = house.exchange.listings.get(asked["symbol"], Listing(symbol=asked["symbol"]))
    house.exchange.list(replace(before, **asked), house.clock.now())


def _trade_elsewhere(house: House, asked: Mapping[str, Any]) -> None:
    house.exchange.trade_elsewhere(asked["symbol"], Decimal(str(asked["qty"])), Decimal(str(asked["price"])))


def _split(house: House, asked: Mapping[str, Any]) -> None:
    house.exchange.split(asked["symbol"], Decimal(str(asked["ratio"])))


def _move_cash(house: House, asked: Mapping[str, Any]) -> None:
    house.exchange.cash += Decimal(str(asked["amount"]))


def _mark(house: House, asked: Mapping[str, Any]) -> None:
    house.exchange.marks |= {symbol: Decimal(str(mark)) for symbol, mark in asked.items()}


_CONTROLS: dict[str, Callable[[House, Mapping[str, Any]], None]] = {
    "clock": _set_clock,
    "session": _run_session,
    "asset": _change_asset,
    "trade": _trade_elsewhere,
    "split": _split,
    "cash": _move_cash,
    "marks": _mark,
    "reset": lambda house, asked: house.reset(),
    "state": lambda house, asked: None,
}


def serve(server: BrokerServer, bound: socket.socket) -> None:
    """Serve on a bound socket until the process is told to end."""
    configured(server).run(sockets=[bound])


def configured(server: BrokerServer) -> uvicorn.Server:
    """The HTTP server, not started."""
    config = uvicorn.Config(
        server.app,
        http=_Protocol,
        ws="websockets-sansio",
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def bind(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A listening socket; port 0: a free one."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
