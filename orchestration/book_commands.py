"""`afterclose orders|fills|positions|pnl`: a book's tables on the command line, for people or for programs."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated

import polars as pl
import typer

from orchestration.terminal import out, parse_session, plain, print_frame
from quant.errors import InputError, expected

if TYPE_CHECKING:
    from quant.ports import Ledger

Day = "YYYY-MM-DD"
SessionOption = Annotated[str | None, typer.Option("--session", metavar=Day, help="One session; default: the newest one with rows.")]
FirstOption = Annotated[str | None, typer.Option("--from", metavar=Day, help="First session.")]
LastOption = Annotated[str | None, typer.Option("--to", metavar=Day, help="Last session.")]
BookOption = Annotated[str | None, typer.Option("--book", help="Book; default: the paper book.")]
SymbolOption = Annotated[str | None, typer.Option("--symbol", help="One symbol.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON: a list of rows, decimals as text.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="CSV with a header.")]

_FILLS = ["session", "symbol", "side", "quantity", "unfilled", "price", "reference_price", "slippage", "commission", "client_order_id"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Sessions that were asked for: a range with open ends; ``newest``: nothing was, so the newest one with rows."""

    first: date | None
    last: date | None
    newest: bool

    @classmethod
    def of(cls, session: str | None, first: str | None, last: str | None) -> "Chosen":
        """InputError for a session together with a range, and for a range that ends before it begins."""
        if session is not None and (first is not None or last is not None):
            raise InputError(expected("--session, or --from and --to", found="both", where="the command", do="choose one"))
        begin = parse_session(session or first or "", "--session" if session else "--from") if session or first else None
        end = parse_session(session or last or "", "--session" if session else "--to") if session or last else None
        if begin is not None and end is not None and begin > end:
            raise InputError(expected("--from not after --to", found=f"{begin} > {end}", where="the command", do="swap them"))
        return cls(first=begin, last=end, newest=begin is None and end is None)

    def of_rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of the chosen sessions."""
        if self.newest:
            return rows.filter(pl.col("session") == pl.col("session").max())
        kept = pl.lit(True)  # noqa: FBT003
        kept = kept if self.first is None else kept & (pl.col("session") >= self.first)
        return rows.filter(kept if self.last is None else kept & (pl.col("session") <= self.last))


def orders(
    session: SessionOption = None,
    first: FirstOption = None,
    last: LastOption = None,
    book: BookOption = None,
    symbol: SymbolOption = None,
    state: Annotated[str | None, typer.Option("--state", help="Only orders in this state, e.g. filled, denied, expired.")] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Orders with their state now, by the session that decided them; they execute in the session after it."""
    from orchestration.workbench import Workbench
    from quant.trading.orders import OrderState

    chosen, states = Chosen.of(session, first, last), sorted(OrderState)
    if state is not None and state not in states:
        raise InputError(expected(f"one of {', '.join(states)}", found=state, where="--state", do="choose one"))
    require_data()
    with Workbench.opened() as bench:
        named = bench.require_book(book)
        if named == bench.chain.backtest_book:  # replayed, so in no ledger
            replayed = bench.lake.read("orders", first=chosen.first, last=chosen.last, where={"book": named})
            rows = chosen.of_rows(replayed).drop("book")
        else:
            rows = _order_frame(bench.open_ledger(), named, chosen)
    rows = rows if state is None else rows.filter(pl.col("state") == state)
    _show(rows, symbol, "No orders.", as_json=as_json, as_csv=as_csv)


