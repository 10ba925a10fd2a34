"""A server on the loopback that answers as Alpaca's market data and paper trading do, from frames, and fails on demand.

Formats and rules as documented or measured (limit across symbols, sorted by symbol then time; corporate actions by process date; ``asof``
names companies). It knows companies by the tickers they had, so it resolves ``asof`` by another road than the code under test.
"""

from __future__ import annotations

import json
import threading
import time as clock
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import polars as pl

from quant.calendar import exchange_calendar

NEW_YORK = ZoneInfo("America/New_York")
KEY_ID, SECRET = "PK0LOOPBACK", "s3cret-of-the-loopback"
_BAR = {"at": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "vwap": "vw"}
_DEFAULT_LIMIT = 1000


class Fault(StrEnum):
    """What becomes of one request."""

    NONE = "none"
    TOO_MANY = "429 with Retry-After"
    LIMIT_REACHED = "429 with X-RateLimit-Reset"
    BROKEN = "500"
    GATEWAY = "504 with a page of HTML"
    CUT = "the connection is cut before a reply"
    HALF = "half a reply, then the connection is cut"
    EMPTY = "200 without a body"
    REDIRECT = "302"
    HTML = "200 with a page of HTML"
    LIST = "200 with a list"
    NO_DATA = "200 without the data"
    SILENT = "no reply for a second"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(kw_only=True)
