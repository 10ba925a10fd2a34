"""Adjusted closes rebuilt from raw bars and corporate actions against those that a vendor published: how many symbols agree.

python -m benchmarks.adjustment --bars PATH --actions PATH --published PATH [--column date=session] [--convention ex_date_close]

``--published`` has session, symbol and adj_close; the columns of actions are ex_date, symbol, kind, value (ex_date may be named as the
session is). Each symbol's series is anchored at its last row, because the vendor knew later events.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from quant.errors import InputError
from quant.market.adjustment import adjusted_bars, seen_from
from quant.ports import AdjustmentConvention

BOUNDS = (1e-9, 1e-4)
_PRICES = ("open", "high", "low", "close", "volume")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path, required=True, help="Parquet or CSV of raw bars")
    parser.add_argument("--actions", type=Path, required=True, help="Parquet or CSV of splits, dividends and spin-offs")
    parser.add_argument("--published", type=Path, required=True, help="Parquet or CSV of adjusted closes")
    parser.add_argument("--column", action="append", default=[], metavar="THEIRS=OURS", help="column to rename, e.g. date=session")
    parser.add_argument("--convention", default="ex_date_close", choices=[c.value for c in AdjustmentConvention])
    return parser.parse_args()


def read(path: Path, names: Mapping[str, str]) -> pl.DataFrame:
    rows = pl.read_csv(path, try_parse_dates=True) if path.suffix == ".csv" else pl.read_parquet(path)
    return rows.rename({theirs: ours for theirs, ours in names.items() if theirs in rows.columns})


def worst_errors(bars: pl.DataFrame, actions: pl.DataFrame, published: pl.DataFrame, convention: AdjustmentConvention) -> pl.DataFrame:
    """symbol, error (the largest relative one of its rebuilt closes), session of it; the worst symbol first.

    ``bars``: session, symbol, open, high, low, close, volume. ``published``: session, symbol, adj_close.
    """
    accepted = bars.select("session", "symbol", *(pl.col(name).cast(pl.Float64) for name in _PRICES), vwap=pl.lit(None, pl.Float64))
    rows = adjusted_bars(accepted, actions, convention)
    rebuilt = seen_from(rows, bars.select(pl.col("session").max()).item()).select("session", "symbol", rebuilt="close")
    both = published.join(accepted.select("session", "symbol", "close"), on=["session", "symbol"]).join(rebuilt, on=["session", "symbol"])
    anchor = (pl.col("adj_close") / pl.col("close")).last().over("symbol", order_by="session")
    errors = both.with_columns(error=(pl.col("rebuilt") * anchor / pl.col("adj_close") - 1).abs())
    worst = errors.sort("error", descending=True).group_by("symbol", maintain_order=True).first()
    return worst.select("symbol", "error", "session").sort("error", "symbol", descending=[True, False])


def main() -> None:
    given = arguments()
    names = dict(pair.split("=", 1) for pair in given.column)
    dated = {theirs: "ex_date" if ours == "session" else ours for theirs, ours in names.items()}
    bars, actions, published = read(given.bars, names), read(given.actions, dated), read(given.published, names)
    began = time.monotonic()
    try:
        worst = worst_errors(bars, actions, published, AdjustmentConvention(given.convention))
    except InputError as refused:
        raise SystemExit(str(refused)) from None
    seconds = time.monotonic() - began
    print(f"{bars.height:,} bars and {actions.height:,} actions of {worst.height} symbols, {given.convention}: {seconds:.1f} s")
    for bound in BOUNDS:
        good = worst.filter(pl.col("error") < bound).height
        print(f"below {bound:g} relative: {good} of {worst.height} symbols ({good / worst.height:.1%})")
    for bound, above in zip(BOUNDS, (*BOUNDS[1:], float("inf")), strict=True):
        beyond = worst.filter(pl.col("error") >= bound, pl.col("error") < above)
        print(f"from {bound:g} to {above:g}:" if above < float("inf") else f"from {bound:g} on:")
        for symbol, error, session in beyond.iter_rows():
            print(f"    {symbol:<8}{error:9.1e} on {session}")


if __name__ == "__main__":
    main()
