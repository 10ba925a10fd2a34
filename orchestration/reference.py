"""The reference pages that are made from the code: data dictionary, settings, command line (`make docs`; a test holds them to it)."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.models import CommandInfo

from adapters.lake.delta import table_named
from orchestration.settings import REPOSITORY, AlpacaSourceSettings, FilesSourceSettings, SampleSettings, Settings
from quant.tables import TABLES, Column
from strategies.alpha_baseline.model import ModelSettings

_MEANINGS = {
    "source.kind": "which source",
    "source.universe": "all its symbols, or a list of them (of alpaca always a list)",
    "source.files.bars": "file or folder of Parquet or CSV, from the profile's folder",
    "source.files.actions": "the same for corporate actions; none: there are none",
    "source.files.columns": 'their names to ours, where they differ: `{ date = "session" }`',
    "source.files.convention": "how the vendor turns a dividend into a price factor: 1 - D / previous close, or C / (C + D) on the ex-date",
    "source.files.absent": "optional columns (vwap) that the files have, but empty; a column that is not there needs no entry",
    "source.files.bad_rows": "refuse the whole file, or let the gate keep bad rows out",
    "source.files.grows": "new files will come, so every session has a partition and a scheduled run; else it ends with what it has",
    "source.files.publish_delay_minutes": "from the close until the bars are there; the decision comes after it and before the next open",
    "source.alpaca.asof": "day on which the universe's symbols were these companies' names; it stays. Or -: each symbol as it was traded",
    "source.alpaca.feed": "sip: all exchanges; iex: one of them, about 2.5 % of the volume, also at once without a subscription",
    "source.alpaca.first_session": "before it nothing is asked for",
    "source.alpaca.convention": "how a dividend becomes a price factor here; the prices come raw",
    "source.alpaca.publish_delay_minutes": "from the close until the bars are there; without a subscription sip has what is 15 minutes old",
    "source.alpaca.adjusted_closes": "ask for adjusted closes, too, for rule 23 of the gate: twice as many requests for bars",
    "source.alpaca.data_url": "another address than Alpaca's own (a proxy, a test); https, or http on this machine",
    "source.alpaca.trading_url": "the same for the calendar and the list of assets",
    "calendar.exchange": "the exchange's calendar",
    "calendar.start": "first session of the history",
    "calendar.paper_start": "sessions before it are history, from it on daily sessions",
    "calendar.end": "last session, if the source is to end earlier",
    "strategy.name": "folder under strategies/",
    "strategy.factors": "TOML or Python file of factors of your own (name -> expression), columns of table user_factors; or none",
    "strategy.features": "what the model reads; none: alpha158+library with a library, else alpha158",
    "model.label": "return to predict: next open to the open after, or close to next close",
    "model.label_scale": "labels as they are, or centred and scaled within their session",
    "model.train_years": "calendar years of training; one more is validated on, so scores start after both",
    "model.max_train_years": "roll the training window at this length; none: it grows",
    "model.rounds": "trees at most",
    "model.early_stopping_rounds": "stop after so many rounds without a better validation loss",
    "model.seed": "of LightGBM",
    "model.threads": "of LightGBM",
    "model.params": "go to LightGBM as they are",
    "universe.min_price_usd": "a session's raw close below it: the name is not scored, and what is held of it is sold",
    "universe.min_median_dollar_volume_usd": "the same for the median of close x volume over the window",
    "universe.window_sessions": "exchange sessions of that window, the session itself included",
    "portfolio.names_per_side": "N of top-N long and bottom-N short; at most half the names of a session",
    "portfolio.sides": "long and short, or long only",
    "portfolio.gross_exposure_ratio": "longs plus shorts, of net asset value",
    "portfolio.initial_cash_usd": "cash a book starts with",
    "costs.slippage_bps": "paid on every fill, of the price",
    "costs.impact_coefficient": "price move (ratio) of an order as large as the auction; grows with the square root of the share taken",
    "costs.commission_per_share_usd": "commission",
    "costs.commission_minimum_usd": "commission of an order at least",
    "costs.auction_share_ratio": "share of a session's volume that trades in the opening auction",
    "costs.participation_cap_ratio": "share of the auction that one side of a symbol may take; the rest expires",
    "costs.borrow_rate_annual": "fee on shorts, of their value",
    "costs.sec_fee_per_million_usd": "fee of the SEC on the value of sales, rounded up to the cent",
    "costs.taf_per_share_usd": "FINRA's trading activity fee on shares sold, rounded up to the cent",
    "costs.taf_maximum_usd": "at most so much of it an execution",
    "ledger.dividends_paid": "when a dividend becomes cash; it is earned on its ex-date either way",
    "ledger.dividend_pay_delay_days": "calendar days from the ex-date to a pay date that the source does not have; such a date is flagged",
    "ledger.interest_credit_rate_annual": "on cash, less what shorts were sold for",
    "ledger.interest_debit_rate_annual": "on what is borrowed: cash, less the value of shorts, below zero",
    "ledger.interest_year_days": "days of a year of interest",
    "ledger.stale_limit_sessions": "a holding without an accepted price for so many sessions is written off: docs/decisions/ledger.md",
    "risk.max_gross_ratio": "longs plus shorts, of net asset value",
    "risk.max_net_ratio": "longs minus shorts, of net asset value",
    "risk.max_name_ratio": "one name, of net asset value",
    "risk.max_order_notional_usd": "value of one order",
    "risk.max_volume_ratio": "one order, of the 20-session median volume",
    "risk.max_sector_ratio": "longs plus shorts of one sector, of net asset value",
    "risk.max_turnover_ratio": "all orders of a session, of net asset value",
    "risk.max_collar_ratio": "distance of an order's price from the last close",
    "risk.max_daily_loss_ratio": "a larger loss of a session, of its opening value, makes the book REDUCING",
    "risk.max_drawdown_ratio": "a larger loss from the peak, of the peak, makes the book HALTED",
    "risk.max_same_orders": "orders of one name and side at once",
    "risk.buying_power_multiple": "what is held plus 1.05 times what is opened, of net asset value",
    "risk.sectors": "symbol = sector; a name that is not here is a sector of its own",
    "risk.not_shortable": "names that are never shorted",
    "risk.max_borrow_shares": "symbol = shares that can be borrowed; a name that is not here has no bound",
    "gate.active_sessions": "a symbol seen in the last so many sessions is expected in this one",
    "gate.feed_fault_ratio": "share of the expected symbols that may be missing or faulty before the session stops",
    "gate.feed_fault_min_symbols": "and how many that must be at least; as many must be gone before a universe has shrunk",
    "gate.unchanged_sessions": "the same close in so many sessions warns",
    "gate.volume_sessions": "a volume is compared with its median of so many sessions before",
    "gate.volume_multiple": "a volume of more than so many medians warns",
    "gate.jump_ratio": "a larger move of the close, corporate actions allowed for, must be explained or is quarantined",
    "gate.crash_volume_multiple": "a volume of so many medians explains a jump",
    "gate.market_multiple": "a market that moves the same way explains a jump of so many times its move",
    "gate.market_min_symbols": "the median move of fewer symbols is no move of the market",
    "gate.split_tolerance": "how near to a split's ratio the open is (the close: twice that), as a share of the logarithm of the ratio",
    "gate.split_volume_tolerance": "the same for the volume, which a split shifts inversely",
    "gate.split_move_ratio": "on the ex-date of a recorded split no larger move may be left over",
    "gate.hold_sessions": "a mix-up of units or a missed split of 2:1 or more is held for so many sessions while the price stays there; "
    "within as many a jump may go back",
    "gate.scale_tolerance": "a ratio as near as that to 100 or 0.01 is a mix-up of units",
    "gate.universe_warn_ratio": "a larger share of the symbols lost since the session before warns",
    "gate.universe_stop_ratio": "a larger share of the symbols lost stops the session",
    "gate.peer_warn_ratio": "a larger difference from another source's close warns",
    "gate.peer_block_ratio": "a larger difference from another source's close quarantines",
    "gate.revised_volume_ratio": "a revision of nothing but a used volume or vwap, by no larger share, is stored and not told",
    "gate.adjusted_tolerance": "a larger difference of a published adjusted return from prices and actions warns",
    "expectations.enabled": "hold each session's accepted bars against the suite; it costs 4 s a process and 0.1 s a session",
    "expectations.sessions": "compared with so many sessions before",
    "expectations.rows_ratio": "a number of rows further than that from its median fails",
    "expectations.volume_multiple": "a volume of all symbols of more than so many medians fails, or of less than a median over that",
    "expectations.median_move_ratio": "a larger move of the median symbol's close fails",
    "expectations.unchanged_ratio": "a larger share of closes that did not change fails; one may always stand still",
    "expectations.null_ratio": "a larger share of rows without a vwap fails, where the source has it",
    "expectations.highest_price_usd": "a higher close fails",
    "expectations.pages": "so many sessions' pages are kept in reports/data-docs",
    "paper.book": "name of the paper book",
    "paper.start": "its first session; none: the paper start",
    "backtest.book": "name of the backtest's book",
    "backtest.start": "first session; none: the first with scores",
    "backtest.end": "last session; none: the last before the paper start",
    "backtest.stops_on_losses": "max_daily_loss_ratio and max_drawdown_ratio stop the backtest, too; false: they bind the paper book alone",
    "broker.dry_run": "orders are recorded as dry_run, and nothing is sent",
    "audit.anchors": "folder on another disk or machine that gets a copy of every anchor; none: they are in the data root only",
    "audit.key": "file of the Ed25519 key that signs them, made if it is not there; none: audit/key.pem of the data root",
    "reconcile.max_position_usd": "a difference in shares of one symbol up to this value is booked, a larger one blocks the symbol",
    "reconcile.max_cash_usd": "a difference in cash up to this is booked, a larger one halts the book",
    "broker.kind": "the embedded simulated exchange, or an Alpaca account: docs/broker.md",
    "broker.url": "of the account: paper trading, or a stand-in on this machine (`afterclose broker serve`)",
    "broker.allow_live": "with AFTERCLOSE_LIVE_ACCOUNT = the account's number: an address that is not of paper trading; both or neither",
    "broker.connect_seconds": "to connect to the broker",
    "broker.read_seconds": "between two pieces of its reply",
    "broker.all_attempts_seconds": "for one question that is repeated until it is answered; an order is never repeated by this",
    "broker.never_books": "kinds of ledger entries that the broker never books: they are no break of the reconciliation",
    "alerts.channels": "every notice goes to all of them at once",
    "alerts.daily_pnl": "tell every channel what a session brought once its daily run is done; of a range only the newest session",
    "alerts.fallback": "in order; the first that works gets, too, what one of the channels did not take",
    "alerts.ui": "address of the UI in links; none: that of `afterclose start`",
    "alerts.freshness_minutes": "a table is stale so long after the session's publish time, or after 20:15 New York if that is later",
    "alerts.dead_man_minutes": "the same for a session that did not run",
    "alerts.timeout_seconds": "for each answer of a server; a whole delivery gets 5 more",
    "alerts.email.host": "mail server",
    "alerts.email.port": "its port",
    "alerts.email.security": "STARTTLS, TLS from the start, or none",
    "alerts.email.username": "none: no log-in",
    "alerts.email.password": "from the environment only: AFTERCLOSE__ALERTS__EMAIL__PASSWORD",
    "alerts.email.sender": "From",
    "alerts.email.recipients": "To",
    "alerts.slack.url": "from the environment only: AFTERCLOSE__ALERTS__SLACK__URL",
    "alerts.webhook.url": "where notices are POSTed",
    "alerts.webhook.secret": "from the environment only: AFTERCLOSE__ALERTS__WEBHOOK__SECRET",
}
_MADE = "<!-- Made by `make docs`; edit the code it describes. -->\n"


def data_dictionary() -> str:
    """Every table with grain, key and columns."""
    parts = [
        _MADE,
        "# Data dictionary\n",
        "Every table is a Delta Lake table in `data/lake/` and a view of its name in `data/afterclose.duckdb`.\n",
    ]
    for name in TABLES:
        table = table_named(name)
        parts.append(f"\n## {name}\n\n{table.grain}\n\nKey: {', '.join(table.key)}. Partitioned by {table.partition} of `{table.clock}`.")
        parts.append("Append-only.\n" if table.append_only else "A range of sessions is replaced at once.\n")
        parts.append("\n| column | type | unit | null | meaning |\n|---|---|---|---|---|")
        parts.extend(_row(column, spec) for column, spec in table.columns.items() if not _is_factor(name, column))
        if name == "alpha158":
            factors = [column for column in table.columns if _is_factor(name, column)]
            parts.append(f"| {factors[0]} ... {factors[-1]} | Float32 | | yes | Qlib's {len(factors)} columns: {', '.join(factors)} |")
    return "\n".join(parts) + "\n"


def _is_factor(table: str, column: str) -> bool:
    return table == "alpha158" and column not in ("session", "symbol")


def _row(name: str, column: Column) -> str:
    meaning = column.description.replace("|", r"\|")
    return f"| {name} | {column.dtype} | {column.unit} | {'yes' if column.nullable else ''} | {meaning} |".replace("  ", " ")


def settings_reference() -> str:
    """Every key of the profile with its meaning, type, default and bounds; KeyError for a key that nobody explained."""
    parts = [
        _MADE,
        "# Settings\n",
        (
            "One profile (`afterclose.toml`, `--profile FILE` or `AFTERCLOSE_PROFILE`) and the environment: "
            "`AFTERCLOSE__SECTION__KEY=value` overrides a key. `AFTERCLOSE_DATA` names the data root. "
            "Unknown keys, unknown AFTERCLOSE variables and values out of range are refused.\n"
        ),
    ]
    for key, field in Settings.model_fields.items():
        kind = field.annotation
        if key == "source":
            for name, model in (("sample", SampleSettings), ("files", FilesSourceSettings), ("alpaca", AlpacaSourceSettings)):
                parts += [f'\n## [source], kind = "{name}"\n', _doc(model), *_table("source", model)]
        elif key == "cross_check":
            parts += [
                "\n## [cross_check]\n",
                (
                    "A second source, with the keys of [source] (`[cross_check.files]`, `[cross_check.alpaca]`). Rule 19 of the gate "
                    "compares the closes of [source] with its closes; nothing else of it is used. Without this section: no second source."
                ),
            ]
        elif key == "model":
            parts += [
                "\n## [model]\n",
                "Overrides of the strategy's own defaults (strategies/alpha_baseline/config.toml).",
                *_table("model", ModelSettings),
            ]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            parts += [f"\n## [{key}]\n", _doc(kind), *_table(key, kind)]
        else:
            parts.append(f"\n`{key}`: {_kind(kind)}\n")
    return "\n".join(parts) + "\n"


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(section: str, model: type[BaseModel]) -> Iterator[str]:
    yield "\n| key | meaning | type | default | bounds |\n|---|---|---|---|---|"
    for name, field in model.model_fields.items():
        kind = _section(field.annotation)
        if kind is not None:
            for nested, inner in kind.model_fields.items():
                yield _setting(section, f"{name}.{nested}", inner)
        else:
            yield _setting(section, name, field)


def _section(annotation: object) -> type[BaseModel] | None:
    """The model of a section within a section, which may be left out."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return kinds[0] if kinds else None