class AlpacaServer:
    """``bars``: session, symbol (the ticker of that day), open ... vwap; ``actions``: ex_date, symbol, kind, value, pay_date.
    ``companies``: each a list of (first day, ticker). ``minutes``: at (UTC), symbol, open ... vwap. ``corporate``: Alpaca's kind -> more
    items, raw.
    """

    bars: pl.DataFrame
    actions: pl.DataFrame | None = None
    companies: Sequence[Sequence[tuple[date, str]]] = ()
    minutes: pl.DataFrame | None = None
    corporate: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    hours: Mapping[date, time | None] = field(default_factory=dict)  # another close than the calendar's, or none: closed
    inactive: Collection[str] = ()
    page_rows: int = 10_000
    faults: deque[Fault] = field(default_factory=deque)
    real_time_from: datetime | None = None  # feed sip from here on is for subscribers
    remaining: int = 200
    adjusted_error: pl.Expr = field(default_factory=lambda: pl.lit(1.0))  # what the vendor's adjusted closes are wrong by
    reset_at: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serve(self.bars)
        self._minutes = _by_symbol(self.minutes) if self.minutes is not None else {}
        self._corporate = self._listed()

    def serve(self, bars: pl.DataFrame) -> None:
        """From now on answer with these daily bars."""
        self.bars = bars
        midnight = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC")
        self._daily = _by_symbol(bars.with_columns(at=midnight))

    def __enter__(self) -> AlpacaServer:
        handler = type("Handler", (_Handler,), {"alpaca": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads, self._http.block_on_close = True, False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def paths(self) -> list[str]:
        """Paths asked for so far, in order."""
        return [asked.path for asked in self.asked]

    def reply(self, asked: Asked) -> tuple[int, object]:
        """Status and JSON."""
        if asked.headers.get("APCA-API-KEY-ID") != KEY_ID or asked.headers.get("APCA-API-SECRET-KEY") != SECRET:
            return 403, {"message": "forbidden."}
        match asked.path:
            case "/v2/stocks/bars":
                return self._bars(asked.query)
            case "/v1/corporate-actions":
                return self._corporate_actions(asked.query)
            case "/v2/calendar":
                first, last = (date.fromisoformat(asked.query[name]) for name in ("start", "end"))
                closes = {day: self.hours.get(day, exchange_calendar().early_closes.get(day, time(16))) for day in _sessions(first, last)}
                return 200, [_day(day, close) for day, close in closes.items() if close is not None]
            case "/v2/assets":
                return 200, [_asset(symbol, active=symbol not in self.inactive) for symbol in sorted(self._daily)]
        return 404, {"code": 40410000, "message": "endpoint not found."}

    def _bars(self, query: Mapping[str, str]) -> tuple[int, object]:
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        if self.real_time_from is not None and query["feed"] == "sip" and end > self.real_time_from:
            return 403, {"message": "subscription does not permit querying recent SIP data"}
        if query["timeframe"] not in {"1Day", "1Min", "12Month"} or query["adjustment"] not in {"raw", "all"} or query["sort"] != "asc":
            return 400, {"message": f"invalid query: {dict(query)}"}
        if wrong := [symbol for symbol in query["symbols"].split(",") if not symbol.replace(".", "").isalnum()]:
            return 400, {"message": f"invalid symbol: {wrong[0]}"}
        frames = [
            (symbol, self._series(symbol, query["asof"], query["timeframe"]).filter(pl.col("at").is_between(start, end)))
            for symbol in sorted(query["symbols"].split(","))
        ]
        if query["adjustment"] == "all":
            frames = [(symbol, self._adjusted(symbol, frame)) for symbol, frame in frames]
        skip, left = int(query.get("page_token", "0")), min(int(query.get("limit", _DEFAULT_LIMIT)), self.page_rows)
        total, page, upto = sum(frame.height for _, frame in frames), {}, skip + left
        for symbol, frame in frames:
            rows = frame.slice(skip, left) if skip < frame.height else frame.clear()
            skip, left = max(skip - frame.height, 0), left - rows.height
            if rows.height:
                page[symbol] = _json_bars(rows)
        return 200, {"bars": page, "next_page_token": str(upto) if upto < total else None}

    def _adjusted(self, symbol: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Closes as seen from today: whatever went ex after a bar is in its factor."""
        factors = [1.0] * frame.height
        days = [at.astimezone(NEW_YORK).date() for at in frame["at"]]
        for ex_date, named, kind, value, _ in () if self.actions is None else self.actions.iter_rows():
            if named == symbol:
                before = frame.filter(pl.col("at") < datetime.combine(ex_date, time(), NEW_YORK).astimezone(UTC))["close"]
                factor = 1 / value if kind == "split" else 1 - value / before[-1] if before.len() else 1.0
                factors = [f * factor if day < ex_date else f for f, day in zip(factors, days, strict=True)]
        return frame.with_columns(close=pl.col("close") * pl.Series(factors) * self.adjusted_error)

    def _series(self, symbol: str, asof: str, timeframe: str) -> pl.DataFrame:
        """A company's bars, under whatever tickers it had, if one had this one on the day ``asof``; else the ticker's."""
        source = self._minutes if timeframe == "1Min" else self._daily
        company = None if asof == "-" else next((c for c in self.companies if _ticker(c, date.fromisoformat(asof)) == symbol), None)
        if company is None:
            rows = source.get(symbol, next(iter(source.values())).clear())
        else:
            ends = [*(first for first, _ in company[1:]), date.max]
            local = pl.col("at").dt.convert_time_zone("America/New_York").dt.date()
            parts = [
                source[ticker].filter(local >= first, local < end)
                for (first, ticker), end in zip(company, ends, strict=True)
                if ticker in source
            ]
            rows = pl.concat(parts).sort("at")
        if timeframe != "12Month":
            return rows
        year = rows.group_by(pl.col("at").dt.year().alias("year"), maintain_order=True)
        return year.agg(pl.all().first()).with_columns(at=pl.datetime("year", 1, 1, 5, time_zone="UTC")).drop("year")

    def _corporate_actions(self, query: Mapping[str, str]) -> tuple[int, object]:
        kinds = {kind + "s" for kind in query.get("types", "").split(",") if kind}
        symbols = set(query["symbols"].split(","))
        chosen = sorted(
            (item["process_date"], kind, item["id"], item)
            for kind, items in self._corporate.items()
            for item in items
            if (not kinds or kind in kinds)
            and symbols & {item.get(name) for name in ("symbol", "old_symbol", "new_symbol", "source_symbol", "acquiree_symbol")}
            and query["start"] <= item["process_date"] <= query["end"]
        )
        skip = int(query.get("page_token", "0"))
        upto = skip + min(int(query.get("limit", _DEFAULT_LIMIT)), self.page_rows)
        page: dict[str, list[object]] = {}
        for _, kind, _, item in chosen[skip:upto]:
            page.setdefault(kind, []).append(item)
        return 200, {"corporate_actions": page, "next_page_token": str(upto) if upto < len(chosen) else None}

    def _listed(self) -> dict[str, list[dict[str, Any]]]:
        listed: dict[str, list[dict[str, Any]]] = {kind: [dict(item) for item in items] for kind, items in self.corporate.items()}
        for ex_date, symbol, kind, value, pay_date in () if self.actions is None else self.actions.iter_rows():
            dates = {"ex_date": str(ex_date), "symbol": symbol, "cusip": "000000000"}
            if kind == "dividend":
                paid = pay_date or ex_date + timedelta(days=20)
                item = {**dates, "rate": value, "special": False, "foreign": False, "process_date": str(paid)}
                item |= {"payable_date": str(pay_date)} if pay_date else {}
                listed.setdefault("cash_dividends", []).append(item)
            else:
                old = 1 if value >= 1 else round(1 / value)
                item = {**dates, "new_rate": value * old, "old_rate": old, "process_date": str(ex_date)}
                listed.setdefault("forward_splits" if value >= 1 else "reverse_splits", []).append(item)
        for company in self.companies:
            for (_, old), (day, new) in pairwise(company):
                change = {"old_symbol": old, "new_symbol": new, "old_cusip": "0", "new_cusip": "0", "process_date": str(day)}
                listed.setdefault("name_changes", []).append(change)
        return {kind: [{"id": f"{kind}-{n:06}", **item} for n, item in enumerate(items)] for kind, items in listed.items()}


class _Handler(BaseHTTPRequestHandler):
    alpaca: AlpacaServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = Asked(path=address.path, query=dict(parse_qsl(address.query)), headers=dict(self.headers))
        self.alpaca.asked.append(asked)
        fault = self.alpaca.faults.popleft() if self.alpaca.faults else Fault.NONE
        html = b"<html><body>Bad   Gateway</body></html>"
        match fault:
            case Fault.CUT:
                self.close_connection = True
            case Fault.SILENT:
                clock.sleep(1)
                self.close_connection = True
            case Fault.HALF:
                body = json.dumps(self.alpaca.reply(asked)[1]).encode()
                self._send(200, body[: len(body) // 2], length=len(body))
                self.close_connection = True
            case Fault.TOO_MANY:
                self._send(429, b'{"code":42910000,"message":"too many requests."}', more={"Retry-After": "7"})
            case Fault.LIMIT_REACHED:
                self._send(429, b'{"message":"too many requests."}')
            case Fault.BROKEN:
                self._send(500, b'{"code":50010000,"message":"internal server error occurred"}')
            case Fault.GATEWAY:
                self._send(504, html, kind="text/html")
            case Fault.EMPTY:
                self._send(200, b"")
            case Fault.REDIRECT:
                self._send(302, b"", more={"Location": "/elsewhere"})
            case Fault.HTML:
                self._send(200, html, kind="text/html")
            case Fault.LIST:
                self._send(200, b"[]")
            case Fault.NO_DATA:
                self._send(200, b'{"message":"ok"}')
            case Fault.NONE:
                status, reply = self.alpaca.reply(asked)
                self._send(status, json.dumps(reply).encode())

    def _send(
        self, status: int, body: bytes, *, kind: str = "application/json", length: int | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        limits = {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": str(self.alpaca.remaining)}
        limits["X-RateLimit-Reset"] = str(int(self.alpaca.reset_at.timestamp()))
        size = len(body) if length is None else length
        headers = {"Content-Type": kind, "Content-Length": str(size), **limits, **(more or {})}
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + body)

    def log_message(self, *_: object) -> None:
        pass


def _by_symbol(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {str(symbol): frame for (symbol,), frame in rows.sort("at", maintain_order=True).partition_by("symbol", as_dict=True).items()}


def _ticker(company: Sequence[tuple[date, str]], day: date) -> str | None:
    return next((ticker for first, ticker in reversed(company) if first <= day), None)


def _json_bars(rows: pl.DataFrame) -> list[dict[str, Any]]:
    written = rows.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).select(pl.col(list(_BAR)).name.map(_BAR.__getitem__))
    return [{**bar, "n": 1} for bar in written.to_dicts()]


def _sessions(first: date, last: date) -> Sequence[date]:
    return exchange_calendar().sessions(first, last)


def _day(day: date, close: time) -> dict[str, str]:
    return {"date": str(day), "open": "09:30", "close": f"{close:%H:%M}", "session_open": "0400", "session_close": "2000"}


def _asset(symbol: str, *, active: bool) -> dict[str, object]:
    can = dict.fromkeys(("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable"), True)
    status = "active" if active else "inactive"
    return {"id": f"id-{symbol}", "class": "us_equity", "exchange": "NASDAQ", "symbol": symbol, "name": symbol, "status": status, **can}
