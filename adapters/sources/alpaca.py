"""Source ``alpaca``: raw daily bars and corporate actions of Alpaca's market data, from 2016 on, for a list of symbols.

Names: a company that was renamed is one series under the name it has in the universe. ``asof`` is the day on which the universe's symbols
were these companies' names; it stays as it is, so that what was loaded once comes back the same. "-" takes every symbol as it was traded,
whoever had it.

Daily bars: open and close are the first and last regular trades of the day, volume counts extended hours too. Feed ``sip`` is all
exchanges; ``iex`` is one of them, about 2.5 % of the volume.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from polars.exceptions import PolarsError

from adapters.sources.alpaca_actions import Unapplied, dated_values, is_due, malformed, name_change, renames
from adapters.sources.published import with_published_returns
from adapters.sources.span import require_reachable
from quant.errors import InputError, expected
from quant.ports import AdjustmentConvention, Announcement, SourceFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from adapters.alpaca_rest import Reader
    from adapters.sources.alpaca_actions import Dated
    from quant.calendar import ExchangeCalendar
    from quant.ports import Clock

_LOG = logging.getLogger(__name__)
_WHERE = "source alpaca"
_PAGE_ROWS = 10_000  # the most that a page of bars may have
_PAGE_ACTIONS = 1000  # and of corporate actions
_SYMBOLS_AT_ONCE = 200  # an address has to stay below 8 kB
_LONGEST_CLOSURE = timedelta(days=14)
_ANNOUNCED = timedelta(days=7)
_PAID = timedelta(days=200)
_RENAMES_IN_A_ROW = 5
_RAW = {"t": pl.String(), **dict.fromkeys("ohlcv", pl.Float64()), "vw": pl.Float64()}
_OURS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vw": "vwap"}
_BARS = ["session", "symbol", *_OURS.values()]
_ACTIONS = {
    "ex_date": pl.Date(),
    "symbol": pl.String(),
    "kind": pl.String(),
    "value": pl.Float64(),
    "pay_date": pl.Date(),
    "new_symbol": pl.String(),
}
_ASSETS = {
    **dict.fromkeys(("symbol", "name", "exchange", "status"), pl.String()),
    **dict.fromkeys(("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable"), pl.Boolean()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlpacaKeys:
    """Of one account. Not in its repr, so in no log and in no message."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """From ``day`` on, what was traded as ``old`` is traded as ``new``."""

    day: date
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A symbol under which a company traded from ``first`` to ``last``."""

    symbol: str
    first: date = date.min
    last: date = date.max