def _setting(section: str, name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else field.get_default(call_default_factory=True)
    shown = "" if default is PydanticUndefined else str(default if not isinstance(default, Mapping) or default else "{}")
    bounds = ", ".join(_bound(m) for m in field.metadata)
    return f"| {name} | {_MEANINGS[f'{section}.{name}']} | {_kind(field.annotation)} | {shown} | {bounds} |"


def _bound(constraint: object) -> str:
    for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
        if hasattr(constraint, name):
            return f"{sign} {getattr(constraint, name)}"
    if hasattr(constraint, "min_length"):
        return f"length >= {constraint.min_length}"  # type: ignore[attr-defined]
    return f"matches `{getattr(constraint, 'pattern', constraint)}`"


def _kind(annotation: object) -> str:
    if get_origin(annotation) is not None and str(get_origin(annotation)).endswith("Literal"):
        return " or ".join(repr(value) for value in get_args(annotation))
    if get_origin(annotation) is Union:  # what pydantic makes of a Literal or None
        return " or ".join("None" if part is NoneType else _kind(part) for part in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(repr(member.value) for member in annotation)
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return text.replace("typing.", "").replace("pydantic.types.", "").replace("datetime.", "").replace("|", "or")


def command_line() -> str:
    """--help of every command."""
    parts = [_MADE, "# Command line\n"]
    parts.extend(f"\n## afterclose {name}".rstrip() + f"\n\n```text\n{_help(name)}```" for name in ["", *commands()])
    return "\n".join(parts) + "\n"


def commands() -> list[str]:
    """Every command as it is typed, each group before its own."""
    from orchestration.cli import app

    names = [_name(command) for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names += [str(group.name), *(f"{group.name} {_name(command)}" for command in group.typer_instance.registered_commands)]
    return names


def _name(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "")


def _help(command: str) -> str:
    words = [sys.executable, "-m", "orchestration.cli", *command.split(), "--help"]
    environment = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PATH": "", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    return (
        "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()).replace("python -m orchestration.cli", "afterclose")
        + "\n"
    )


PAGES = {"docs/data-dictionary.md": data_dictionary, "docs/settings.md": settings_reference, "docs/command-line.md": command_line}


def main(root: Path = REPOSITORY) -> None:
    """Write the pages."""
    for path, make in PAGES.items():
        (root / path).write_text(make())


if __name__ == "__main__":
    main()
