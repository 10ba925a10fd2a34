"""The risk review denies what would breach a limit, says why, and lets risk be reduced."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.risk.limit import Exposure
from quant.risk.review import limits, review
from quant.risk.settings import RiskSettings
from quant.risk.state import TradingState, Watermark
from quant.trading.orders import Leg, Order, OrderState, Side

LOOSE = RiskSettings(
    max_gross_ratio=10,
    max_net_ratio=10,
    max_name_ratio=10,
    max_order_notional_usd=1e12,
    max_volume_ratio=1,
    max_sector_ratio=10,
    max_turnover_ratio=20,
    buying_power_multiple=30,
)


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


def exposure(held: dict[str, float] | None = None, nav: float = 100_000.0, volume: float = 1e6, **rest: Any) -> Exposure:
    symbols = [*"ABCDE"]
    return Exposure(
        nav=nav, quantities=held or {}, prices=dict.fromkeys(symbols, 100.0), median_volume=dict.fromkeys(symbols, volume), **rest
    )


def passed(orders: list[Order], settings: RiskSettings, **kwargs: Any) -> dict[str, int]:
    return {o.symbol: int(o.quantity) for o in review(orders, exposure(**kwargs), settings).orders if o.denial is None}


def denials(orders: list[Order], settings: RiskSettings, **kwargs: Any) -> dict[str, tuple[str, float, float]]:
    done = review(orders, exposure(**kwargs), settings).orders
    assert [o.symbol for o in done] == [o.symbol for o in orders]
    return {o.symbol: (o.denial.limit, o.denial.observed, o.denial.allowed) for o in done if o.denial}


@pytest.mark.parametrize(
    ("settings", "limit", "observed"),
    [
        ({"max_order_notional_usd": 19_999}, "order_notional", 20_000),
        ({"max_volume_ratio": 0.00019}, "participation", 0.0002),
        ({"max_name_ratio": 0.19}, "single_name", 0.2),
        ({"max_gross_ratio": 0.19}, "gross_exposure", 0.2),
        ({"max_sector_ratio": 0.19}, "sector_exposure", 0.2),
        ({"max_turnover_ratio": 0.19}, "turnover", 0.2),
    ],
)
def test_each_limit_denies_just_beyond_its_bound_and_says_what_it_saw(settings: dict[str, float], limit: str, observed: float):
    allowed = next(iter(settings.values()))
    assert denials([order("A", 200)], LOOSE.model_copy(update=settings)) == {"A": (limit, pytest.approx(observed), allowed)}
    at_the_bound = dict.fromkeys(settings, observed)
    assert denials([order("A", 200)], LOOSE.model_copy(update=at_the_bound)) == {}


def test_every_limit_is_found_in_its_folder():
    alone = ["duplicate_orders", "halted", "daily_loss", "drawdown", "flip", "order_notional", "participation", "price_collar"]
    alone += ["reducing", "short_availability", "single_name", "stale_price"]
    together = ["buying_power", "gross_exposure", "net_exposure", "sector_exposure", "turnover"]
    assert [limit.name for limit in limits()] == [*alone, *together]


def test_an_order_towards_zero_passes_whatever_the_limits():
    tight = RiskSettings(max_gross_ratio=1e-9, max_net_ratio=0, max_name_ratio=1e-9, max_order_notional_usd=1e-9, max_volume_ratio=1e-9)
    assert denials([order("A", -500, leg=Leg.CLOSE)], tight, held={"A": 500.0}) == {}


def test_a_denied_long_cuts_the_shorts_in_proportion_until_the_net_limit_holds():
    settings = LOOSE.model_copy(update={"max_net_ratio": 0.3, "max_order_notional_usd": 30_000})
    orders = [order("A", 400), order("B", -250), order("C", -200)]
    assert denials(orders, settings)["A"][0] == "order_notional"
    assert passed(orders, settings) == {"B": 166, "C": 133}
    cuts = review(orders, exposure(), settings).cuts
    assert [(c.limit, int(c.proposed), int(c.quantity)) for c in cuts] == [("net_exposure", 250, 166), ("net_exposure", 200, 133)]


def test_a_missing_price_or_volume_or_an_empty_account_denies_openings_and_no_closing():
    assert denials([order("Z", 1)], LOOSE)["Z"][0] == "participation"
    assert denials([order("A", 1)], LOOSE, nav=0.0)["A"][0] == "single_name"
    assert denials([order("Z", -1, leg=Leg.CLOSE), order("A", 1)], LOOSE, held={"Z": 1.0})["A"][2] == 30
    assert passed([order("Z", -1, leg=Leg.CLOSE)], LOOSE, held={"Z": 1.0}) == {"Z": 1}
    assert passed([order("A", -9, leg=Leg.CLOSE)], LOOSE, held={"A": 9.0}, nav=-5.0) == {"A": 9}


@pytest.mark.scenario(8)
def test_openings_fit_the_buying_power_that_is_there_before_anything_closes():
    settings = LOOSE.model_copy(update={"buying_power_multiple": 1.0})
    orders = [order("A", -500, leg=Leg.CLOSE), order("B", 600), order("C", -400)]
    assert passed(orders, settings, held={"A": 500.0}) == {"A": 500, "B": 285, "C": 190}  # 50,000 / 1.05 over 100,000


def test_a_halted_book_sends_nothing_and_a_reducing_one_only_what_shrinks():
    orders = [order("A", -100, leg=Leg.CLOSE), order("B", 100)]
    held = {"A": 500.0}
    assert {d[0] for d in denials(orders, LOOSE, held=held, state=TradingState.HALTED).values()} == {"halted"}
    assert passed(orders, LOOSE, held=held, state=TradingState.REDUCING) == {"A": 100}
    assert denials(orders, LOOSE, held=held, state=TradingState.REDUCING)["B"][0] == "reducing"


def test_a_loss_of_the_day_or_from_the_peak_stops_openings():
    lost = Watermark(opening=100, closing=70, peak=150)
    assert denials([order("A", 1)], LOOSE, watermark=lost)["A"] == ("daily_loss", pytest.approx(0.3), 0.2)
    assert denials([order("A", 1)], LOOSE, watermark=Watermark(opening=70, closing=70, peak=150))["A"][0] == "drawdown"


def test_a_stale_price_stops_openings_and_no_closing():
    assert denials([order("A", 1)], LOOSE, stale=frozenset("A"))["A"][0] == "stale_price"
    assert passed([order("A", -1, leg=Leg.CLOSE)], LOOSE, held={"A": 1.0}, stale=frozenset("A")) == {"A": 1}


def test_a_price_far_from_the_last_close_is_denied():
    assert denials([order("A", 1, price=111.0)], LOOSE)["A"] == ("price_collar", pytest.approx(0.11), 0.1)
    assert passed([order("A", 1, price=109.0)], LOOSE) == {"A": 1}


def test_a_name_is_shorted_as_far_as_it_can_be_borrowed():
    assert denials([order("A", -11)], LOOSE, borrow_shares={"A": 10.0})["A"][:2] == ("short_availability", 1)
    assert passed([order("A", -10), order("B", -11)], LOOSE, borrow_shares={"A": 10.0}) == {"A": 10, "B": 11}
    assert passed([order("A", 11)], LOOSE, borrow_shares={"A": 0.0}) == {"A": 11}


def test_the_second_order_of_a_name_and_side_is_denied_even_if_it_says_it_closes():
    twice = [order("A", -50, leg=Leg.CLOSE), order("A", -50, leg=Leg.CLOSE)]
    assert [o.denial.limit if o.denial else None for o in review(twice, exposure({"A": 100.0}), LOOSE).orders] == [None, "duplicate_orders"]
    live = {("A", Side.SELL): 1}
    assert denials(twice[:1], LOOSE, held={"A": 100.0}, live=live)["A"][0] == "duplicate_orders"


@pytest.mark.parametrize(
    ("sign", "allowed", "limit"),
    [(1, {"max_name_ratio": 0.35}, "single_name"), (-1, {"max_borrow_shares": {"A": 400.0}}, "short_availability")],
)
def test_two_orders_of_a_name_keep_its_limits_together_where_two_are_allowed(sign: int, allowed: dict[str, Any], limit: str):
    settings = LOOSE.model_copy(update={"max_same_orders": 2, **allowed})
    twice = [order("A", 200 * sign), replace(order("A", 200 * sign), generation=2)]
    borrow = {"A": 400.0 if sign > 0 else 399.0}
    done = review(twice, exposure(borrow_shares=borrow), settings).orders
    assert [o.denial.limit if o.denial else None for o in done] == [None, limit]
    once = review([twice[0], replace(twice[1], quantity=Decimal(150))], exposure(borrow_shares=borrow), settings).orders
    assert [o.denial for o in once] == [None, None]


def test_an_order_through_zero_is_denied_whatever_it_calls_itself():
    assert denials([order("A", -150, leg=Leg.CLOSE)], LOOSE, held={"A": 100.0})["A"][:2] == ("flip", 100)


def test_names_of_a_sector_share_its_limit():
    settings = LOOSE.model_copy(update={"max_sector_ratio": 0.5})
    sectors = {"A": "tech", "B": "tech"}
    assert set(denials([order("A", 300), order("B", -301), order("C", 400)], settings, sectors=sectors)) == {"B"}


SIZES = st.integers(-600, 600)


@given(
    held=st.dictionaries(st.sampled_from("ABCDE"), SIZES.map(float)),
    wanted=st.dictionaries(st.sampled_from("ABCDE"), SIZES.filter(bool), min_size=1),
    ratios=st.tuples(st.floats(0.1, 2), st.floats(0, 1), st.floats(0.05, 1), st.floats(0.1, 1), st.floats(0.1, 2), st.floats(0.1, 3)),
    state=st.sampled_from(TradingState),
    executing=st.sets(st.sampled_from("ABCDE")),
    prices=st.fixed_dictionaries({s: st.floats(1, 500) for s in "ABCDE"}),
)
def test_what_is_accepted_makes_no_breach_and_widens_none(
    held: dict[str, float],
    wanted: dict[str, int],
    ratios: tuple[float, ...],
    state: TradingState,
    executing: set[str],
    prices: dict[str, float],
):
    names = ("max_gross_ratio", "max_net_ratio", "max_name_ratio", "max_sector_ratio", "max_turnover_ratio", "buying_power_multiple")
    limit = dict(zip(names, ratios, strict=True))
    settings = LOOSE.model_copy(update=limit)
    sectors = {"A": "x", "B": "x", "C": "y"}
    start = replace(exposure(held, sectors=sectors, state=state), prices=prices)
    done = review([order(s, q, price=prices[s]) for s, q in wanted.items()], start, settings).orders
    accepted = [o for o in done if o.denial is None]
    shrinking = {o.symbol for o in accepted if held.get(o.symbol, 0.0) * o.side.sign < 0}
    end, partly = start.after(accepted), start.after([o for o in accepted if o.symbol in executing])

    def sector(of: Exposure, members: str) -> float:
        return sum(abs(of.weight(s)) for s in members)

    for sure in (end, partly):
        for symbol in wanted:
            assert abs(sure.weight(symbol)) <= max(limit["max_name_ratio"], abs(start.weight(symbol))) + 1e-9
            assert sure.weight(symbol) * start.weight(symbol) >= 0
        assert sure.gross <= max(limit["buying_power_multiple"], start.gross) + 1e-9
    assert end.gross <= max(limit["max_gross_ratio"], start.gross) + 1e-9
    assert abs(sum(end.weights.values())) <= max(limit["max_net_ratio"], abs(sum(start.weights.values()))) + 1e-9
    for members in ("AB", "C", "D", "E"):
        assert sector(end, members) <= max(limit["max_sector_ratio"], sector(start, members)) + 1e-9
    opened = sum(start.traded(o) for o in accepted if o.symbol not in shrinking)
    assert opened == 0 or sum(map(start.traded, accepted)) <= limit["max_turnover_ratio"] + 1e-9
    assert all(o.state in (OrderState.PROPOSED, OrderState.DENIED) for o in done)
    assert state is not TradingState.HALTED or not accepted
    assert state is TradingState.ACTIVE or opened == 0


@given(
    held=st.dictionaries(st.sampled_from("ABCDE"), SIZES.filter(bool).map(float), min_size=1),
    part=st.floats(0.01, 1),
    nav=st.sampled_from([-1.0, 1e5]),
    state=st.sampled_from([TradingState.ACTIVE, TradingState.REDUCING]),
    gone=st.sets(st.sampled_from("ABCDE")),
)
def test_what_shrinks_a_holding_passes_in_full_where_it_leaves_no_side_alone(
    held: dict[str, float], part: float, nav: float, state: TradingState, gone: set[str]
):
    tight = LOOSE.model_copy(update=dict.fromkeys(("max_gross_ratio", "max_name_ratio", "max_sector_ratio", "max_turnover_ratio"), 1e-9))
    start = exposure(held, nav=nav, state=state, stale=frozenset(gone), watermark=Watermark(opening=100, closing=1, peak=100))
    wanted = {s: -int(q * part) for s, q in held.items() if int(q * part)}
    done = review([order(s, q, leg=Leg.CLOSE) for s, q in wanted.items()], start, tight).orders
    assert {o.symbol: int(o.signed_quantity) for o in done if o.denial is None} == wanted


def test_what_each_limit_saw_of_an_allowed_order_is_on_record_and_within_what_it_allows():
    orders = [order("A", 250), order("B", -200), order("C", 5)]
    settings = RiskSettings(max_net_ratio=0.5)
    done = review(orders, exposure(), settings)
    allowed = [o.client_order_id for o in done.orders if o.denial is None]
    assert sorted(done.seen) == sorted(allowed)
    for values in done.seen.values():
        assert sorted(values) == sorted(limit.name for limit in limits())
        for limit in limits():
            assert abs(values[limit.name]) <= limit.allowed(settings) + 1e-12, limit.name
