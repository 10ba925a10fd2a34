"""What the market shows a book in one session: prices, liquidity, corporate actions. Made the same way for a day and for a range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from math import prod

import polars as pl

from quant.calendar import ExchangeCalendar
from quant.market.securities import as_traded

LIQUIDITY_SESSIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporateAction:
    """One action of one symbol; kind, value, pay_date and new_symbol as in table corporate_actions."""

    symbol: str
    ex_date: date
    kind: str
    value: float
    known_at: datetime
    pay_date: date | None = None
    new_symbol: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMarket:
    """One session. Prices are raw, USD per share, of accepted bars only: a symbol without one is not in the mappings.

    ``median_volume`` is the median of the last 20 sessions' volumes through this session, ``prior_median_volume`` through the session
    before; both in shares on this session's basis. ``actions`` go ex in this session, ``upcoming`` in the next one, as far as known;
    ``late`` ones went ex before it and became known too late for their own session. ``previous`` is the session before; None if that is
    nobody's business: no interest is charged then.
    """

    session: date
    previous: date | None = None
    opens: Mapping[str, float] = field(default_factory=dict[str, float])
    closes: Mapping[str, float] = field(default_factory=dict[str, float])
    median_volume: Mapping[str, float] = field(default_factory=dict[str, float])
    prior_median_volume: Mapping[str, float] = field(default_factory=dict[str, float])
    actions: Sequence[CorporateAction] = ()
    upcoming: Sequence[CorporateAction] = ()
    late: Sequence[CorporateAction] = ()

    def upcoming_split_ratio(self, symbol: str) -> float:
        """New shares per old from the splits known to go ex in the next session."""
        return prod(a.value for a in self.upcoming if a.symbol == symbol and a.kind == "split")


def liquidity(adjusted: pl.DataFrame, calendar: ExchangeCalendar) -> pl.DataFrame:
    """``adjusted`` (rows of adjusted_bars) with median_volume and prior_median_volume, null where no earlier session is in reach.

    The window is 20 exchange sessions whether or not the symbol traded in all of them, so a day and a range see the same one.
    Volumes are brought onto the row's share basis by the split index.
    """
    places = pl.DataFrame({"session": list(calendar.days)}, schema={"session": pl.Date}).with_row_index("place")
    units, window = pl.col("volume") / pl.col("split_index"), f"{LIQUIDITY_SESSIONS}i"

    def median(closed: str) -> pl.Expr:
        return units.rolling_median_by("place", window, closed=closed).over("symbol") * pl.col("split_index")  # type: ignore[arg-type]

    return (
        adjusted.join(places, on="session", how="left")
        .with_columns(pl.col("place").cast(pl.Int64))
        .sort("symbol", "place")
        .with_columns(median("right").alias("median_volume"), median("left").alias("prior_median_volume"))
        .drop("place")
    )


def corporate_actions(rows: pl.DataFrame) -> tuple[CorporateAction, ...]:
    """Rows of corporate_actions as values, by ex-date, symbol, kind and value."""
    names = [field.name for field in fields(CorporateAction) if field.name in rows.columns]
    ordered = rows.sort("ex_date", "symbol", "kind", "value")
    return tuple(CorporateAction(**{name: row[name] for name in names}) for row in ordered.iter_rows(named=True))


def session_markets(
    adjusted: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sequence[date],
    calendar: ExchangeCalendar,
    *,
    known_by: Callable[[date], datetime],
) -> Iterator[SessionMarket]:
    """One SessionMarket for each of ``sessions``, in order.

    ``adjusted``: rows of adjusted_bars, from at least 20 sessions before the first one on. ``actions``: the newest known version of each
    corporate action (ex_date, symbol, kind, value, known_at; pay_date and new_symbol where a source has them). Rows of one security
    (quant.market.securities) share their window, and a session has the symbols that traded in it. ``known_by`` gives a session's
    decision instant: an action that becomes known after it is not upcoming.
    """
    wanted = ["session", "symbol", "open", "close", "median_volume", "prior_median_volume"]
    table = as_traded(liquidity(adjusted, calendar).filter(pl.col("session").is_in(sessions)), adjusted).select(wanted)
    by_session = {key[0]: part for key, part in table.partition_by("session", as_dict=True).items()}
    ex: dict[date, list[CorporateAction]] = {}
    for action in corporate_actions(actions):
        ex.setdefault(action.ex_date, []).append(action)
    for session in sessions:
        bars = by_session.get(session, table.clear())
        symbols = bars["symbol"].to_list()

        def column(name: str, bars: pl.DataFrame = bars, symbols: list[str] = symbols) -> dict[str, float]:
            return {s: v for s, v in zip(symbols, bars[name].to_list(), strict=True) if v is not None}

        instant = known_by(session)
        yield SessionMarket(
            session=session,
            previous=calendar.previous(session),
            opens=column("open"),
            closes=column("close"),
            median_volume=column("median_volume"),
            prior_median_volume=column("prior_median_volume"),
            actions=tuple(ex.get(session, ())),
            upcoming=tuple(a for a in ex.get(calendar.next(session), ()) if a.known_at <= instant),
        )
