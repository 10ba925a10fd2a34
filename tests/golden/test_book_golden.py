"""What other engines booked wrongly, with the numbers that it should have been. Each case names the report that it was made from."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from quant.ledger.book import BookState, Holding
from quant.ledger.entries import Account, Entry, EntryKind, transfer
from quant.ledger.lots import Lot, LotBook
from quant.ledger.settings import LedgerSettings
from quant.ports import AdjustmentConvention
from quant.trading.corporate_actions import rename_steps
from quant.trading.execution import CostSettings
from quant.trading.market import CorporateAction, SessionMarket
from quant.trading.orders import Execution, Leg, Order, Side
from quant.trading.settlement import Settlement, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

D0, D1, D2, D3 = date(2020, 8, 28), date(2020, 8, 31), date(2020, 9, 1), date(2020, 9, 2)
BEFORE = datetime(2020, 8, 1, tzinfo=UTC)
FREE = CostSettings(borrow_rate_annual=0, sec_fee_per_million_usd=0, taf_per_share_usd=0)
NO_INTEREST = LedgerSettings(interest_debit_rate_annual=0)


def action(kind: str, value: float, ex_date: date = D1, symbol: str = "AAPL", **more: object) -> CorporateAction:
    return CorporateAction(symbol=symbol, ex_date=ex_date, kind=kind, value=value, known_at=BEFORE, **more)  # type: ignore[arg-type]


def holding(quantity: int, mark: str, cash: str = "0", symbol: str = "AAPL") -> BookState:
    return BookState(cash=Decimal(cash), holdings={symbol: Holding(quantity=Decimal(quantity), mark=Decimal(mark))})


def fill(side: Side, quantity: int, price: str, session: date, leg: Leg, symbol: str = "AAPL") -> Execution:
    order = Order(book="b", session=D0, symbol=symbol, leg=leg, side=side, quantity=Decimal(quantity), reference_price=Decimal(price))
    return Execution(
        execution_id=f"{side}{quantity}{session}",
        order=order,
        session=session,
        quantity=Decimal(quantity),
        price=Decimal(price),
        reference_price=Decimal(price),
        commission=Decimal(1),
        unfilled=Decimal(0),
    )


def day(
    state: BookState,
    session: date,
    *actions: CorporateAction,
    price: float | None = None,
    symbol: str = "AAPL",
    fills: Sequence[Execution] = (),
    adjustments: Sequence[Entry] = (),
    costs: CostSettings = FREE,
    settings: LedgerSettings = NO_INTEREST,
    convention: AdjustmentConvention = AdjustmentConvention.EX_DATE_CLOSE,
) -> Settlement:
    prices = {} if price is None else {symbol: price}
    market = SessionMarket(session=session, previous=session - timedelta(days=1), opens=prices, closes=prices, actions=actions)
    done = settle(
        book="b", opening=state, outcomes=fills, market=market, convention=convention, costs=costs, ledger=settings, adjustments=adjustments
    )
    assert done.gap == done.side_gap == 0
    return done


@pytest.mark.parametrize(
    ("ratio", "shares", "in_lieu"),
    [(7.0, 700, "0"), (7.000007, 700, "0.07"), (1 / 0.1428571429, 700, "0"), (6.99, 699, "0")],
)
def test_lean_5765_a_hundred_shares_split_seven_for_one_are_700_and_not_699(ratio: float, shares: int, in_lieu: str):
    done = day(holding(100, "700"), D1, action("split", ratio), price=100.0)
    assert done.closing.quantity("AAPL") == shares
    assert done.pnl[0].cash_in_lieu == Decimal(in_lieu)


def test_lean_5325_a_split_is_no_profit():
    done = day(holding(1000, "499.24", cash="100"), D1, action("split", 4.0), price=124.81)
    assert done.closing == BookState(cash=Decimal(100), holdings={"AAPL": Holding(quantity=Decimal(4000), mark=Decimal("124.81"))})
    assert done.pnl[0].price_pnl == 0


def test_lean_7894_a_short_through_a_split_keeps_its_equity():
    done = day(holding(-1000, "499.24", cash="600000"), D1, action("split", 4.0), price=125.81)
    assert done.closing.quantity("AAPL") == -4000
    assert done.closing.nav == 600_000 - 499_240 - 4000
    assert (done.pnl[0].long_pnl, done.pnl[0].short_pnl) == (0, -4000)


def test_a_split_of_a_long_and_of_a_short_are_each_others_mirror():
    long, short = (day(holding(sign * 105, "10"), D1, action("split", 0.1), price=100.0).pnl[0] for sign in (1, -1))
    assert (long.price_pnl, long.cash_in_lieu) == (-50, 50)
    assert (short.price_pnl, short.cash_in_lieu) == (50, -50)


def test_a_dividend_is_earned_on_the_ex_date_and_paid_on_its_day_even_if_the_shares_are_gone():
    ex = day(holding(100, "100"), D1, action("dividend", 0.5, pay_date=D3), price=99.5)
    assert (ex.pnl[0].dividends, ex.closing.cash, ex.closing.receivables) == (50, 0, {("AAPL", D3): 50})
    assert ex.closing.nav == ex.opening.nav
    sold = day(ex.closing, D2, price=99.5, fills=[fill(Side.SELL, 100, "99.5", D2, Leg.CLOSE)])
    assert sold.closing.holdings == {}
    paid = day(sold.closing, D3)
    assert (paid.closing.cash, paid.closing.receivables, paid.pnl) == (sold.closing.cash + 50, {}, [])


def test_a_short_owes_the_dividend_that_it_was_short_for_after_it_was_bought_back():
    ex = day(holding(-100, "100", cash="20000"), D1, action("dividend", 0.5, pay_date=D3), price=99.5)
    assert (ex.pnl[0].dividends, ex.closing.receivable) == (-50, -50)
    covered = day(ex.closing, D2, price=99.5, fills=[fill(Side.BUY, 100, "99.5", D2, Leg.CLOSE)])
    assert day(covered.closing, D3).closing.cash == 20_000 - 9950 - 1 - 50


def test_who_buys_on_the_ex_date_has_no_right_to_the_dividend():
    done = day(BookState(cash=Decimal(20_000)), D1, action("dividend", 0.5), price=99.5, fills=[fill(Side.BUY, 100, "99.5", D1, Leg.OPEN)])
    assert done.closing.receivables == {}


def test_without_a_pay_date_it_is_the_ex_date_and_the_setting_and_says_so():
    done = day(holding(100, "100"), D1, action("dividend", 0.5), price=100.0)
    (earned,) = [e for e in done.entries if e.kind is EntryKind.DIVIDEND]
    assert (earned.due, earned.assumed) == (D1 + timedelta(days=21), True)
    with_date = day(holding(100, "100"), D1, action("dividend", 0.5, pay_date=D2), price=100.0)
    assert [e.assumed for e in with_date.entries if e.kind is EntryKind.DIVIDEND] == [False]


def test_a_rename_takes_holding_lots_mark_and_what_is_owed_along():
    lots = LotBook(open={"FB": (Lot(opened=D0, quantity=Decimal(100), cost=Decimal(15_000)),)})
    state = BookState(holdings=holding(100, "200", symbol="FB").holdings, receivables={("FB", D2): Decimal(7)})
    done = day(state, D1, action("rename", 1.0, symbol="FB", new_symbol="META"), price=210.0, symbol="META")
    assert done.closing.holdings == {"META": Holding(quantity=Decimal(100), mark=Decimal(210))}
    assert done.closing.receivables == {("META", D2): 7}
    assert [(p.symbol, p.price_pnl) for p in done.pnl] == [("META", 1000)]
    assert lots.after(done.entries).open == {"META": lots.open["FB"]}
    assert day(done.closing, D2, price=210.0, symbol="META").closing.cash == 7


def test_actions_of_the_day_of_a_rename_are_the_holdings_under_either_name():
    for symbol in ("FB", "META"):
        actions = [action("rename", 1.0, symbol="FB", new_symbol="META"), action("split", 2.0, symbol=symbol)]
        done = day(holding(100, "200", symbol="FB"), D1, *actions, price=100.0, symbol="META")
        assert (done.closing.quantity("META"), done.closing.nav) == (200, 20_000)


def test_symbols_that_change_places_keep_their_holdings_apart():
    assert rename_steps({"A": "B", "B": "C"}) == [("B", "C"), ("A", "B")]
    state = BookState(holdings={"A": Holding(quantity=Decimal(1), mark=Decimal(10)), "B": Holding(quantity=Decimal(-2), mark=Decimal(20))})
    actions = [action("rename", 1.0, symbol="A", new_symbol="B"), action("rename", 1.0, symbol="B", new_symbol="A")]
    done = day(state, D1, *actions)
    assert {symbol: held.quantity for symbol, held in done.closing.holdings.items()} == {"A": -2, "B": 1}
    assert done.closing.nav == state.nav


@pytest.mark.scenario(10)
@pytest.mark.parametrize("quantity", [100, -100])
def test_a_delisted_holding_is_marked_at_its_last_price_and_paid_out_after_the_limit(quantity: int):
    settings = NO_INTEREST.model_copy(update={"stale_limit_sessions": 2})
    first = day(holding(quantity, "50", cash="10000"), D1, action("delisting", 42.0), settings=settings)
    assert first.pnl[0].price_pnl == quantity * -8
    assert first.closing.holdings["AAPL"].delisted
    second = day(first.closing, D2, settings=settings, price=999.0)  # somebody else has the symbol
    third = day(second.closing, D3, settings=settings)
    assert third.closing == BookState(cash=Decimal(10_000 + quantity * 42))
    assert third.pnl[0].write_offs == 0


@pytest.mark.scenario(10)
@pytest.mark.parametrize(("quantity", "written_off", "cash"), [(100, -5000, 10_000), (-100, 0, 5000)])
def test_a_holding_that_nobody_quotes_is_written_off_at_what_is_worse_for_the_book(quantity: int, written_off: int, cash: int):
    settings = NO_INTEREST.model_copy(update={"stale_limit_sessions": 1})
    stale = day(holding(quantity, "50", cash="10000"), D1, settings=settings)
    assert stale.closing.nav == stale.opening.nav
    done = day(stale.closing, D2, settings=settings)
    assert (done.pnl[0].write_offs, done.pnl[0].price_pnl) == (written_off, 0)
    assert done.closing == BookState(cash=Decimal(cash))
    assert sum(e.amount(Account.WRITE_OFFS) for e in done.entries) == -written_off


def test_a_bar_in_between_starts_the_count_again():
    settings = NO_INTEREST.model_copy(update={"stale_limit_sessions": 1})
    state = day(day(holding(100, "50"), D1, settings=settings).closing, D2, settings=settings, price=50.0).closing
    assert day(state, D3, settings=settings).closing.quantity("AAPL") == 100


def test_a_sale_pays_the_regulators_and_a_purchase_does_not():
    costs = CostSettings(borrow_rate_annual=0)
    sold = day(holding(60_000, "100"), D1, price=100.0, costs=costs, fills=[fill(Side.SELL, 60_000, "100", D1, Leg.CLOSE)])
    assert sold.pnl[0].regulatory_fees == Decimal("166.80") + Decimal("8.30")  # 27.80 a million; 0.000166 a share, at most 8.30
    small = day(holding(1, "100"), D1, price=100.0, costs=costs, fills=[fill(Side.SELL, 1, "100", D1, Leg.CLOSE)])
    assert small.pnl[0].regulatory_fees == Decimal("0.02")  # each rounded up to the cent
    bought = day(BookState(cash=Decimal(200)), D1, price=100.0, costs=costs, fills=[fill(Side.BUY, 1, "100", D1, Leg.OPEN)])
    assert bought.pnl[0].regulatory_fees == 0


@pytest.mark.parametrize(
    ("state", "interest"),
    [
        (BookState(cash=Decimal(360_000)), "120.00"),  # three days at 4 %
        (BookState(cash=Decimal(-360_000)), "-240.00"),  # at 8 %
        (holding(-1000, "360", cash="360000"), "0"),  # all of it is what the short was sold for
    ],
)
def test_interest_is_for_calendar_days_on_cash_that_is_no_collateral_of_shorts(state: BookState, interest: str):
    settings = LedgerSettings(interest_credit_rate_annual=0.04, interest_debit_rate_annual=0.08)
    market = SessionMarket(session=D1, previous=D0, closes={"AAPL": 360.0})  # Friday to Monday
    done = settle(
        book="b", opening=state, outcomes=(), market=market, convention=AdjustmentConvention.EX_DATE_CLOSE, costs=FREE, ledger=settings
    )
    assert (done.interest, done.closing.nav - done.opening.nav) == (Decimal(interest), Decimal(interest))


def test_of_a_flip_each_side_has_what_was_held_and_traded_on_it():
    fills = [fill(Side.SELL, 100, "110", D1, Leg.CLOSE), fill(Side.SELL, 50, "110", D1, Leg.OPEN)]
    done = day(holding(100, "100"), D1, price=120.0, fills=fills)
    assert (done.pnl[0].long_pnl, done.pnl[0].short_pnl) == (1000 - 1, -500 - 1)
    assert done.pnl[0].price_pnl == 500


def test_shares_that_a_reconciliation_finds_are_a_flow_at_their_price_and_earn_from_there():
    def found(shares: int, price: str) -> Entry:
        legs = transfer(Account.EXTERNAL, Account.SECURITIES, shares * Decimal(price), Decimal(shares))
        kind = EntryKind.ADJUSTMENT
        return Entry(book="b", session=D1, key=f"{shares}", kind=kind, symbol="AAPL", postings=legs, price=Decimal(price))

    done = day(holding(100, "100"), D1, price=110.0, adjustments=[found(-150, "105")])
    assert (done.external_flows, done.pnl[0].long_pnl, done.pnl[0].short_pnl) == (-150 * 105, 500, -250)
    assert done.closing.quantity("AAPL") == -50
    unquoted = day(BookState(), D1, adjustments=[found(10, "105")])
    assert (unquoted.closing.nav, unquoted.closing.holdings["AAPL"].stale) == (1050, True)


def test_cash_that_the_broker_never_books_is_of_the_book_all_the_same():
    apart = transfer(Account.CASH, Account.BROKER_DIVERGENCE, Decimal(50))
    entry = Entry(book="b", session=D1, key="d", kind=EntryKind.DIVERGENCE, symbol=None, postings=apart)
    done = day(BookState(cash=Decimal(200)), D1, adjustments=[entry])
    assert (done.closing.cash, done.closing.divergence, done.closing.nav) == (150, 50, 200)
