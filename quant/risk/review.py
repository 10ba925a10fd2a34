"""The review between a proposed order and the broker. Limits fail closed for openings; what only shrinks a holding passes nearly all."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, Decimal
from functools import cache
from importlib import import_module
from math import isfinite
from pkgutil import iter_modules
from typing import TYPE_CHECKING, TypeGuard

import quant.risk.limits
from quant.risk.limit import Limit, OrderLimit, PortfolioLimit
from quant.trading.orders import Denial, Order, OrderEvent, next_state
from quant.units import ZERO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quant.risk.limit import Exposure
    from quant.risk.settings import RiskSettings

_ONE = Decimal(1)
_ROUNDING = 1e-12  # of a sum of weights: what adding them in another order changes


@cache
def limits() -> tuple[Limit, ...]:
    """Every limit in quant/risk/limits: those that bind every order, other ones on single orders, those on the portfolio; then by name."""
    modules = [import_module(f"quant.risk.limits.{found.name}") for found in iter_modules(quant.risk.limits.__path__)]
    found: list[Limit] = [module.LIMIT for module in modules]
    return tuple(
        sorted(found, key=lambda limit: (isinstance(limit, PortfolioLimit), not getattr(limit, "binds_reducing", False), limit.name))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """An order that a limit made smaller: whole shares before and after."""

    client_order_id: str
    limit: str
    proposed: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The orders in the order given, each PROPOSED, perhaps cut, or DENIED with the limit that denied it. ``seen``: client_order_id of an
    allowed order -> limit that bound it -> what it saw in the end, of a limit on the portfolio the sum of the order's group.
    """

    orders: Sequence[Order]
    cuts: Sequence[Cut] = ()
    seen: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, "Mapping[str, float]"])


def review(orders: Sequence[Order], exposure: Exposure, settings: RiskSettings) -> Review:
    """``orders`` against all limits, on the portfolio that would result from all that stand.

    First every order by itself, then the portfolio's limits in turn until none acts: orders only get smaller, so it ends. What is
    accepted makes no breach and widens none. By name, order, borrowing and buying power that holds for whatever part of it executes;
    gross, net, sector and turnover see all of it execute.
    """
    return _Reviewing(orders, exposure, settings).done()


