"""Alpaca's corporate actions in our words: kind, value and day of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from quant.errors import FeedFaultError, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

_PATH = "source alpaca, /corporate-actions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """One action as table corporate_actions has it, under the symbol that Alpaca names."""

    ex_date: date
    symbol: str
    kind: str
    value: float
    pay_date: date | None = None
    new_symbol: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unapplied:
    """An action that nothing here applies to prices or holdings, and what a person can do."""

    day: date
    symbol: str
    what: str
    do: str
    item: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.what} of {self.symbol}, {self.day}, not applied to prices or holdings; {self.do}: {self.evidence}"

    @property
    def evidence(self) -> str:
        """The item as Alpaca sent it."""
        return json.dumps(self.item, sort_keys=True)


def dated_values(
    listed: Mapping[str, list[dict[str, Any]]],
    first_open: Callable[[str, date], float | None],
    close_before: Callable[[str, date], float | None],
) -> Iterator[Dated | Unapplied]:
    """All but name changes, by Alpaca's kind. ``first_open`` and ``close_before`` price any symbol from a day on and before it, or know no
    price. FeedFaultError for what has no meaning.
    """
    for kind, items in listed.items():
        if kind in _VALUES:
            yield from (_paid(kind, item) for item in items if not _is_nothing(kind, item))
        elif kind == "spin_offs":
            yield from _known(kind, items, lambda item: _spun_off(item, first_open))
        elif kind in _ENDINGS:
            yield from _known(kind, items, lambda item, kind=kind: _ended(kind, item, close_before))
        elif kind != "name_changes":
            yield from (_unapplied(kind, item, "nothing here stands for it: book it by hand if it is held") for item in items)


def renames(changes: Iterable[Mapping[str, Any]], universe: Collection[str]) -> Iterator[Dated | Unapplied]:
    """Name changes as renames, where both names are of the universe: a holding must not go to a symbol that has no bars here."""
    for item in changes:
        day, old, new = name_change(item)
        if old in universe and new not in universe:
            yield Unapplied(day=day, symbol=old, what=f"name change to {new}", do=f"add {new} to the universe to follow it", item=item)
        elif old in universe and new != old:  # else the company's name or its CUSIP changed
            yield Dated(ex_date=day, symbol=old, kind="rename", value=1.0, new_symbol=new)


def name_change(item: Mapping[str, Any]) -> tuple[date, str, str]:
    """Day, old and new symbol; FeedFaultError without one of them."""
    try:
        if item["old_symbol"] and item["new_symbol"]:
            return date.fromisoformat(item["process_date"]), str(item["old_symbol"]), str(item["new_symbol"])
    except (KeyError, TypeError, ValueError):
        pass
    raise malformed("name_changes with process_date, old_symbol and new_symbol", json.dumps(item, sort_keys=True), _PATH)


def is_due(item: Mapping[str, Any], first: date, last: date) -> bool:
    """Whether an action goes ex, or into effect, from first to last; one without a day counts, for what reads it to refuse."""
    try:
        return first <= _day(item) <= last
    except (KeyError, TypeError, ValueError):
        return True


def malformed(what: str, found: str, path: str) -> FeedFaultError:
    """The error for a reply of another form."""
    where = path if path.startswith("source alpaca") else f"source alpaca, {path}"
    return FeedFaultError(expected(what, found=found[:400], where=where, do="run this again; if it stays so, report it to Alpaca"))


def _day(item: Mapping[str, Any]) -> date:
    """The day on which it takes effect, where that is known; else its ex-date or, of a kind without one, the day that it is processed."""
    return date.fromisoformat(item.get("effective_date") or item["ex_date" if "ex_date" in item else "process_date"])


def _is_nothing(kind: str, item: Mapping[str, Any]) -> bool:
    """A dividend of nothing is none."""
    return kind == "cash_dividends" and item.get("rate") in (0, 0.0, "0")


def _paid(kind: str, item: Mapping[str, Any]) -> Dated:
    ours, value_of = _VALUES[kind]
    try:
        made = Dated(
            ex_date=date.fromisoformat(item["ex_date"]),
            symbol=str(item["symbol"]),
            kind=ours,
            value=value_of(item),
            pay_date=date.fromisoformat(item["payable_date"]) if item.get("payable_date") else None,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        made = None
    if made is None or not 0 < made.value < float("inf"):
        raise malformed(f"{kind} with ex_date, symbol and a rate above zero", json.dumps(item, sort_keys=True), _PATH)
    return made


def _known(kind: str, items: list[dict[str, Any]], made_of: Callable[[Mapping[str, Any]], Dated | None]) -> Iterator[Dated | Unapplied]:
    """What ``made_of`` makes, or has no price for. FeedFaultError for items that lack what their kind has."""
    for item in items:
        try:
            made = made_of(item)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise malformed(f"{kind} with its symbols, day and rates", json.dumps(item, sort_keys=True), _PATH) from None
        if made is None:
            yield _unapplied(kind, item, "what was given for it has no price yet")
        elif not 0 <= made.value < float("inf"):
            raise malformed(f"{kind} with rates that are not negative", json.dumps(item, sort_keys=True), _PATH)
        else:
            yield made


def _spun_off(item: Mapping[str, Any], first_open: Callable[[str, date], float | None]) -> Dated | None:
    """Worth the first open of what was given, times how much of it a share got."""
    ex_date, given = date.fromisoformat(item["ex_date"]), str(item["new_symbol"])
    share = float(item["new_rate"]) / float(item["source_rate"])
    opened = first_open(given, ex_date)
    if opened is None:
        return None
    return Dated(ex_date=ex_date, symbol=str(item["source_symbol"]), kind="spinoff", value=opened * share, new_symbol=given)


def _ended(kind: str, item: Mapping[str, Any], close_before: Callable[[str, date], float | None]) -> Dated | None:
    """A delisting at what a share became worth: cash, shares of the acquirer at their close before, or nothing."""
    day = _day(item)
    if kind == "worthless_removals":
        return Dated(ex_date=day, symbol=str(item["symbol"]), kind="delisting", value=0.0)
    if kind == "cash_mergers":
        return Dated(ex_date=day, symbol=str(item["acquiree_symbol"]), kind="delisting", value=float(item["rate"]))
    close = close_before(str(item["acquirer_symbol"]), day)
    if close is None:
        return None
    stock = close * float(item["acquirer_rate"]) / float(item["acquiree_rate"])
    cash = float(item["cash_rate"]) if kind == "stock_and_cash_mergers" else 0.0
    return Dated(ex_date=day, symbol=str(item["acquiree_symbol"]), kind="delisting", value=stock + cash)


def _unapplied(kind: str, item: Mapping[str, Any], do: str) -> Unapplied:
    """FeedFaultError for one without a day."""
    try:
        day = _day(item)
    except (KeyError, TypeError, ValueError):
        raise malformed(f"{kind} with its day", json.dumps(item, sort_keys=True), _PATH) from None
    symbol = next((str(item[name]) for name in _SYMBOLS if item.get(name)), "*")
    return Unapplied(day=day, symbol=symbol, what=kind, do=do, item=item)


_SYMBOLS = ("symbol", "old_symbol", "source_symbol", "acquiree_symbol")
_ENDINGS = ("cash_mergers", "stock_mergers", "stock_and_cash_mergers", "worthless_removals")
_VALUES: dict[str, tuple[str, Callable[[Mapping[str, Any]], float]]] = {
    "cash_dividends": ("dividend", lambda item: float(item["rate"])),
    "forward_splits": ("split", lambda item: float(item["new_rate"]) / float(item["old_rate"])),
    "reverse_splits": ("split", lambda item: float(item["new_rate"]) / float(item["old_rate"])),
    "stock_dividends": ("split", lambda item: 1 + float(item["rate"])),  # shares a share
}
"""Alpaca's kind -> ours, and the value of one."""