class AlpacaSource:
    """Bars and actions of ``universe``. Never ends; a session can be had ``publish_delay_minutes`` after its close. Nothing is asked of
    the network, and no key needed, before the first question.
    """

    def __init__(
        self,
        *,
        universe: Sequence[str],
        keys: Callable[[], AlpacaKeys],
        calendar: ExchangeCalendar,
        clock: Clock,
        asof: date | Literal["-"],
        first_session: date,
        convention: AdjustmentConvention,
        publish_delay_minutes: int,
        feed: Literal["sip", "iex"] = "sip",
        data_url: str | None = None,
        trading_url: str | None = None,
        adjusted_closes: bool = False,
    ) -> None:
        """The addresses replace Alpaca's own (those of the paper account), without a version. ``adjusted_closes``: ask for these, too, so
        that rule 23 has something to compare with; it is a second request for every one of bars.
        """
        if not universe:
            raise InputError(expected("symbols", found="none", where=f"universe of {_WHERE}", do="list them"))
        self._universe = sorted(set(universe))
        self._keys, self._calendar, self._clock = keys, calendar, clock
        self._asof: date | Literal["-"] = asof
        self._first = first_session
        self._feed = feed
        self._data_url, self._trading_url = data_url, trading_url
        self._facts = SourceFacts(
            name="alpaca", convention=convention, publish_delay_minutes=publish_delay_minutes, absent=frozenset(), finite=False
        )
        self._adjusted_closes = adjusted_closes
        self._known: set[str] = set()

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def first_session(self) -> date:
        return self._calendar.on_or_after(self._first)

    def last_session(self, now: datetime) -> date:
        """The newest session whose bars are out."""
        today = self._calendar.on_or_before(now.astimezone(self._calendar.zone).date())
        lately = self._calendar.sessions(today - _LONGEST_CLOSURE, today)
        return max(day for day in lately if self._calendar.publish_at(day, self._facts.publish_delay_minutes) <= now)

    def bars(self, first: date, last: date) -> pl.DataFrame:
        has = (self.first_session(), self.last_session(self._clock.now()))
        do = f"ask for what it has; a session comes {self._facts.publish_delay_minutes} minutes after its close"
        if not require_reachable(first, last, has=has, calendar=self._calendar, where=_WHERE, do=do):
            return pl.Schema({name: pl.Date() if name == "session" else _type(name) for name in _BARS}).to_frame(eager=True)
        # A daily bar is stamped with its day's midnight: asking up to there, and not for minutes that no plan has yet.
        rows = self._rows("1Day", self._universe, _midnight(first, self._calendar), _midnight(last, self._calendar))
        self._require_known(set(self._universe) - set(rows["symbol"]))
        session = pl.col("at").dt.convert_time_zone(self._calendar.zone.key).dt.date()
        dated = rows.with_columns(session=session).select(_BARS)
        wanted = dated.filter(pl.col("session").is_between(first, last)).sort("session", "symbol", maintain_order=True)
        if not self._adjusted_closes:
            return wanted
        published = self._published(first, last).with_columns(session=session).select("session", "symbol", adj_close="close")
        returns = with_published_returns(published.unique(["session", "symbol"], keep="none"), self._calendar)
        return wanted.join(returns, on=["session", "symbol"], how="left", maintain_order="left")

    def _published(self, first: date, last: date) -> pl.DataFrame:
        """Adjusted bars from the session before ``first`` on, all as seen from one moment."""
        eve = self._calendar.previous(self._calendar.on_or_after(first))
        start = _midnight(max(eve, self.first_session()), self._calendar)
        return self._rows("1Day", self._universe, start, _midnight(last, self._calendar), adjustment="all")

    def actions(self, first: date, last: date) -> pl.DataFrame:
        """As the port has it, with new_symbol. Dividends of one day are added up, splits multiplied; a spin-off is worth what it opened at;
        a merger or a removal delists at what a share became worth. With ``asof`` "-" a name change is a rename. What Alpaca lists of other
        kinds (redemptions, rights, units) nothing applies: the log names it, and so does ``announcements``.
        """
        made, owners = self._made(first, last)
        for item in made:
            if isinstance(item, Unapplied):
                _LOG.warning("source alpaca: %s", item)
        rows = [
            (act.ex_date, label, act.kind, act.value, act.pay_date, act.new_symbol)
            for act in made
            if not isinstance(act, Unapplied)
            for label, name in owners.get(act.symbol, ())
            if first <= act.ex_date <= last and name.first <= act.ex_date <= name.last
        ]
        frame = pl.DataFrame(rows, schema=_ACTIONS, orient="row")
        value = pl.col("value")
        one = pl.when(pl.col("kind").first() == "split").then(value.product()).otherwise(value.sum())
        rest = pl.col("pay_date").max(), pl.col("new_symbol").first()
        return frame.group_by("ex_date", "symbol", "kind").agg(one, *rest).sort("ex_date", "symbol", "kind")

    def _made(self, first: date, last: date) -> tuple[list[Dated | Unapplied], dict[str, list[tuple[str, Name]]]]:
        """Every action of first..last, and traded symbol -> symbols of the universe whose company had it, and when."""
        names = self._names(first, last)
        owners: dict[str, list[tuple[str, Name]]] = {}
        for label, spans in names.items():
            for name in spans:
                owners.setdefault(name.symbol, []).append((label, name))
        # Alpaca selects by the day on which it processes an action, which for a dividend is the day it is paid.
        processed = self._listed_actions(sorted(owners), first - _ANNOUNCED, last + _PAID)
        listed = {kind: [item for item in items if is_due(item, first, last)] for kind, items in processed.items()}
        changes = listed.pop("name_changes", []) if self._asof == "-" else []
        return [*dated_values(listed, self._first_open, self._close_before), *renames(changes, set(self._universe))], owners

    def announcements(self, first: date, last: date, traded: Collection[str]) -> Sequence[Announcement]:
        """Corporate actions of first..last that nothing applies; days on which Alpaca has other hours than the calendar here; and, if
        ``last`` is beyond the newest session that is out, symbols that traded in that one and cannot be traded any more.
        """
        made, owners = self._made(first, last)
        told = [
            Announcement(
                day=item.day,
                symbol=label,
                what="action_not_applied",
                expected=f"an action that prices and holdings follow; {item.do}",
                observed=item.what,
                evidence=item.evidence,
            )
            for item in made
            if isinstance(item, Unapplied)
            for label in sorted({label for label, _ in owners.get(item.symbol, [(item.symbol, None)])})
        ]
        told += self._other_hours(first, last)
        newest = self.last_session(self._clock.now())
        if last > newest:  # what can be traded now says nothing of an older session
            told += self._untradable(newest, traded)
        return told

    def _other_hours(self, first: date, last: date) -> Iterator[Announcement]:
        theirs = {day: hours for day, *hours in self.calendar(first, last).iter_rows()}
        ours = {day: [self._calendar.open_at(day), self._calendar.close_at(day)] for day in self._calendar.sessions(first, last)}
        for day in sorted(theirs.keys() | ours.keys()):
            if theirs.get(day) != ours.get(day):
                yield Announcement(
                    day=day,
                    symbol="*",
                    what="other_hours",
                    expected=f"{self._hours(ours.get(day))}, as the calendar here has it; a newer version of the product may know",
                    observed=self._hours(theirs.get(day)),
                    evidence="source alpaca, /calendar",
                )

    def _hours(self, hours: Sequence[datetime] | None) -> str:
        if hours is None:
            return "closed"
        return " to ".join(f"{at.astimezone(self._calendar.zone):%H:%M}" for at in hours) + " " + self._calendar.zone.key

    def _untradable(self, session: date, traded: Collection[str]) -> Iterator[Announcement]:
        listed = self.assets()
        now = {label: spans[-1].symbol for label, spans in self._names(session, session).items()}
        active = set(listed.filter(pl.col("status") == "active", pl.col("tradable"))["symbol"])
        said = dict(listed.select("symbol", pl.format("{}, tradable {}", "status", "tradable")).iter_rows())
        for label in sorted(set(traded) & now.keys()):
            if now[label] not in active:
                yield Announcement(
                    day=session,
                    symbol=label,
                    what="not_tradable",
                    expected="a symbol with bars to be active and tradable; if it was delisted or renamed, record that as an action",
                    observed=said.get(now[label], "unknown"),
                    evidence=f"source alpaca, /assets, {now[label]}",
                )

    def minute_bars(self, first: date, last: date) -> pl.DataFrame:
        """started_at (UTC), symbol, open, high, low, close, volume, vwap of every minute of the days first..last (New York) with a trade,
        extended hours included; sorted by symbol and time.
        """
        end = _midnight(last + timedelta(days=1), self._calendar) - timedelta(seconds=1)
        rows = self._rows("1Min", self._universe, _midnight(first, self._calendar), min(end, self._out_by()))
        return rows.rename({"at": "started_at"}).select("started_at", *_BARS[1:]).sort("symbol", "started_at", maintain_order=True)

    def calendar(self, first: date, last: date) -> pl.DataFrame:
        """session, open_at, close_at (UTC) of Alpaca's own calendar from first to last."""
        listed = self._trading.listed("/calendar", {"start": first.isoformat(), "end": last.isoformat()})
        try:
            rows = [(date.fromisoformat(day["date"]), *(self._instant(day, name) for name in ("open", "close"))) for day in listed]
        except (KeyError, TypeError, ValueError) as error:
            raise malformed("days with date, open and close", repr(error), "/calendar") from None
        instant = pl.Datetime("us", "UTC")
        frame = pl.DataFrame(rows, schema={"session": pl.Date(), "open_at": instant, "close_at": instant}, orient="row")
        return frame.filter(pl.col("session").is_between(first, last)).sort("session")

    def assets(self) -> pl.DataFrame:
        """Every US stock that Alpaca lists now or did: symbol, name, exchange, status (active | inactive), what may be done with it."""
        listed = self._trading.listed("/assets", {"asset_class": "us_equity"})
        try:
            return pl.from_dicts(listed, schema=_ASSETS).sort("symbol", "status", maintain_order=True)
        except (PolarsError, TypeError) as error:
            raise malformed("assets", str(error), "/assets") from None

    @cached_property
    def _stocks(self) -> Reader:
        from alpaca.data.historical.stock import StockHistoricalDataClient

        from adapters.alpaca_rest import Reader

        keys = self._keys()
        return Reader(StockHistoricalDataClient(keys.key_id, keys.secret, raw_data=True, url_override=self._data_url), self._clock)

    @cached_property
    def _corporate(self) -> Reader:
        from alpaca.data.historical.corporate_actions import CorporateActionsClient

        from adapters.alpaca_rest import Reader

        keys = self._keys()
        return Reader(CorporateActionsClient(keys.key_id, keys.secret, raw_data=True, url_override=self._data_url), self._clock)

    @cached_property
    def _trading(self) -> Reader:
        from alpaca.trading.client import TradingClient

        from adapters.alpaca_rest import Reader

        keys = self._keys()
        client = TradingClient(keys.key_id, keys.secret, paper=True, raw_data=True, url_override=self._trading_url)
        return Reader(client, self._clock)

    def _out_by(self) -> datetime:
        """The instant up to which minutes are out."""
        return self._clock.now() - timedelta(minutes=self._facts.publish_delay_minutes)

    def _instant(self, day: Mapping[str, str], name: str) -> datetime:
        return datetime.combine(date.fromisoformat(day["date"]), time.fromisoformat(day[name]), self._calendar.zone).astimezone(UTC)

    def _rows(
        self,
        timeframe: str,
        symbols: Sequence[str],
        start: datetime,
        end: datetime,
        *,
        adjustment: Literal["raw", "all"] = "raw",
        asof: date | Literal["-"] | None = None,
    ) -> pl.DataFrame:
        """The instant ``at`` (UTC), symbol and the columns of a bar, of those symbols only, page by page. ``asof`` replaces that of the
        universe.
        """
        asked = {
            "timeframe": timeframe,
            "start": start.isoformat(),
            "end": end.isoformat(),
            "feed": self._feed,
            "asof": str(asof or self._asof),
            "adjustment": adjustment,
            "limit": _PAGE_ROWS,
            "sort": "asc",
        }
        frames = [
            _bar_rows(page)
            for some in _portions(symbols)
            for page in self._stocks.pages("/stocks/bars", {**asked, "symbols": ",".join(some)}, "bars")
        ]
        return pl.concat([_bar_rows({}), *frames]).filter(pl.col("symbol").is_in(list(symbols)))

    def _first_open(self, symbol: str, day: date) -> float | None:
        """Raw open of any symbol in the first session from a day on that it traded in; None while that is not out."""
        return self._priced(symbol, day, day + _LONGEST_CLOSURE, "open", asof="-", at=0)

    def _close_before(self, symbol: str, day: date) -> float | None:
        """Raw close before a day, in the last session with a trade, of any symbol: as it was called then, or is from that day on."""
        span = day - _LONGEST_CLOSURE, day - timedelta(days=1)
        closes = (self._priced(symbol, *span, "close", asof=asof) for asof in ("-", day))
        return next((close for close in closes if close is not None), None)

    def _priced(self, symbol: str, first: date, last: date, name: str, *, asof: date | Literal["-"], at: int = -1) -> float | None:
        """Of the last session in first..last, or that number ``at``. ``asof`` is not that of the universe: on that day the symbol may be
        another company's. One that Alpaca refuses has no price.
        """
        end = min(last, self.last_session(self._clock.now()))
        if first > end:
            return None
        span = _midnight(first, self._calendar), _midnight(end, self._calendar)
        try:
            rows = self._rows("1Day", [symbol], *span, asof=asof).sort("at")
        except InputError as error:
            _LOG.warning("%s", error)
            return None
        return None if rows.is_empty() else rows[name][at]

    def _require_known(self, without_bars: set[str]) -> None:
        """InputError for a symbol that never had a bar. One without bars today may be halted, delisted or not yet listed."""
        if unsure := sorted(without_bars - self._known):
            begin, now = self.first_session().replace(month=1, day=1), self._clock.now()
            years = self._rows("12Month", unsure, _midnight(begin, self._calendar), _midnight(self.last_session(now), self._calendar))
            self._known |= set(years["symbol"])
            if unknown := [symbol for symbol in unsure if symbol not in self._known]:
                found, do = f"unknown {', '.join(unknown[:10])}", "correct the universe, or the day asof on which these were its names"
                raise InputError(expected(f"symbols that had a bar since {begin:%Y}", found=found, where=_WHERE, do=do))

    def _names(self, first: date, last: date) -> dict[str, list[Name]]:
        """Symbol of the universe -> the names its company had."""
        if self._asof == "-":
            return {label: [Name(symbol=label)] for label in self._universe}
        changes: set[Rename] = set()
        asked: set[str] = set()
        wanted = set(self._universe)
        for _ in range(_RENAMES_IN_A_ROW):
            listed = self._listed_actions(sorted(wanted), min(first, self._asof), max(last, self._asof), types="name_change")
            named = (name_change(item) for item in listed.get("name_changes", []))
            changes |= {Rename(day=day, old=old, new=new) for day, old, new in named}
            asked |= wanted
            wanted = {symbol for change in changes for symbol in (change.old, change.new)} - asked
            if not wanted:
                break
        return {label: names_of(label, self._asof, changes) for label in self._universe}

    def _listed_actions(self, symbols: Sequence[str], first: date, last: date, **more: str) -> dict[str, list[dict[str, Any]]]:
        """Kind, in Alpaca's words -> what was processed from first to last; each once, in a stable order."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        asked = {"start": first.isoformat(), "end": last.isoformat(), "limit": _PAGE_ACTIONS, "sort": "asc", **more}
        for some in _portions(symbols):
            for page in self._corporate.pages("/corporate-actions", {**asked, "symbols": ",".join(some)}, "corporate_actions"):
                for kind, items in page.items():
                    found.setdefault(kind, {}).update((json.dumps(item, sort_keys=True), item) for item in items or ())
        return {kind: [items[content] for content in sorted(items)] for kind, items in found.items()}


def names_of(label: str, asof: date, changes: Iterable[Rename]) -> list[Name]:
    """The names of the company that was called ``label`` on ``asof``, oldest first, without gaps: the ticker alone may have been another
    company's before and after.
    """
    ordered = sorted(changes, key=lambda change: (change.day, change.old, change.new))
    starts: list[tuple[date, str]] = []
    symbol, at = label, asof
    for change in reversed(ordered):
        if change.new == symbol and change.day <= at:
            starts.insert(0, (change.day, symbol))
            symbol, at = change.old, change.day - timedelta(days=1)
    starts.insert(0, (date.min, symbol))
    symbol, at = label, asof
    for change in ordered:
        if change.old == symbol and change.day > at:
            starts.append((change.day, change.new))
            symbol, at = change.new, change.day
    ends = [*(day - timedelta(days=1) for day, _ in starts[1:]), date.max]
    return [Name(symbol=symbol, first=first, last=last) for (first, symbol), last in zip(starts, ends, strict=True)]


def _bar_rows(page: Mapping[str, Any]) -> pl.DataFrame:
    """The instant ``at`` (UTC), symbol, and a bar's columns; values that are missing are null."""
    try:
        symbols = [symbol for symbol, rows in page.items() for _ in rows or ()]
        raw = pl.from_dicts([row for rows in page.values() for row in rows or ()], schema=_RAW)
    except (PolarsError, TypeError, AttributeError) as error:
        raise malformed("bars with t, o, h, l, c, v, vw", str(error), "/stocks/bars") from None
    at = raw["t"].str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    if at.null_count():
        raise malformed("a time t in every bar", repr(raw.filter(at.is_null())["t"][0]), "/stocks/bars")
    return raw.select(at.alias("at"), pl.Series("symbol", symbols, dtype=pl.String), pl.col(list(_OURS)).name.map(_OURS.__getitem__))


def _portions(symbols: Sequence[str]) -> Iterator[Sequence[str]]:
    return (symbols[at : at + _SYMBOLS_AT_ONCE] for at in range(0, len(symbols), _SYMBOLS_AT_ONCE))


def _midnight(day: date, calendar: ExchangeCalendar) -> datetime:
    return datetime.combine(day, time(), calendar.zone).astimezone(UTC)


def _type(column: str) -> pl.DataType:
    return pl.String() if column == "symbol" else pl.Float64()
