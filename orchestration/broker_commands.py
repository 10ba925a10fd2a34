"""`afterclose broker`: a stand-in for a broker to try things on, and the stream of a broker's reports."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestration.terminal import out, print_rows
from quant.errors import InputError, expected

broker = typer.Typer(help="A broker to try things on; listening to a broker's reports. More: docs/broker.md.", no_args_is_help=True)


@broker.command()
def account() -> None:
    """What the broker says now: account, cash, equity, buying power, holdings and open orders."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        asked = bench.chain.broker(_no_market)
        if asked.capabilities.embedded:
            out.print("The simulated exchange is embedded: the ledger is its only account. See `afterclose positions`.", soft_wrap=True)
            return
        held, positions, orders = asked.account(), asked.positions(), asked.open_orders()
    facts = [["account", held.account_id], ["active", "yes" if held.active else "no: trading is blocked"]]
    facts += [
        [name, f"{value:,.2f} USD"] for name, value in (("cash", held.cash), ("equity", held.equity), ("buying power", held.buying_power))
    ]
    print_rows(facts, ["fact", "value"])
    print_rows([[p.symbol, f"{p.quantity:f}", f"{p.average_entry_price:f}"] for p in positions], ["symbol", "shares", "average cost"])
    lines = [[o.client_order_id, o.symbol, o.side.value, f"{o.quantity:f}", o.state.value] for o in orders]
    print_rows(lines, ["order", "symbol", "side", "shares", "state"])


@broker.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: a free one, printed.")] = 8920,
    bars: Annotated[
        Path | None, typer.Option(help="Parquet or CSV with session, symbol, open, high, low, close, volume; the clock runs its auctions.")
    ] = None,
    symbols: Annotated[str, typer.Option(help="Symbols that are listed besides those of --bars, with commas between.")] = "",
    cash: Annotated[str, typer.Option(help="Cash of the account, USD.")] = "1000000",
    seed: Annotated[int, typer.Option(help="Of every chance: equal calls give equal ids and fills.")] = 1,
    now: Annotated[str | None, typer.Option(metavar="INSTANT", help="Stand at this instant until told otherwise.")] = None,
    log: Annotated[Path | None, typer.Option(help="Append every order and execution to this file, one JSON line each.")] = None,
    faults: Annotated[str | None, typer.Option(help="What goes wrong, as JSON, or @FILE: docs/broker.md.")] = None,
    latency_seconds: Annotated[float, typer.Option(min=0, help="From an order's arrival until it takes part.")] = 0.0,
    commission_per_share: Annotated[float, typer.Option(min=0, max=1, help="USD.")] = 0.0,
    borrow_rate: Annotated[float, typer.Option(min=0, max=1, help="A year, on shorts; Alpaca charges none on paper.")] = 0.0,
) -> None:
    """Serve Alpaca's paper trading interface on this machine from the simulated exchange, without an account; any keys are let in."""
    from decimal import Decimal, InvalidOperation

    from pydantic import ValidationError

    from adapters.clock import SystemClock
    from quant.calendar import exchange_calendar
    from quant.trading.exchange import ExchangeRules
    from quant.trading.execution import CostSettings
    from services.broker.faults import FaultPlan, plan_of
    from services.broker.house import ControlledClock, House, Log
    from services.broker.server import BrokerServer, bind
    from services.broker.server import serve as run

    try:
        text = None if faults is None else Path(faults[1:]).read_text() if faults.startswith("@") else faults
        plan = FaultPlan() if text is None else plan_of(text)
    except (OSError, ValidationError) as error:
        raise InputError(expected("faults as in docs/broker.md", found=error, where="--faults", do="correct them")) from None
    try:
        deposit = Decimal(cash)
    except InvalidOperation:
        deposit = Decimal(0)
    if not (deposit.is_finite() and deposit > 0):
        raise InputError(expected("an amount above zero", found=cash, where="--cash", do="write it as 100000.00"))
    costs = CostSettings(commission_per_share_usd=commission_per_share, commission_minimum_usd=0.0, borrow_rate_annual=borrow_rate)
    house = House(
        calendar=exchange_calendar(),
        rules=ExchangeRules(costs=costs, seed=seed, deposit=deposit, latency_seconds=latency_seconds),
        symbols=[symbol for symbol in symbols.split(",") if symbol],
        bars=None if bars is None else _read(bars),
        clock=ControlledClock(SystemClock(), _instant(now)),
        log=Log(log),
    )
    try:
        bound = bind(port)
    except OSError as error:
        raise InputError(expected("a free port", found=f"{port}: {error.strerror}", where="--port", do="choose another, or 0")) from None
    out.print(f"http://127.0.0.1:{bound.getsockname()[1]}", highlight=False)
    run(BrokerServer(house, plan), bound)


@broker.command()
def listen(
    give_up_seconds: Annotated[float, typer.Option(min=1, help="End with an error after so long without a connection.")] = 300.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="Listen so long, then end; default: until it is interrupted.")] = None,
) -> None:
    """Write the order updates that the broker's stream sends into the inbox, as they come; the daily run polls as well."""
    import time

    from adapters.brokers.alpaca_stream import AlpacaStream
    from adapters.clock import SystemClock
    from adapters.ledger.inbox import open_inbox
    from orchestration.definitions import alpaca_broker
    from orchestration.settings import alpaca_access, alpaca_keys, data_root, load_settings
    from quant.calendar import exchange_calendar

    settings = load_settings()
    if settings.broker.kind != "alpaca":
        found = f"kind = {settings.broker.kind}"
        raise InputError(expected("a broker with a stream", found=found, where="[broker] of the profile", do='set kind = "alpaca"'))
    clock = SystemClock()
    account = alpaca_broker(settings, exchange_calendar(settings.calendar.exchange), clock).account().account_id
    data_root().mkdir(parents=True, exist_ok=True)
    inbox = open_inbox(f"sqlite:///{data_root() / 'ledger.sqlite'}", clock)
    stream = AlpacaStream(alpaca_access(settings.broker), alpaca_keys(), inbox, account)
    end = None if seconds is None else time.monotonic() + seconds
    out.print(f"Listening for account {account}.", highlight=False)
    try:
        stream.listen(lambda: end is not None and time.monotonic() > end, give_up_seconds=give_up_seconds)
    finally:
        out.print(f"{stream.received} updates received, {stream.lost} of them lost.", highlight=False)


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InputError(expected("an instant such as 2024-03-01T21:00:00+00:00", found=text, where="--now", do="add the time zone"))
    return at


def _read(path: Path):  # noqa: ANN202 (polars is imported when it is needed)
    import polars as pl

    try:
        rows = pl.read_csv(path, try_parse_dates=True) if path.suffix == ".csv" else pl.read_parquet(path)
        numbers = ("open", "high", "low", "close", "volume")
        return rows.with_columns(pl.col("session").cast(pl.Date), pl.col("symbol").cast(pl.String), pl.col(numbers).cast(pl.Float64))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            expected(
                "bars as Parquet or CSV with session, symbol, open, high, low, close, volume",
                found=error,
                where=str(path),
                do="name another file",
            )
        ) from None


def _no_market(day: date) -> NoReturn:
    raise InputError(expected("no question about a market", found=day, where="broker account", do="report this"))
