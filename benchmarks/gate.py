"""The gate on faults put into real bars: the share of each kind that is found, false alarms, and seconds.

python -m benchmarks.gate                                   the sample source
python -m benchmarks.gate --bars PATH --actions PATH [--column date=session] [--defects PATH]
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from adapters.sources.files import FilesSource
from adapters.sources.sample import SampleSource
from quant.calendar import ExchangeCalendar, exchange_calendar
from quant.market.delivery import action_rows, raw_bar_rows
from quant.ports import AdjustmentConvention, BarSource
from quant.quality.gate import GateResult, gate, rules, stopped_sessions
from quant.quality.rule import Beside, GateSettings, Severity

KEY = ["session", "symbol"]
PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume", "vwap")
SPLITS = {
    "missed split 2:1": 2.0,
    "missed split 3:1": 3.0,
    "missed split 4:1": 4.0,
    "missed split 3:2": 1.5,
    "missed split 4:3": 4 / 3,
    "missed split 5:4": 1.25,
    "missed reverse split 1:2": 0.5,
    "missed reverse split 1:10": 0.1,
}
ROWS = (
    "prices x 100",
    "prices x 0.01",
    *SPLITS,
    "high and low swapped",
    "open and close swapped",
    "row repeated",
    "row repeated for 5 sessions",
    "row dropped",
    "row duplicated, other close",
    "row dated in the future",
    "row dated on a weekend",
    "a price of zero",
    "two tickers swapped, prices 1.5 apart",
)
FEEDS = ("half the feed missing", "session missing", "session repeated")
FORGOTTEN = "recorded split removed, 2:1 and larger", "recorded split removed, smaller"
HISTORY, APART, STALE = 25, 7, 5  # sessions a symbol has before a fault, and between faults; sessions of a stale row
SWAP_RATIO = 1.5


@dataclass(frozen=True, kw_only=True)
class Market:
    """Real bars and actions as the lake holds them, and where known defects are (session, symbol)."""

    bars: pl.DataFrame
    actions: pl.DataFrame
    defects: pl.DataFrame
    absent: frozenset[str]
    calendar: ExchangeCalendar

    @property
    def first(self) -> date:
        return self.bars["session"].min()  # type: ignore[return-value]

    @property
    def last(self) -> date:
        return self.bars["session"].max()  # type: ignore[return-value]

    def judged(self, bars: pl.DataFrame, actions: pl.DataFrame, *, first: date | None = None, after: int = 0) -> GateResult:
        return gate(
            bars,
            first=first or self.first,
            last=self.last + timedelta(days=after),
            context=self.bars,
            calendar=self.calendar,
            settings=GateSettings(),
            absent=self.absent,
            last_closed_session=self.last,
            beside=Beside(actions=actions),
        )


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """A market with faults: ``targets`` is session, symbol, fault of each row a fault is to be found at, ``sites`` counts the faults."""

    bars: pl.DataFrame
    actions: pl.DataFrame
    targets: pl.DataFrame


def market_of(source: BarSource, defects: pl.DataFrame | None = None) -> Market:
    calendar, now = exchange_calendar(), datetime(2026, 1, 1, tzinfo=UTC)
    first, last = source.first_session(), source.last_session(now)
    bars = raw_bar_rows(source.bars(first, last), facts=source.facts, calendar=calendar, received_at=now)
    actions = action_rows(source.actions(first, last), facts=source.facts, calendar=calendar, received_at=now)
    known = defects if defects is not None else bars.select(KEY).clear()
    return Market(bars=bars, actions=actions, defects=known, absent=source.facts.absent, calendar=calendar)


def faulty(market: Market, clean: GateResult, *, seed: int, each: int) -> Faulty:
    """``market`` with at most ``each`` faults of every kind at random places that the gate let pass, none near another one."""
    rng = np.random.default_rng(seed)
    numbers = {day: n for n, day in enumerate(market.calendar.days)}
    bars = market.bars.sort("symbol", "session").with_columns(
        pl.col("session").replace_strict(numbers, return_dtype=pl.Int64).alias("number"),
        pl.int_range(pl.len()).over("symbol").alias("n"),
    )
    places = _places(bars, market, clean, rng)
    feeds = _feed_sessions(market, rng, each)
    sites = _sites(places, feeds, bars["symbol"].n_unique(), rng, each)
    actions, forgotten = _forgotten(market, sites, rng)
    changed = _repeated(_split(_in_place(bars, sites, rng), sites), bars, sites)
    pairs = _pairs(sites.filter(pl.col("fault") == ROWS[-1]), changed.join(places, on=KEY, how="semi"), rng)
    changed = _swapped(_of_feeds(changed, bars, feeds, rng), pairs)
    moved = _moved(bars, sites, market)
    kept = changed.join(sites.filter(pl.col("fault") == "row dropped"), on=KEY, how="anti")
    whole = pl.concat([kept.select(market.bars.columns), moved.drop("fault").select(market.bars.columns)])
    stale = sites.filter(pl.col("fault") == "row repeated for 5 sessions").select("symbol", n=pl.col("n") + STALE - 1, fault="fault")
    elsewhere = ["row dated in the future", "row dated on a weekend", "row repeated for 5 sessions", ROWS[-1]]
    targets = pl.concat(
        frame.select(*KEY, "fault")
        for frame in (
            sites.filter(~pl.col("fault").is_in(elsewhere)),
            stale.join(bars, on=["symbol", "n"]),
            moved.filter(pl.col("fault").str.starts_with("row dated")),
            pairs.select("session", pl.concat_list("symbol", "other").alias("symbol"), fault=pl.lit(ROWS[-1])).explode("symbol"),
            feeds.with_columns(symbol=pl.lit("*")),
            forgotten,
        )
    )
    return Faulty(bars=whole, actions=_with_dividends(actions, sites), targets=targets)


def _places(bars: pl.DataFrame, market: Market, clean: GateResult, rng: np.random.Generator) -> pl.DataFrame:
    """Rows in random order that have a history and a future, no finding and no known defect near them."""
    marked = pl.concat([clean.findings.select(KEY), market.defects.select(KEY)]).unique()
    near = (
        bars.join(marked, on=KEY, how="semi")
        .select("symbol", n=pl.int_ranges(pl.col("n") - APART, pl.col("n") + APART + 1))
        .explode("n")
        .unique()
    )
    inside = bars.filter(pl.col("n") >= HISTORY, pl.col("n") < pl.len().over("symbol") - APART)
    return inside.join(near, on=["symbol", "n"], how="anti").sample(fraction=1, shuffle=True, seed=int(rng.integers(2**31)))


def _feed_sessions(market: Market, rng: np.random.Generator, each: int) -> pl.DataFrame:
    days = market.bars["session"].unique().sort()
    step = 3 * APART
    slots = rng.permutation(np.arange(HISTORY, len(days) - APART, step))[: min(each, len(days) // (8 * step)) * len(FEEDS)]
    return pl.DataFrame({"session": days[slots.tolist()], "fault": [FEEDS[n % len(FEEDS)] for n in range(len(slots))]}).sort("session")


def _sites(places: pl.DataFrame, feeds: pl.DataFrame, symbols: int, rng: np.random.Generator, each: int) -> pl.DataFrame:
    """session, symbol, n, number, fault: few at a time, so that a session with faults is not a feed fault."""
    at_once = max(1, symbols // 50)
    busy = np.zeros(places.select(pl.col("number").max()).item() + 2 * APART, dtype=int)
    for number in places.join(feeds, on="session").select("number").unique().to_series():
        busy[number - APART : number + APART] = at_once
    wanted = [fault for fault in ROWS for _ in range(each)]
    order = rng.permutation(len(wanted))
    taken: dict[str, list[int]] = {}
    chosen: list[tuple[date, str, int, int, str]] = []
    for session, symbol, n, number in places.select(*KEY, "n", "number").iter_rows():
        if len(chosen) == len(wanted):
            break
        if busy[number : number + APART].max() < at_once and all(abs(n - other) > HISTORY for other in taken.get(symbol, [])):
            busy[number : number + APART] += 1
            taken.setdefault(symbol, []).append(n)
            chosen.append((session, symbol, n, number, wanted[order[len(chosen)]]))
    schema = {"session": pl.Date, "symbol": pl.String, "n": pl.Int64, "number": pl.Int64, "fault": pl.String}
    return pl.DataFrame(chosen, schema=schema, orient="row")


def _pairs(sites: pl.DataFrame, bars: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """session, symbol, other: for each site another symbol of its session at another price."""
    prices = bars.select(*KEY, "close").sort(KEY)
    both = sites.join(prices, on=KEY).join(prices.rename({"symbol": "other", "close": "other_close"}), on="session")
    ratio = (pl.col("close") / pl.col("other_close")).log().abs()
    apart = both.filter(ratio > float(np.log(SWAP_RATIO)))
    shuffled = apart.sample(fraction=1, shuffle=True, seed=int(rng.integers(2**31)))
    return shuffled.unique(KEY, keep="first", maintain_order=True).select(*KEY, "other").sort(KEY)


def _forgotten(market: Market, sites: pl.DataFrame, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The actions without a third of the recorded splits, and these as targets; none near another fault or a known defect."""
    days = dict(enumerate(market.calendar.days))
    near = sites.select("symbol", number=pl.int_ranges(pl.col("number") - HISTORY, pl.col("number") + HISTORY)).explode("number")
    touched = near.with_columns(ex_date=pl.col("number").replace_strict(days, return_dtype=pl.Date))
    splits = market.actions.filter(pl.col("kind") == "split", pl.col("value").log().abs() > 0.2)
    bare = splits.join(market.bars, left_on=["ex_date", "symbol"], right_on=KEY, how="semi")
    free = bare.join(touched, on=["ex_date", "symbol"], how="anti").join(
        market.defects.rename({"session": "ex_date"}), on=["ex_date", "symbol"], how="anti"
    )
    gone = free.sample(n=(free.height + 2) // 3, seed=int(rng.integers(2**31)))
    large = pl.col("value").log().abs() >= float(np.log(2.0)) - 1e-9
    targets = gone.select("symbol", session="ex_date", fault=pl.when(large).then(pl.lit(FORGOTTEN[0])).otherwise(pl.lit(FORGOTTEN[1])))
    return market.actions.join(gone, on="digest", how="anti"), targets


def _in_place(bars: pl.DataFrame, sites: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Faults that change numbers of one row."""
    which = bars.join(sites.select(*KEY, "fault"), on=KEY, how="left", maintain_order="left")
    zero = pl.Series("zero", rng.choice(PRICES, which.height))

    def is_(fault: str) -> pl.Expr:
        return (pl.col("fault") == fault).fill_null(value=False)

    scale = pl.when(is_("prices x 100")).then(100.0).when(is_("prices x 0.01")).then(0.01).otherwise(1.0)
    swapped = {"high": "low", "low": "high", "open": "close", "close": "open"}
    names = {
        "high": "high and low swapped",
        "low": "high and low swapped",
        "open": "open and close swapped",
        "close": "open and close swapped",
    }
    exchanged = [pl.when(is_(names[name])).then(pl.col(other)).otherwise(pl.col(name)).alias(name) for name, other in swapped.items()]
    hit = which.with_columns(zero)
    lost = [pl.when(is_("a price of zero") & (pl.col("zero") == name)).then(0.0).otherwise(pl.col(name)).alias(name) for name in PRICES]
    return hit.with_columns(exchanged).with_columns(lost).with_columns(pl.col(*PRICES, "vwap") * scale).drop("zero", "fault")


def _factors(sites: pl.DataFrame) -> pl.DataFrame:
    """symbol, session, factor: new shares per old of all missed splits up to the session."""
    missed = sites.filter(pl.col("fault").is_in(list(SPLITS))).sort("symbol", "session")
    new = pl.col("fault").replace_strict(SPLITS, return_dtype=pl.Float64)
    return missed.select("symbol", "session", factor=new.cum_prod().over("symbol")).sort("session")


def _split(bars: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
    """A missed split divides every later price, too."""
    split = bars.sort("session").join_asof(_factors(sites), on="session", by="symbol", check_sortedness=False)
    factor = pl.col("factor").fill_null(1.0)
    return split.with_columns(pl.col(*PRICES, "vwap") / factor, pl.col("volume") * factor).drop("factor")


def _with_dividends(actions: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
    """Dividends after a missed split are paid on more shares."""
    later = actions.sort("ex_date").join_asof(_factors(sites), left_on="ex_date", right_on="session", by="symbol", check_sortedness=False)
    paid = pl.when(pl.col("kind") == "dividend").then(pl.col("value") / pl.col("factor").fill_null(1.0)).otherwise("value")
    return later.with_columns(value=paid).select(actions.columns)


def _repeated(changed: pl.DataFrame, bars: pl.DataFrame, sites: pl.DataFrame) -> pl.DataFrame:
    """Stale rows: the values of the row before the site."""
    long = (pl.col("fault") == "row repeated for 5 sessions").cast(pl.Int64) * (STALE - 1) + 1
    stale = sites.filter(pl.col("fault").str.starts_with("row repeated")).select(
        "symbol", old=pl.col("n") - 1, n=pl.int_ranges(pl.col("n"), pl.col("n") + long)
    )
    old = changed.select("symbol", old="n", **{f"old_{name}": name for name in VALUES})
    values = stale.explode("n").join(old, on=["symbol", "old"]).drop("old")
    both = changed.join(values, on=["symbol", "n"], how="left")
    fresh = [pl.when(pl.col("old_close").is_not_null()).then(pl.col(f"old_{name}")).otherwise(pl.col(name)).alias(name) for name in VALUES]
    return both.with_columns(fresh).select(bars.columns)


def _of_feeds(changed: pl.DataFrame, bars: pl.DataFrame, feeds: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Faults of whole sessions. Half the feed is at least half of its rows."""
    marked = changed.join(feeds, on="session", how="left").with_columns(draw=pl.Series("draw", rng.random(changed.height)))
    place = pl.col("draw").rank("ordinal").over("session")
    half = (pl.col("fault") == "half the feed missing") & (2 * place <= pl.len().over("session") + 1)
    gone = half | (pl.col("fault") == "session missing")
    kept = marked.filter(~gone.fill_null(value=False)).sort("symbol", "n")
    stale = ((pl.col("fault") == "session repeated") & (pl.col("symbol") == pl.col("symbol").shift(1))).fill_null(value=False)
    return kept.with_columns(pl.when(stale).then(pl.col(name).shift(1)).otherwise(pl.col(name)).alias(name) for name in VALUES).select(
        bars.columns
    )


def _swapped(changed: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Two symbols under each other's name in one session."""
    names = pl.concat([pairs, pairs.select("session", symbol="other", other="symbol")])
    return changed.join(names, on=KEY, how="left").with_columns(symbol=pl.coalesce("other", "symbol")).drop("other")


def _moved(bars: pl.DataFrame, sites: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Rows beside the sound one: dated elsewhere, or a second version in the same delivery."""
    rows = bars.join(sites.select(*KEY, "fault"), on=KEY)
    twins = rows.filter(pl.col("fault") == "row duplicated, other close").with_columns(close=(pl.col("high") + pl.col("low")) / 2)
    # A row of one symbol a day: the future ones lie beyond the end, the others on the Saturday after.
    place = pl.col("fault").cum_count().over("symbol", "fault")
    future = rows.filter(pl.col("fault") == "row dated in the future").with_columns(
        session=pl.lit(market.last) + pl.duration(days=1) * place.cast(pl.Int64)
    )
    weekend = rows.filter(pl.col("fault") == "row dated on a weekend").with_columns(session=pl.col("session").dt.offset_by("1w"))
    saturday = weekend.with_columns(session=pl.col("session") - pl.duration(days=1) * (pl.col("session").dt.weekday() + 1).cast(pl.Int64))
    return pl.concat([twins, future, saturday]).with_columns(digest=pl.col("digest") + pl.lit(" ") + pl.col("fault"))


def covered(found: pl.DataFrame, targets: pl.DataFrame) -> pl.DataFrame:
    """``targets`` with the rules (a list) of ``found`` that fired on the symbol or on the whole session."""
    own = found.select(*KEY, "rule")
    whole = found.filter(pl.col("symbol") == "*").select("session", "rule")
    both = pl.concat(
        [targets.join(own, on=KEY).select(*targets.columns, "rule"), targets.join(whole, on="session").select(*targets.columns, "rule")]
    )
    fired = both.unique().group_by(targets.columns).agg(pl.col("rule").sort())
    return targets.join(fired, on=targets.columns, how="left")


def recall(seen: Sequence[tuple[Faulty, GateResult]]) -> pl.DataFrame:
    """fault, faults, kept_out and told (shares), rules (those that fired most)."""
    parts = [
        covered(result.findings, case.targets).join(
            covered(result.findings.filter(pl.col("severity") != Severity.WARN), case.targets).rename({"rule": "blocking"}),
            on=case.targets.columns,
        )
        for case, result in seen
    ]
    every = pl.concat(parts)
    fired = every.explode("rule").drop_nulls("rule").group_by("fault", "rule").len().sort("len", "rule", descending=[True, False])
    names = fired.group_by("fault", maintain_order=True).agg(
        rules=(pl.col("rule").str.slice(0, 3) + " " + pl.col("len").cast(pl.String)).head(4)
    )
    shares = every.group_by("fault").agg(
        faults=pl.len(), kept_out=pl.col("blocking").is_not_null().mean(), told=pl.col("rule").is_not_null().mean()
    )
    order = [*ROWS, *FORGOTTEN, *FEEDS]
    return shares.join(names, on="fault", how="left").sort(pl.col("fault").replace_strict({name: n for n, name in enumerate(order)}))


def collateral(clean: GateResult, seen: Sequence[tuple[Faulty, GateResult]]) -> tuple[int, int]:
    """Rows that are quarantined beside a fault, neither faulty nor held after a missed split, and not without the faults either; and how
    many of them are in sessions that one or two faults stopped, as they may in a universe of a few symbols.
    """
    total, in_stopped = 0, 0
    for case, result in seen:
        kept_out = result.quarantined.select(KEY).unique().join(clean.quarantined, on=KEY, how="anti")
        feeds = case.targets.filter(pl.col("symbol") == "*").select("session")
        rows = kept_out.join(case.targets, on=KEY, how="anti").join(feeds, on="session", how="anti")
        splits = case.targets.filter(pl.col("fault").str.contains("split")).select("symbol", at="session")
        since = (pl.col("session") - pl.col("at")).dt.total_days()
        sound = rows.join(rows.join(splits, on="symbol").filter(since.is_between(1, 2 * APART)), on=KEY, how="anti")
        total += sound.height
        in_stopped += sound.filter(pl.col("session").is_in(stopped_sessions(result.findings))).height
    return total, in_stopped


def alarms(market: Market, clean: GateResult) -> pl.DataFrame:
    """rule, severity, findings, outside (of the known defects), per_100k (those, of all rows) of the bars as they are."""
    outside = clean.findings.join(market.defects.unique(KEY), on=KEY, how="anti").group_by("rule", "severity").agg(outside=pl.len())
    counts = clean.findings.group_by("rule", "severity").agg(findings=pl.len()).join(outside, on=["rule", "severity"], how="left")
    per = pl.col("outside").fill_null(0) / market.bars.height * 1e5
    return counts.with_columns(pl.col("outside").fill_null(0), per_100k=per).sort("rule", "severity")


def report(market: Market, clean: GateResult, seen: Sequence[tuple[Faulty, GateResult]], seconds: tuple[float, float]) -> str:
    rows, symbols = market.bars.height, market.bars["symbol"].n_unique()
    lines = [
        f"{rows:,} bars of {symbols} symbols, {market.first} to {market.last}; {len(seen)} seeds.",
        "",
        "| fault | faults | kept out | found | by (findings) |",
        "|---|---:|---:|---:|---|",
    ]
    for fault, faults, kept_out, told, names in recall(seen).iter_rows():
        lines.append(f"| {fault} | {faults:,} | {kept_out:.1%} | {told:.1%} | {', '.join(names or [])} |")
    beside, in_stopped = collateral(clean, seen)
    put = sum(case.targets.height for case, _ in seen)
    lines += [
        "",
        f"Sound rows quarantined beside these {put:,} faults: {beside}, {in_stopped} of them in sessions that faults stopped.",
        "",
    ]
    lines += [
        "| rule, on the bars as they are | severity | findings | outside known defects | per 100,000 rows |",
        "|---|---|---:|---:|---:|",
    ]
    for rule, severity, findings, outside, per in alarms(market, clean).iter_rows():
        lines.append(f"| {rule} | {severity} | {findings:,} | {outside:,} | {per:.2f} |")
    silent = [rule.id.partition("_")[0] for rule in rules() if rule.id not in set(clean.findings["rule"])]
    false = clean.quarantined.select(KEY).unique().join(market.defects, on=KEY, how="anti")
    alone = false.filter(~pl.col("session").is_in(stopped_sessions(clean.findings)))
    few = f"{alone.height} of them ({alone.height / rows * 1e5:.2f}) not in a session that was stopped as a whole"
    lines += ["", f"No finding of {', '.join(silent)}."]
    lines += [f"Quarantined outside known defects: {false.height} rows, {false.height / rows * 1e5:.2f} per 100,000; {few}."]
    lines += [f"Seconds: {seconds[0]:.1f} for all of it, {seconds[1]:.2f} for the last session alone."]
    return "\n".join(lines)


def measure(market: Market, *, seeds: Sequence[int], each: int) -> tuple[GateResult, list[tuple[Faulty, GateResult]]]:
    clean = market.judged(market.bars, market.actions)
    seen: list[tuple[Faulty, GateResult]] = []
    for seed in seeds:
        case = faulty(market, clean, seed=seed, each=each)
        seen.append((case, market.judged(case.bars, case.actions, after=200)))
    return clean, seen


def timed(market: Market) -> tuple[float, float]:
    began = time.monotonic()
    market.judged(market.bars, market.actions)
    whole = time.monotonic() - began
    last = market.bars.filter(pl.col("session") == market.last)
    began = time.monotonic()
    market.judged(last, market.actions, first=market.last)
    return whole, time.monotonic() - began


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path, help="Parquet or CSV of raw bars; default: the sample source")
    parser.add_argument("--actions", type=Path, help="Parquet or CSV of splits and dividends")
    parser.add_argument("--column", action="append", default=[], metavar="THEIRS=OURS", help="column to rename, e.g. date=session")
    parser.add_argument("--defects", type=Path, help="Parquet of known defects: the same columns for session and symbol")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--each", type=int, default=200, help="faults of a kind and seed at most")
    return parser.parse_args()


def opened(given: argparse.Namespace) -> Market:
    if given.bars is None:
        return market_of(SampleSource())
    columns = dict(pair.split("=", 1) for pair in given.column)
    source = FilesSource(
        bars=given.bars,
        actions=given.actions,
        calendar=exchange_calendar(),
        convention=AdjustmentConvention.EX_DATE_CLOSE,
        publish_delay_minutes=30,
        columns=columns,
    )
    defects = pl.read_parquet(given.defects).rename(columns, strict=False).select(KEY).unique() if given.defects else None
    return market_of(source, defects)


def main() -> None:
    given = arguments()
    market = opened(given)
    seconds = timed(market)
    clean, seen = measure(market, seeds=range(given.seeds), each=given.each)
    print(report(market, clean, seen, seconds))


if __name__ == "__main__":
    main()
