"""`afterclose broker`: the account, and a broker on this machine to rehearse with."""

import os
import signal
import threading
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orchestration.terminal import out, parse_session, print_rows
from quant.errors import InputError, expected

broker = typer.Typer(help="The broker: its account, and one on this machine to rehearse with.", no_args_is_help=True)

REHEARSAL_KEYS = ("REHEARSAL", "rehearsal-only")


@broker.command()
def account() -> None:
    """What the broker says now: account, cash, equity, buying power, holdings and open orders."""
    from orchestration.workbench import Workbench

    with Workbench.opened() as bench:
        asked = bench.chain.broker(_no_market)
        if asked.capabilities.embedded:
            out.print(
                "The simulated exchange is embedded: it has no account apart from the ledger. See `afterclose status`.", soft_wrap=True
            )
            return
        held, positions, orders = asked.account(), asked.positions(), asked.open_orders()
    facts = [["account", held.account_id], ["active", str(held.active)], ["cash", f"{held.cash:,.2f} USD"]]
    facts += [["equity", f"{held.equity:,.2f} USD"], ["buying power", f"{held.buying_power:,.2f} USD"]]
    print_rows(facts, ["fact", "value"])
    print_rows([[p.symbol, f"{p.quantity:f}", f"{p.average_entry_price:f}"] for p in positions], ["symbol", "shares", "average cost"])
    print_rows(
        [[o.client_order_id, o.symbol, o.side.value, f"{o.quantity:f}", o.state.value] for o in orders],
        ["order", "symbol", "side", "shares", "state"],
    )


@broker.command()
def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8764,
    stream_port: Annotated[int, typer.Option(help="Port of the stream trade_updates.")] = 0,
    cash: Annotated[float, typer.Option(help="Cash of the account, USD.")] = 1_000_000,
    account_id: Annotated[str, typer.Option(help="Number of the account.")] = "PA-REHEARSAL",
    seed: Annotated[int, typer.Option(help="Of what is left to chance.")] = 0,
    partial_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the executions that stop at a random part.")] = 0.0,
    log: Annotated[Path | None, typer.Option(help="File that gets a JSON line for everything that happens to an order.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="What becomes of the next orders, in turn, for instance 504_after.")] = None,
) -> None:
    """A broker that speaks Alpaca's protocol, on this machine, with a fresh account of play money, until Ctrl-C.

    Its keys are those of APCA_API_KEY_ID and APCA_API_SECRET_KEY, or else REHEARSAL and rehearsal-only. Point a profile at it with
    [broker] kind = "alpaca" and [broker.alpaca] url. It holds a session when it is told to: `afterclose broker hold`.
    """
    from adapters.clock import SystemClock
    from quant.calendar import exchange_calendar
    from services.broker.faults import Fault, Plan
    from services.broker.server import new_server

    unknown = sorted(set(fault or []) - set(Fault))
    if unknown:
        raise InputError(expected(f"one of {', '.join(Fault)}", found=unknown[0], where="--fault", do="choose one"))
    keys = [os.environ.get(name) or other for name, other in zip(("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"), REHEARSAL_KEYS, strict=True)]
    server = new_server(
        calendar=exchange_calendar(),
        clock=SystemClock(),
        key_id=keys[0],
        secret=keys[1],
        cash=Decimal(str(cash)),
        account_id=account_id,
        seed=seed,
        partial_share=partial_share,
        log=log,
    )
    server.plans = [Plan(fault=Fault(name)) for name in fault or []]
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with server.running(port, stream_port) as (url, stream):
        out.print(
            f"broker  {url}\nstream  {stream}\naccount {account_id} with {cash:,.2f} USD; Ctrl-C ends it", highlight=False, soft_wrap=True
        )
        ended.wait()


@broker.command()
def hold(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Session to hold, YYYY-MM-DD; its accepted bars are in the lake.")],
) -> None:
    """Let the broker of `afterclose broker serve` hold a session with the bars of the data root: its auctions execute what waits."""
    import polars as pl
    import requests

    from orchestration.workbench import Workbench
    from quant.trading.market import LIQUIDITY_SESSIONS, liquidity

    day = parse_session(session, "SESSION")
    with Workbench.opened() as bench:
        url = bench.settings.broker.alpaca.url
        if not url.startswith("http://127.0.0.1"):
            do = "start `afterclose broker serve` and set [broker.alpaca] url to it"
            raise InputError(expected("a broker on this machine", found=url, where="[broker.alpaca] url", do=do))
        rows = bench.lake.read("adjusted_bars", first=bench.chain.back(day, LIQUIDITY_SESSIONS + 1), last=day)
        bars = liquidity(rows, bench.chain.calendar).filter(pl.col("session") == day)
    if bars.is_empty():
        raise InputError(expected(f"adjusted bars of {day}", found="none", where="the lake", do="run its session first"))
    names = ("open", "close", "high", "low", "prior_median_volume")
    body = {"session": session, "bars": {row["symbol"]: {name: row[name] for name in names} for row in bars.iter_rows(named=True)}}
    done = requests.post(f"{url}/_control/session", json=body, timeout=30)
    out.print(f"{day}: {done.json()['fills']} executions so far, cash {done.json()['cash']} USD", highlight=False, soft_wrap=True)


def _no_market(day: date) -> NoReturn:
    raise InputError(expected("no question about a market", found=day, where="broker account", do="report this"))
