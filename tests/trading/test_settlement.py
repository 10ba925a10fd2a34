"""A session of a book: the parts sum to the change in net asset value, whatever happens in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.errors import LedgerError
from quant.ledger.book import BookState, Holding
from quant.ledger.entries import EntryKind
from quant.ports import AdjustmentConvention
from quant.risk.settings import RiskSettings
from quant.risk.state import TradingState, Watermark
from quant.tables import TABLES
from quant.trading.attribution import COSTS, GAINS
from quant.trading.decision import decide
from quant.trading.execution import CostSettings, execute_at_open
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.orders import Execution, Expiry, Leg, Order, Side
from quant.trading.replay import replay
from quant.trading.settlement import settle, unforeseen_actions
from tests.trading.simulation import DEPOSIT, KNOWN, RULES, decided, exchange, markets, random_targets

DAY = date(2020, 1, 3)
CLOSE = AdjustmentConvention.EX_DATE_CLOSE


def action(kind: str, value: float, symbol: str = "AAA") -> CorporateAction:
    return CorporateAction(symbol=symbol, ex_date=DAY, kind=kind, value=value, known_at=KNOWN)


def held(quantity: int, mark: str = "100", cash: str = "0") -> BookState:
    return BookState(cash=Decimal(cash), holdings={"AAA": Holding(quantity=Decimal(quantity), mark=Decimal(mark))})


def market(*actions: CorporateAction, open_: float | None = 50.0, close: float | None = 51.0) -> SessionMarket:
    opens = {} if open_ is None else {"AAA": open_}
    closes = {} if close is None else {"AAA": close}
    return SessionMarket(session=DAY, opens=opens, closes=closes, prior_median_volume={"AAA": 1e6}, actions=actions)


def run(state: BookState, day: SessionMarket, outcomes=(), convention=CLOSE, costs=RULES.costs):
    return settle(book="b", opening=state, outcomes=outcomes, market=day, convention=convention, costs=costs)


@pytest.mark.scenario(5)
def test_a_split_changes_shares_and_leaves_no_profit():
    done = run(held(100), market(action("split", 2.0), open_=50, close=50))
    assert done.closing.quantity("AAA") == 200
    assert done.closing.nav == done.opening.nav


@pytest.mark.scenario(5)
def test_a_fraction_of_a_share_after_a_split_is_paid_in_cash_at_the_open():
    done = run(held(99, mark="101"), market(action("split", 7.000007), open_=14.0, close=14.2))
    assert done.closing.quantity("AAA") == 693  # 99 x 7.000007 = 693.000693
    assert done.pnl[0].cash_in_lieu == Decimal("0.01")
    assert done.gap == 0


def test_a_reverse_split_of_a_short_pays_its_fraction():
    done = run(held(-105, mark="1", cash="1000"), market(action("split", 0.1), open_=10, close=10))
    assert done.closing.quantity("AAA") == -10
    assert done.pnl[0].cash_in_lieu == Decimal("-5.00")


@pytest.mark.parametrize(
    ("quantity", "ratio", "shares"), [(300, 1 / 3, 100), (700, 1 / 7, 100), (300, 4 / 3, 400), (-300, 1 / 3, -100), (300, 2 / 3, 200)]
)
def test_whole_lots_stay_whole_when_the_ratio_is_no_round_float_and_no_cash_is_paid(quantity: int, ratio: float, shares: int):
    done = run(held(quantity, mark="60", cash="50000"), market(action("split", ratio), open_=60 / ratio, close=60 / ratio))
    assert done.closing.quantity("AAA") == shares
    assert done.pnl[0].cash_in_lieu == 0


def test_two_splits_of_a_session_are_one_exact_ratio():
    done = run(held(2100), market(action("split", 1 / 7), action("split", 4 / 3)))
    assert done.closing.quantity("AAA") == 400
    assert done.pnl[0].cash_in_lieu == 0


def test_a_third_of_a_share_is_paid_in_cash():
    done = run(held(100), market(action("split", 1 / 3), open_=300.0))
    assert done.closing.quantity("AAA") == 33
    assert done.pnl[0].cash_in_lieu == Decimal("100.00")


def test_a_short_pays_the_dividend_and_a_long_receives_it():
    assert run(held(100), market(action("dividend", 0.25))).pnl[0].dividends == Decimal("25.00")
    assert run(held(-100), market(action("dividend", 0.25))).pnl[0].dividends == Decimal("-25.00")


@pytest.mark.parametrize(
    ("convention", "paid"), [(AdjustmentConvention.EX_DATE_CLOSE, "200.00"), (AdjustmentConvention.PREVIOUS_CLOSE, "100.00")]
)
def test_a_dividend_on_the_day_of_a_split_is_per_new_or_per_old_share_by_the_convention(convention: AdjustmentConvention, paid: str):
    done = run(held(100), market(action("split", 2.0), action("dividend", 1.0)), convention=convention)
    assert done.pnl[0].dividends == Decimal(paid)


def test_a_holding_without_a_bar_keeps_its_last_mark_on_the_new_share_basis_and_is_stale():
    done = run(held(100), market(action("split", 4.0), open_=None, close=None))
    assert done.closing.holdings["AAA"] == Holding(quantity=Decimal(400), mark=Decimal(25), stale=True, stale_sessions=1)
    assert done.closing.nav == done.opening.nav


def test_a_mark_that_becomes_zero_in_the_ledger_is_carried_and_split_as_zero():
    assert run(held(100), market(open_=1e-7, close=1e-7)).closing.nav == 0
    done = run(held(100, mark="0"), market(action("split", 1 / 3), open_=None, close=None))
    assert done.closing.holdings["AAA"] == Holding(quantity=Decimal(33), mark=Decimal(0), stale=True, stale_sessions=1)


def test_borrow_is_charged_on_shorts_only():
    costs = CostSettings(borrow_rate_annual=0.252)
    assert run(held(-100), market(), costs=costs).pnl[0].borrow == Decimal("10.00")  # 10,000 USD x 25.2 % / 252
    assert run(held(100), market(), costs=costs).pnl[0].borrow == 0
    both = replace(held(-100), holdings={s: Holding(quantity=Decimal(-100), mark=Decimal(100)) for s in ("AAA", "OLD")})
    merged = replace(action("rename", 0.0, "OLD"), new_symbol="AAA")
    assert run(both, market(merged), costs=costs).pnl[0].borrow == Decimal("20.00")


def test_slippage_is_inside_price_pnl_and_also_shown_apart():
    order = Order(
        book="b", session=date(2020, 1, 2), symbol="AAA", leg=Leg.OPEN, side=Side.BUY, quantity=Decimal(100), reference_price=Decimal(50)
    )
    costs = CostSettings(slippage_bps=100, impact_coefficient=0)
    fill = execute_at_open(order, DAY, open_price=50.0, prior_median_volume=1e6, costs=costs)
    assert isinstance(fill, Execution)
    done = run(BookState(cash=Decimal(10_000)), market(), outcomes=[fill])
    assert done.pnl[0].slippage == Decimal("50.000000")
    assert done.pnl[0].price_pnl == Decimal(100) - Decimal(50)
    assert [e.kind for e in done.entries] == [EntryKind.TRADE, EntryKind.COMMISSION, EntryKind.MARK]


def test_a_settlement_whose_terms_do_not_explain_the_net_asset_value_is_refused():
    done = run(held(100), market())
    wrong = replace(done, pnl=[replace(done.pnl[0], price_pnl=done.pnl[0].price_pnl + Decimal("0.01"))])
    with pytest.raises(LedgerError, match=r"gap of 0\.01"):
        wrong.verified()


def test_an_order_sized_before_its_split_was_known_expires():
    late = replace(action("split", 2.0), known_at=decided(market()))
    order = Order(
        book="b", session=date(2020, 1, 2), symbol="AAA", leg=Leg.OPEN, side=Side.BUY, quantity=Decimal(1), reference_price=Decimal(50)
    )
    at_decision = decided(replace(market(), session=date(2020, 1, 2)))
    assert [e.order for e in unforeseen_actions([order], market(late), at_decision)] == [order]
    assert unforeseen_actions([order], market(action("split", 2.0)), at_decision) == []


@pytest.mark.parametrize(("kind", "symbol"), [("rename", "AAA"), ("delisting", "AAA"), ("split", "NEW"), ("dividend", None)])
def test_an_order_ends_with_what_became_of_its_symbol_unforeseen_whichever_of_both_names_it_has(kind: str, symbol: str | None):
    late = replace(action(kind, 2.0, "AAA"), known_at=decided(market()), new_symbol="NEW" if kind == "rename" else None)
    rename = replace(action("rename", 1.0, "AAA"), new_symbol="NEW")
    order = Order(
        book="b",
        session=date(2020, 1, 2),
        symbol=symbol or "AAA",
        leg=Leg.OPEN,
        side=Side.BUY,
        quantity=Decimal(1),
        reference_price=Decimal(50),
    )
    day = market(late, *([rename] if kind == "split" else []))
    ended = unforeseen_actions([order], day, decided(replace(market(), session=date(2020, 1, 2))))
    assert [expiry.reason for expiry in ended] == ([f"a {kind} became known after the decision"] if symbol else [])


def test_the_next_sessions_orders_have_its_names_and_none_is_for_what_is_delisted():
    held_ = {
        "OLD": Holding(quantity=Decimal(100), mark=Decimal(10)),
        "GONE": Holding(quantity=Decimal(5), mark=Decimal(10), stale=True, stale_sessions=3, delisted=True),
        "LEAVES": Holding(quantity=Decimal(7), mark=Decimal(10)),
    }
    upcoming = (replace(action("rename", 1.0, "OLD"), new_symbol="NEW"), action("split", 2.0, "OLD"), action("delisting", 9.0, "LEAVES"))
    prices = dict.fromkeys(("OLD", "GONE", "LEAVES"), 10.0)
    day = SessionMarket(session=DAY, closes=prices, median_volume=dict.fromkeys(prices, 1e6), upcoming=upcoming)
    targets = pl.DataFrame({"symbol": ["OLD", "GONE"], "target_weight": [0.9, 0.1]})
    state = BookState(cash=Decimal(1000), holdings=held_)
    orders = decide(
        book="b",
        state=state,
        market=day,
        targets=targets,
        risk=RiskSettings(max_name_ratio=1, max_net_ratio=1),
        watermark=Watermark(),
        trading=TradingState.ACTIVE,
    ).orders
    assert [(o.symbol, o.reference_price) for o in orders] == [("NEW", 5)]
    assert (orders[0].leg, orders[0].quantity < 200) == (Leg.OPEN, True)  # on top of the 200 that it has after the split


@pytest.mark.parametrize(
    ("price", "volume", "quantity", "filled"),
    [
        (50.0, 1e6, 100, 100),
        (50.0, 1e4, 1000, 100),
        (None, 1e6, 100, 0),
        (50.0, None, 100, 0),
        (50.0, 50.0, 100, 0),
        (1e-7, 1e6, 100, 0),
    ],
)
def test_an_order_fills_up_to_its_share_of_the_auction_and_not_without_bar_price_or_volume(price, volume, quantity, filled):
    order = Order(
        book="b",
        session=date(2020, 1, 2),
        symbol="AAA",
        leg=Leg.OPEN,
        side=Side.SELL,
        quantity=Decimal(quantity),
        reference_price=Decimal(50),
    )
    costs = CostSettings(auction_share_ratio=0.05, participation_cap_ratio=0.2)
    outcome = execute_at_open(order, DAY, open_price=price, prior_median_volume=volume, costs=costs)
    if filled == 0:
        assert isinstance(outcome, Expiry)
    else:
        assert isinstance(outcome, Execution)
        assert (outcome.quantity, outcome.unfilled) == (filled, quantity - filled)
        assert outcome.price < outcome.reference_price


@given(seed=st.integers(0, 10_000))
def test_cash_and_shares_are_conserved_over_any_sequence_of_sessions(seed: int):
    days = markets(seed)
    tables = replay(
        book="backtest",
        markets=days,
        targets=random_targets(seed, days),
        broker=exchange(days),
        rules=RULES,
        deposit=DEPOSIT,
        decision_at=decided,
    )
    nav = tables["daily_nav"]
    assert nav["opening_nav"].to_list()[1:] == nav["closing_nav"].to_list()[:-1]
    traded = tables["fills"]
    commissions = sum(traded["commission"].to_list(), Decimal(0))
    assert sum(nav["commissions"].to_list(), Decimal(0)) == commissions
    sums = {name: sum(nav[name].to_list(), Decimal(0)) for name in nav.columns if TABLES["daily_nav"].columns[name].unit == "USD"}
    total = sum(sums[term] for term in (*GAINS, "interest", "external_flows")) - sum(sums[term] for term in COSTS)
    assert total == nav["closing_nav"][-1]
    assert sums["long_pnl"] + sums["short_pnl"] + sums["interest"] + sums["external_flows"] == total
    by_symbol = tables["daily_pnl"]
    for term in (*GAINS, *COSTS, "long_pnl", "short_pnl", "slippage", "turnover"):
        assert sum(by_symbol[term].to_list(), Decimal(0)) == sum(nav[term].to_list(), Decimal(0))