def fills(
    session: SessionOption = None,
    first: FirstOption = None,
    last: LastOption = None,
    book: BookOption = None,
    symbol: SymbolOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """What executed: quantity and price, what it cost against the auction's price, the order it belongs to."""
    rows = _read("fills", Chosen.of(session, first, last), book)
    _show(rows.select(_FILLS), symbol, "No fills.", as_json=as_json, as_csv=as_csv)


def positions(
    session: SessionOption = None,
    first: FirstOption = None,
    last: LastOption = None,
    book: BookOption = None,
    symbol: SymbolOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Holdings at the close, with the price they are valued at; stale: no accepted price in the session."""
    rows = _read("positions", Chosen.of(session, first, last), book)
    _show(rows.drop("book"), symbol, "No positions.", as_json=as_json, as_csv=as_csv)


def pnl(
    session: SessionOption = None,
    first: FirstOption = None,
    last: LastOption = None,
    book: BookOption = None,
    symbol: SymbolOption = None,
    by_symbol: Annotated[bool, typer.Option("--by-symbol", help="A row a name instead of a row a session.")] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """The terms between opening and closing net asset value, a row a session; with --by-symbol or --symbol a row a name."""
    named = by_symbol or symbol is not None
    rows = _read("daily_pnl" if named else "daily_nav", Chosen.of(session, first, last), book)
    _show(rows.drop("book", "decision_at", strict=False), symbol, "No P&L.", as_json=as_json, as_csv=as_csv)


def reconcile(
    session: SessionOption = None,
    confirm: Annotated[str | None, typer.Option("--confirm", metavar="SYMBOL", help='Accept its difference; "*": the cash.')] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="What was checked; goes into the audit log.")] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Differences between the broker and the ledger, as the session's run found them; --confirm accepts one for the next run to book."""
    if (confirm is None) != (reason is None):
        raise InputError(expected("--confirm SYMBOL with --reason TEXT", found="one of them", where="the command", do="say both"))
    rows = _read("reconciliations", Chosen.of(session, None, None), None)
    if confirm is None or reason is None:
        print_frame(rows.drop("book"), as_json=as_json, as_csv=as_csv, nothing="The broker and the ledger agree, or were not compared.")
        return
    _confirm(rows, confirm, reason)


def _confirm(rows: pl.DataFrame, symbol: str, reason: str) -> None:
    from orchestration.workbench import Workbench, own_command
    from quant.ledger.reconciliation import WHOLE_ACCOUNT
    from quant.trading.reconciling import CONFIRMED

    still = open_difference(rows, symbol)
    day, book, difference = still["session"][0], still["book"][0], still[_difference_column(symbol)].sum()
    with Workbench.opened() as bench:
        ledger = bench.open_ledger()
        state = ledger.state(book, through=day)
        held = state.cash if symbol == WHOLE_ACCOUNT else state.quantity(symbol)
        of = {"book": book, "session": day.isoformat(), "symbol": symbol}
        ledger.record(CONFIRMED, {**of, "difference": plain(difference), "held": plain(held), "reason": reason})
    out.print(
        f"confirmed: {symbol}, {plain(difference)}; `{own_command(f'paper-run --session {day}')}` books it", highlight=False, soft_wrap=True
    )
    out.print("A book that the difference halted then needs `afterclose resume --reason TEXT`.", highlight=False, soft_wrap=True)


def open_difference(rows: pl.DataFrame, symbol: str) -> pl.DataFrame:
    """The rows of a reconciliation that a person may accept for ``symbol``; they may sum to nothing, as those of a trade that somebody made
    and took back. InputError if there are none.
    """
    open_ones = rows.filter(pl.col("outcome") != "booked")
    still = open_ones.filter(pl.col("symbol") == symbol)
    if not (still[_difference_column(symbol)] != 0).any():
        names = ", ".join(open_ones["symbol"].unique().sort()) or "none"
        raise InputError(expected(f"an open difference of one of: {names}", found=symbol, where="--confirm", do="see the list"))
    return still


def _difference_column(symbol: str) -> str:
    from quant.ledger.reconciliation import WHOLE_ACCOUNT

    return "amount" if symbol == WHOLE_ACCOUNT else "quantity"


def _show(rows: pl.DataFrame, symbol: str | None, nothing: str, *, as_json: bool, as_csv: bool) -> None:
    kept = rows if symbol is None else rows.filter(pl.col("symbol") == symbol)
    print_frame(kept, as_json=as_json, as_csv=as_csv, nothing=nothing)


def require_data() -> None:
    """InputError for a data root without data: a mistyped one would be a new book."""
    from orchestration.settings import data_root, load_settings

    load_settings()
    root = data_root()
    if not (root / "lake").exists():
        raise InputError(expected("a book", found="no data", where=str(root), do="run `afterclose demo`"))


def _read(table: str, chosen: Chosen, book: str | None) -> pl.DataFrame:
    from orchestration.workbench import Workbench

    require_data()
    with Workbench.opened() as bench:
        rows = bench.lake.read(table, first=chosen.first, last=chosen.last, where={"book": bench.require_book(book)})
    return chosen.of_rows(rows)


def _order_frame(ledger: "Ledger", book: str, chosen: Chosen) -> pl.DataFrame:
    """Orders of the ledger: rows of table orders with the state now in the place of the one at submission."""
    from quant.trading.records import order_rows

    one = chosen.first if chosen.first == chosen.last else None
    found = ledger.orders(book, decided=one)
    if chosen.newest and found:
        newest = max(order.session for order in found)
        found = [order for order in found if order.session == newest]
    states = pl.Series("state", [str(order.state) for order in found], dtype=pl.String)
    return chosen.of_rows(order_rows(found).with_columns(states).drop("book"))