class _Reviewing:
    def __init__(self, orders: Sequence[Order], exposure: Exposure, settings: RiskSettings) -> None:
        self._orders, self._exposure, self._settings = list(orders), exposure, settings
        self._proposed = [order.quantity for order in orders]
        self._cut_by: dict[int, str] = {}
        self._reducing = _reducing(orders, exposure)
        self._places: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for place, order in enumerate(orders):
            self._places[order.symbol, order.side].append(place)

    def done(self) -> Review:
        for place in range(len(self._orders)):
            self._judge(place, self._with_those_before(place))
        portfolio = [limit for limit in limits() if isinstance(limit, PortfolioLimit)]
        before = None
        while before != self._orders:
            before = list(self._orders)
            for limit in portfolio:
                self._fit(limit)
        cuts = [
            Cut(client_order_id=o.client_order_id, limit=self._cut_by[i], proposed=self._proposed[i], quantity=o.quantity)
            for i, o in enumerate(self._orders)
            if i in self._cut_by and o.denial is None
        ]
        return Review(orders=self._orders, cuts=cuts, seen=self._seen(portfolio))

    def _seen(self, portfolio: Sequence[PortfolioLimit]) -> dict[str, dict[str, float]]:
        found: dict[int, dict[str, float]] = {}
        for place, order in enumerate(self._orders):
            if order.denial is None:
                exposure = self._with_those_before(place)
                found[place] = {one.name: one.observe(exposure, order) for one in limits() if self._binds(one, place)}
        for limit in portfolio:
            sums, parts = self._sums(limit)
            for group, members in parts.items():
                for place, _ in members:
                    found[place][limit.name] = sums[group]
        return {self._orders[place].client_order_id: values for place, values in found.items()}

    def _binds(self, limit: Limit, place: int) -> TypeGuard[OrderLimit]:
        return isinstance(limit, OrderLimit) and (limit.binds_reducing or place not in self._reducing)

    def _with_those_before(self, place: int) -> Exposure:
        """The exposure with the orders of the same name and side that came before counted as live, and held as far as they open."""
        order, exposure = self._orders[place], self._exposure
        before = [i for i in self._places[order.symbol, order.side] if i < place]
        if not before:
            return exposure
        key = order.symbol, order.side
        opened = [self._orders[i] for i in before if i not in self._reducing and self._orders[i].denial is None]
        return replace(exposure.after(opened), live={**exposure.live, key: exposure.live.get(key, 0) + len(before)})

    def _judge(self, place: int, exposure: Exposure) -> None:
        order = self._orders[place]
        for limit in limits():
            if not self._binds(limit, place):
                continue
            observed, allowed = limit.observe(exposure, order), limit.allowed(self._settings)
            if not observed <= allowed:
                self._deny(place, limit, observed, allowed)
                return

    def _sums(self, limit: PortfolioLimit) -> tuple[dict[str, float], dict[str, list[tuple[int, float]]]]:
        """By group: the sum with the orders that stand, and each one's place and part of it."""
        sums, parts = dict(limit.base(self._exposure)), dict[str, list[tuple[int, float]]]()
        for place, order in enumerate(self._orders):
            if order.denial is None:
                group, change = limit.part(self._exposure, order, place in self._reducing)
                sums[group] = sums.get(group, 0.0) + change
                parts.setdefault(group, []).append((place, change))
        return sums, parts

    def _fit(self, limit: PortfolioLimit) -> None:
        base, allowed = limit.base(self._exposure), limit.allowed(self._settings)
        sums, parts = self._sums(limit)
        for group, found in parts.items():
            total, sign = sums[group], -1 if sums[group] < 0 else 1
            if abs(total) <= allowed + _ROUNDING:
                continue
            adding = [(i, abs(c)) for i, c in found if not (isfinite(total) and c * sign <= 0)]
            opening = [(i, c) for i, c in adding if i not in self._reducing]
            left = (self._shrink if limit.shrinks and isfinite(total) else self._drop)(limit, opening, abs(total), allowed)
            bound = max(allowed, abs(base.get(group, 0.0)))
            if limit.cuts_reducing and isfinite(left) and left > bound + _ROUNDING:
                closing = [(i, c) for i, c in adding if i in self._reducing]
                self._shrink(limit, closing, left, bound)

    def _drop(self, limit: PortfolioLimit, opening: Sequence[tuple[int, float]], total: float, allowed: float) -> float:
        """Deny the largest until the rest is within; what is left of ``total``."""
        for place, change in sorted(opening, key=lambda item: (item[1], self._orders[item[0]].symbol), reverse=True):
            if total <= allowed:
                break
            self._deny(place, limit, total, allowed)
            total -= change
        return total

    def _shrink(self, limit: PortfolioLimit, some: Sequence[tuple[int, float]], total: float, allowed: float) -> float:
        """Cut all in proportion, to whole shares; what is left of ``total``."""
        whole = sum(change for _, change in some)
        keep = max(0.0, 1 - (total - allowed) / whole) if whole > 0 else 0.0
        for place, change in some:
            order = self._orders[place]
            quantity = (order.quantity * Decimal(repr(keep))).quantize(_ONE, rounding=ROUND_DOWN)
            total -= change * (1 - float(quantity / order.quantity))
            if quantity == ZERO:
                self._deny(place, limit, abs(total), allowed)
            else:
                self._orders[place] = replace(order, quantity=quantity)
                self._cut_by[place] = limit.name
        return total

    def _deny(self, place: int, limit: Limit, observed: float, allowed: float) -> None:
        order = self._orders[place]
        state = next_state(order.state, OrderEvent.DENY, order=order.client_order_id)
        denial = Denial(limit=limit.name, observed=observed, allowed=allowed, unit=limit.unit)
        self._orders[place] = replace(order, quantity=self._proposed[place], state=state, denial=denial)


def _reducing(orders: Sequence[Order], exposure: Exposure) -> set[int]:
    """Places of the orders that, one after the other, only shrink a holding, whatever they call themselves."""
    held, places = dict(exposure.quantities), set[int]()
    for place, order in enumerate(orders):
        quantity = held.get(order.symbol, 0.0)
        if quantity * order.side.sign < 0 and float(order.quantity) <= abs(quantity):
            places.add(place)
            held[order.symbol] = quantity + float(order.signed_quantity)
    return places
