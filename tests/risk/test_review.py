"""The risk review denies what would breach a limit, says why, and lets risk be reduced."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.risk.limit import Exposure, RiskSettings
from quant.risk.review import limits, review
from quant.trading.orders import Leg, Order, OrderState, Side

LOOSE = RiskSettings(max_gross_ratio=10, max_net_ratio=10, max_name_ratio=10, max_order_notional_usd=1e12, max_volume_ratio=1)


def order(symbol: str, quantity: int, *, leg: Leg = Leg.OPEN, price: float = 100.0) -> Order:
    side = Side.BUY if quantity > 0 else Side.SELL
    return Order(
        book="b",
        session=date(2020, 1, 3),
        symbol=symbol,
        leg=leg,
        side=side,
        quantity=Decimal(abs(quantity)),
        reference_price=Decimal(repr(price)),
    )


def exposure(held: dict[str, float] | None = None, nav: float = 100_000.0, volume: float = 1e6) -> Exposure:
    symbols = [*"ABCDE"]
    return Exposure(nav=nav, quantities=held or {}, prices=dict.fromkeys(symbols, 100.0), median_volume=dict.fromkeys(symbols, volume))


def denials(orders: list[Order], settings: RiskSettings, **kwargs: object) -> dict[str, tuple[str, float, float]]:
    done = review(orders, exposure(**kwargs), settings)  # type: ignore[arg-type]
    assert [o.symbol for o in done] == [o.symbol for o in orders]
    return {o.symbol: (o.denial.limit, o.denial.observed, o.denial.allowed) for o in done if o.denial}


@pytest.mark.parametrize(
    ("settings", "limit", "observed"),
    [
        ({"max_order_notional_usd": 19_999}, "order_notional", 20_000),
        ({"max_volume_ratio": 0.00019}, "participation", 0.0002),
        ({"max_name_ratio": 0.19}, "single_name", 0.2),
        ({"max_gross_ratio": 0.19}, "gross_exposure", 0.2),
        ({"max_net_ratio": 0.19}, "net_exposure", 0.2),
    ],
)
def test_each_limit_denies_just_beyond_its_bound_and_says_what_it_saw(settings: dict[str, float], limit: str, observed: float):
    allowed = next(iter(settings.values()))
    assert denials([order("A", 200)], LOOSE.model_copy(update=settings)) == {"A": (limit, pytest.approx(observed), allowed)}
    at_the_bound = dict.fromkeys(settings, observed)
    assert denials([order("A", 200)], LOOSE.model_copy(update=at_the_bound)) == {}


def test_every_limit_is_found_in_its_folder():
    assert [limit.name for limit in limits()] == ["order_notional", "participation", "single_name", "gross_exposure", "net_exposure"]


def test_an_order_towards_zero_passes_whatever_the_limits():
    tight = RiskSettings(max_gross_ratio=1e-9, max_net_ratio=0, max_name_ratio=1e-9, max_order_notional_usd=1e-9, max_volume_ratio=1e-9)
    assert denials([order("A", -500, leg=Leg.CLOSE)], tight, held={"A": 500.0}) == {}


def test_a_denied_long_costs_shorts_their_place_until_the_net_limit_holds():
    settings = LOOSE.model_copy(update={"max_net_ratio": 0.3, "max_order_notional_usd": 30_000})
    found = denials([order("A", 400), order("B", -250), order("C", -250)], settings)
    assert found["A"][0] == "order_notional"
    assert {s: d[0] for s, d in found.items() if s != "A"} == {"C": "net_exposure"}


def test_a_missing_price_or_volume_or_an_empty_account_denies():
    unknown = order("Z", 1)
    assert denials([unknown], LOOSE)["Z"][0] == "participation"
    assert denials([order("A", 1)], LOOSE, nav=0.0)["A"][0] == "single_name"


@given(
    held=st.dictionaries(st.sampled_from("ABCDE"), st.integers(-400, 400).map(float)),
    wanted=st.dictionaries(st.sampled_from("ABCDE"), st.integers(-600, 600).filter(bool), min_size=1),
    gross=st.floats(0.1, 2),
    net=st.floats(0, 1),
    name=st.floats(0.05, 1),
)
def test_what_passes_never_widens_a_breach(held: dict[str, float], wanted: dict[str, int], gross: float, net: float, name: float):
    settings = LOOSE.model_copy(update={"max_gross_ratio": gross, "max_net_ratio": net, "max_name_ratio": name})
    same_side = {s: q for s, q in wanted.items() if held.get(s, 0.0) * q >= 0}
    start = exposure(held)
    done = review([order(s, q) for s, q in same_side.items()], start, settings)
    end = start.after([o for o in done if o.denial is None])
    for symbol in same_side:
        assert abs(end.weight(symbol)) <= max(name, abs(start.weight(symbol))) + 1e-9
    assert sum(map(abs, end.weights.values())) <= max(gross, sum(map(abs, start.weights.values()))) + 1e-9
    assert abs(sum(end.weights.values())) <= max(net, abs(sum(start.weights.values()))) + 1e-9
    assert all(o.state in (OrderState.PROPOSED, OrderState.DENIED) for o in done)
