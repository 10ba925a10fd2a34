"""Every table of the lake: grain, key, columns, units, nulls. The data dictionary and the contracts are made from this."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

UTC_INSTANT = pl.Datetime("us", "UTC")
CASH = pl.Decimal(38, 6)
EXACT = pl.Decimal(38, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: ``unit`` is empty for names, dates and flags. ``added``: it came after the first version of a table that keeps old rows;
    those read as ``earlier``, or as null without one.
    """

    dtype: pl.DataType | type[pl.DataType]
    description: str
    unit: str = ""
    nullable: bool = False
    added: bool = False
    earlier: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. ``clock`` is the date column by which it is partitioned and ranges of it are replaced."""

    name: str
    grain: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    clock: str = "session"
    partition: Literal["year", "month"] = "year"
    append_only: bool = False

    @property
    def schema(self) -> pl.Schema:
        """Polars schema in column order."""
        return pl.Schema({name: column.dtype for name, column in self.columns.items()})

    def empty(self) -> pl.DataFrame:
        """A frame of this table with no rows."""
        return self.schema.to_frame(eager=True)


def _session(text: str = "Session (exchange trading date) of the row") -> Column:
    return Column(dtype=pl.Date, description=text)


def _name(text: str, *, nullable: bool = False) -> Column:
    return Column(dtype=pl.String, description=text, nullable=nullable)


def _float(text: str, unit: str = "", *, nullable: bool = False) -> Column:
    return Column(dtype=pl.Float64, description=text, unit=unit, nullable=nullable)


def _int(text: str, unit: str = "", *, nullable: bool = False) -> Column:
    return Column(dtype=pl.Int64, description=text, unit=unit, nullable=nullable)


def _cash(text: str) -> Column:
    return Column(dtype=CASH, description=text, unit="USD")


def _new_cash(text: str, *, nullable: bool = False) -> Column:
    """A term that came later: 0 in older rows, or null where nobody computed it."""
    return Column(dtype=CASH, description=text, unit="USD", nullable=nullable, added=True, earlier=None if nullable else Decimal(0))


def _exact(text: str, unit: str, *, nullable: bool = False) -> Column:
    return Column(dtype=EXACT, description=text, unit=unit, nullable=nullable)


SYMBOL = _name("Ticker as the source names it")
BOOK = _name("Book the row belongs to: paper (daily chain), backtest (replay over the walk-forward range)")

_OHLCV: dict[str, Column] = {
    "open": _float("Raw open", "USD/share"),
    "high": _float("Raw high", "USD/share"),
    "low": _float("Raw low", "USD/share"),
    "close": _float("Raw close", "USD/share"),
    "volume": _float("Raw volume", "shares"),
    "vwap": _float("Volume-weighted average price; null where the source declares it absent", "USD/share", nullable=True),
}
_RAW_OHLCV: dict[str, Column] = {
    name: Column(dtype=c.dtype, description=c.description, unit=c.unit, nullable=True) for name, c in _OHLCV.items()
}
_CLOCKS: dict[str, Column] = {
    "known_at": Column(dtype=UTC_INSTANT, description="When the row could have been used"),
    "received_at": Column(dtype=UTC_INSTANT, description="When we got the row; left out of digests"),
    "known_at_assumed": Column(dtype=pl.Boolean, description="known_at is the expected publish time, not an observation"),
    "digest": _name("SHA-256 over source and content, both clocks left out: what is delivered is a new version if it is not the newest's"),
    "origin_digest": _name("SHA-256 of the file or response it was read from; null where the source has none. Not digested", nullable=True),
}
_PUBLISHED = Column(
    dtype=pl.Float64,
    description="Adjusted close that the source publishes over the one of the session before; null where it publishes none. Not digested",
    unit="ratio",
    nullable=True,
    added=True,
)
_RECEIVED_BARS: dict[str, Column] = {
    "session": _session(), "symbol": SYMBOL, "source": _name("Source that delivered it"), **_RAW_OHLCV,
    "adjusted_return": _PUBLISHED, **_CLOCKS,
}  # fmt: skip

_TABLES = (
    Table(
        name="raw_bars",
        grain="One row per session, symbol, source and version of the row (known_at); as received, append-only.",
        key=("session", "symbol", "source", "known_at", "digest"),
        append_only=True,
        columns=_RECEIVED_BARS,
    ),
    Table(
        name="peer_bars",
        grain="As raw_bars, of the second source that [cross_check] names: rule 19 compares its closes, nothing else reads it.",
        key=("session", "symbol", "source", "known_at", "digest"),
        append_only=True,
        columns=_RECEIVED_BARS,
    ),
    Table(
        name="corporate_actions",
        grain="One row per ex_date, symbol, kind and version (known_at); append-only.",
        key=("ex_date", "symbol", "kind", "known_at", "digest"),
        clock="ex_date",
        append_only=True,
        columns={
            "ex_date": _session("First session that trades without the right"),
            "symbol": SYMBOL,
            "kind": _name("split | dividend | spinoff | rename | delisting"),
            "value": _float(
                "split: new shares per old share; dividend: USD per share; spinoff: value of what a share was given, USD per share; "
                "rename: 1; delisting: last price, USD per share"
            ),
            "pay_date": Column(dtype=pl.Date, description="Payment date, where the source has it", nullable=True),
            "new_symbol": _name("rename: symbol from the ex_date on; spinoff: symbol of what was given, where known", nullable=True),
            "source": _name("Source that delivered it"),
            **_CLOCKS,
        },
    ),
    Table(
        name="instruments",
        grain="One row for each time that a symbol was a security's, as known at the newest session.",
        key=("symbol", "first_session"),
        clock="first_session",
        columns={
            "symbol": SYMBOL,
            "first_session": _session("Listing: session of the first accepted bar since the start of the history"),
            "last_session": Column(dtype=pl.Date, description="Last session under this symbol; null while listed", nullable=True),
            "ended_by": _name("rename | delisting; null while listed", nullable=True),
            "new_symbol": _name("rename: the symbol after it", nullable=True),
            "security": _name("What all symbols of one security share: the last of them, or SYMBOL until EX_DATE if it was delisted"),
        },
    ),
    Table(
        name="bar_findings",
        grain="One row per session, symbol and rule that found something; symbol is '*' for findings on a whole session.",
        key=("session", "symbol", "rule"),
        columns={
            "session": _session(),
            "symbol": SYMBOL,
            "rule": _name("Rule id, e.g. r03_high_is_highest"),
            "severity": _name("block (the symbol-session is quarantined) | stop (the session stops) | warn"),
            "expected": _name("What the rule expected, with numbers"),
            "observed": _name("What the row holds, with numbers"),
            "evidence": Column(
                dtype=pl.String,
                description="Versions of the raw rows judged (first 12 digits of their digests) and what a move was measured by",
                nullable=True,
                added=True,
            ),
        },
    ),
    Table(
        name="accepted_bars",
        grain="One row per session and symbol that passed the gate.",
        key=("session", "symbol"),
        columns={"session": _session(), "symbol": SYMBOL, **_OHLCV},
    ),
    Table(
        name="quarantined_bars",
        grain="One row per raw row that the gate kept out of the chain; row numbers duplicates of one key.",
        key=("session", "symbol", "row"),
        columns={
            "session": _session(),
            "symbol": SYMBOL,
            "row": _int("0, 1, ... within session and symbol"),
            **_RAW_OHLCV,
            "rules": _name("Blocking rules that fired, comma separated"),
        },
    ),
    Table(
        name="adjusted_bars",
        grain="One row per accepted bar with its forward indices. Adjusted price at t seen from T = raw x total_index_t / "
        "total_index_T; adjusted volume = raw x split_index_T / split_index_t.",
        key=("session", "symbol"),
        columns={
            "session": _session(),
            "symbol": SYMBOL,
            **_OHLCV,
            "split_index": _float("Product of split ratios with ex_date <= session since the symbol's first row", "ratio"),
            "total_index": _float("Product of 1/(price factor) over splits and dividends with ex_date <= session", "ratio"),
        },
    ),
    Table(
        name="alpha158",
        grain="One row per session and symbol: Qlib's 158 columns in Qlib's order, float32, from adjusted bars up to the session.",
        key=("session", "symbol"),
        partition="month",
        columns={"session": _session(), "symbol": SYMBOL},  # the 158 factor columns are added by quant.factors.library.alpha158
    ),
    Table(
        name="user_factors",
        grain="One row per session and symbol: the factors of the profile's library, float32, from adjusted bars up to the session. Rows "
        "that were computed without a factor have null in its column. Empty without a library.",
        key=("session", "symbol"),
        partition="month",
        columns={  # the factor columns are added by quant.factors.library.user_factors
            "session": _session(),
            "symbol": SYMBOL,
            "library": _name("BLAKE2b-64 of the names and expressions of the library that computed the row"),
        },
    ),
    Table(
        name="forward_returns",
        grain="One row per session and symbol: the label, from the session on which it is known.",
        key=("session", "symbol"),
        clock="known_session",
        columns={
            "session": _session("Session of the decision"),
            "symbol": SYMBOL,
            "label": _float("Forward return by the strategy's label expression, simple, not annualised", "ratio"),
            "known_session": _session("Session at whose close the label is known"),
        },
    ),
    Table(
        name="scores",
        grain="One row per session, symbol and model version: the prediction of the model in force on the session.",
        key=("session", "symbol", "model_version"),
        columns={
            "session": _session(),
            "symbol": SYMBOL,
            "model_version": _name("Content digest of the model"),
            "score": _float("Predicted label", "ratio"),
            "feature_digest": _name("BLAKE2b-128 of the feature row (session, symbol, float32 values) that was scored"),
        },
    ),
    Table(
        name="target_weights",
        grain="One row per book, session and symbol with a score; decided at the session's close for the next session.",
        key=("book", "session", "symbol"),
        columns={
            "book": BOOK,
            "session": _session("Session at whose close it was decided"),
            "symbol": SYMBOL,
            "signal": _float("Score normalised to mean 0 and standard deviation 0.02 over the session"),
            "sleeve": _float("Weight within its sleeve: longs sum to +1, shorts to -1", "ratio"),
            "target_weight": _float("Signed share of net asset value: sleeve x gross_exposure_ratio / 2", "ratio"),
        },
    ),
    Table(
        name="orders",
        grain="One row per book, session, symbol, leg and generation; decided at the session's close for the next session; the state "
        "is the one at submission.",
        key=("book", "session", "symbol", "leg", "generation"),
        columns={
            "book": BOOK,
            "session": _session("Session at whose close it was decided"),
            "symbol": SYMBOL,
            "leg": _name("close (towards zero) | open (away from zero)"),
            "generation": _int("1 for the first order of the key"),
            "client_order_id": _name("Deterministic id: book, session and hash of the key"),
            "side": _name("buy | sell"),
            "quantity": _exact("Whole shares, positive, on the share basis of the next session", "shares"),
            "reference_price": _exact("Close that sized the order, on the share basis of the next session", "USD/share"),
            "state": _name("accepted | denied | rejected (by the broker) | missed (too late to send) | dry_run"),
            "denied_by": _name("Limit that denied it", nullable=True),
            "observed": _float("Value that the limit saw", nullable=True),
            "allowed": _float("Value that the limit allows", nullable=True),
            "unit": _name("Unit of observed and allowed", nullable=True),
        },
    ),
    Table(
        name="fills",
        grain="One row per execution; session is the one in which it executed.",
        key=("book", "session", "symbol", "leg", "generation", "execution_id"),
        columns={
            "book": BOOK,
            "session": _session("Session of execution"),
            "symbol": SYMBOL,
            "leg": _name("close | open, as in orders"),
            "generation": _int("As in orders"),
            "execution_id": _name("Unique id of the execution"),
            "client_order_id": _name("Order it belongs to"),
            "side": _name("buy | sell"),
            "quantity": _exact("Shares executed, positive", "shares"),
            "unfilled": _exact("Shares of the order that expired", "shares"),
            "price": _exact("Execution price, slippage and impact inside", "USD/share"),
            "reference_price": _exact("Opening price before slippage and impact", "USD/share"),
            "slippage": _cash("(price - reference_price) x signed quantity: a cost is positive; inside price P&L"),
            "commission": _cash("Commission of the execution"),
        },
    ),
    Table(
        name="positions",
        grain="One row per book, session and symbol held at the session's close.",
        key=("book", "session", "symbol"),
        columns={
            "book": BOOK,
            "session": _session(),
            "symbol": SYMBOL,
            "quantity": _exact("Signed shares at the close", "shares"),
            "mark": _exact("Price it is valued at: the raw close, or the last one while stale", "USD/share"),
            "market_value": _cash("quantity x mark"),
            "weight": _float("market_value / net asset value", "ratio"),
            "stale": Column(dtype=pl.Boolean, description="No accepted price in the session: the mark is an older one"),
        },
    ),
    Table(
        name="daily_pnl",
        grain="One row per book, session and symbol that was held or traded in the session; the symbol is the one at the close.",
        key=("book", "session", "symbol"),
        columns={
            "book": BOOK,
            "session": _session(),
            "symbol": SYMBOL,
            "price_pnl": _cash("Gain from prices on holdings and on the session's fills, slippage inside"),
            "dividends": _cash("Dividends with ex-date in the session: earned on longs, owed (negative) on shorts"),
            "cash_in_lieu": _cash("Cash for fractions of shares after a split"),
            "write_offs": _new_cash("Holdings that left the book below their last mark, a loss is negative"),
            "commissions": _cash("Commissions paid, positive"),
            "regulatory_fees": _new_cash("Fees of the SEC and FINRA on sales, positive"),
            "borrow": _cash("Borrow fees on shorts, positive"),
            "long_pnl": _new_cash("The terms above, costs taken off, of what was held and traded long", nullable=True),
            "short_pnl": _new_cash("The same of what was held and traded short; the two sum to the name's result", nullable=True),
            "slippage": _cash("Slippage and impact of the session's fills, positive is a cost; already inside price_pnl"),
            "turnover": _cash("Sum of |quantity x price| of the session's fills"),
        },
    ),
    Table(
        name="daily_nav",
        grain="One row per book and session: the identity opening + terms = closing net asset value, each term computed on its own.",
        key=("book", "session"),
        columns={
            "book": BOOK,
            "session": _session(),
            "opening_nav": _cash("Net asset value at the previous session's close"),
            "price_pnl": _cash("Sum over symbols"),
            "dividends": _cash("Sum over symbols"),
            "cash_in_lieu": _cash("Sum over symbols"),
            "write_offs": _new_cash("Sum over symbols"),
            "commissions": _cash("Sum over symbols; subtracts"),
            "regulatory_fees": _new_cash("Sum over symbols; subtracts"),
            "borrow": _cash("Sum over symbols; subtracts"),
            "interest": _new_cash("On cash, less the value of shorts, since the session before; negative is paid"),
            "external_flows": _cash("Deposits less withdrawals, and what a reconciliation booked from outside"),
            "closing_nav": _cash("Cash, receivables, divergence and market value of all positions, from the ledger's fold"),
            "cash": _cash("Cash at the close"),
            "receivables": _new_cash("Dividends earned and not paid yet; those that shorts owe subtract"),
            "broker_divergence": _new_cash("Cash of the book that the broker never books"),
            "long_value": _cash("Market value of longs"),
            "short_value": _cash("Market value of shorts, negative"),
            "long_pnl": _new_cash("Sum over symbols; long_pnl + short_pnl + interest + external_flows = closing - opening", nullable=True),
            "short_pnl": _new_cash("Sum over symbols", nullable=True),
            "slippage": _cash("Sum over symbols; already inside price_pnl"),
            "turnover": _cash("Sum over symbols"),
            "decision_at": Column(
                dtype=UTC_INSTANT, description="Instant of the session's decision; rows with a later known_at were not used"
            ),
        },
    ),
    Table(
        name="factor_statistics",
        grain="One row per factor: how well it ordered the names of a session, measured over the history up to the session.",
        key=("session", "origin", "factor"),
        columns={
            "session": _session("Last session of the window; only labels known at its close are used"),
            "origin": _name("alpha158 | user_factors | scores: the table that holds it"),
            "factor": _name("Its column there"),
            "expression": _name("What it is computed by"),
            "ic_mean": _float("Mean over sessions of the rank correlation with the label", "ratio", nullable=True),
            "ic_names": _float("Mean number of names a session", "names", nullable=True),
            "ic_sessions": _int("Sessions with a coefficient: at least 3 names and some spread", "sessions"),
            "ic_standard_deviation": _float("Sample standard deviation of the coefficient over sessions", "ratio", nullable=True),
            "t_statistic": _float("ic_mean / ic_standard_deviation x sqrt(ic_sessions); labels do not overlap", nullable=True),
            "positive_share": _float("Share of sessions with a positive coefficient", "ratio", nullable=True),
            "coverage": _float("Share of the window's rows in which it has a finite value", "ratio"),
            "rank_autocorrelation": _float(
                "Mean rank correlation with itself one session earlier, over names in both: 1 means that the ranking stands still",
                "ratio",
                nullable=True,
            ),
            "nearest": _name("Factor whose ranks are most correlated with its own, whatever the sign", nullable=True),
            "nearest_correlation": _float("Correlation of the two, over all rows that both rank", "ratio", nullable=True),
        },
    ),
    Table(
        name="reconciliations",
        grain="One row per book, session and difference between the broker and the ledger, found before it traded; none: they agreed.",
        key=("book", "session", "number"),
        columns={
            "book": BOOK,
            "session": _session(),
            "number": _int("Number of the difference in the session, from 0"),
            "symbol": _name("Ticker; * for a difference of the whole account"),
            "kind": _name("missed_fill | external_trade | corporate_action | cash_adjustment | unknown"),
            "quantity": _exact("The broker's shares less the ledger's", "shares"),
            "amount": _cash("The broker's cash less the ledger's"),
            "outcome": _name("booked | blocked (the symbol is not traded) | halted (nothing is)"),
            "evidence": _name("What it was classified by"),
            "reason": _name("Why it was booked, or was not"),
        },
    ),
    Table(
        name="broker_positions",
        grain="One row per book, session and symbol that the broker reported or the ledger held when the two were compared.",
        key=("book", "session", "symbol"),
        columns={
            "book": BOOK,
            "session": _session(),
            "symbol": SYMBOL,
            "broker_quantity": _exact("Signed shares as the broker reported them", "shares"),
            "ledger_quantity": _exact("Signed shares of the ledger after what was booked", "shares"),
            "average_entry_price": _exact("The broker's; null where it reported no position", "USD/share", nullable=True),
        },
    ),
    Table(
        name="performance",
        grain="One row per book, session (the report's last session) and figure.",
        key=("book", "session", "figure"),
        columns={
            "book": BOOK,
            "session": _session("Last session of the report"),
            "figure": _name("Name of the figure, e.g. sharpe_ratio"),
            "value": _float("Value of the figure", nullable=True),
            "unit": _name("Unit of the value"),
        },
    ),
)

TABLES: Mapping[str, Table] = {table.name: table for table in _TABLES}
NOT_DIGESTED = ("received_at", "origin_digest", "adjusted_return")
