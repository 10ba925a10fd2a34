"""How far each close moved since the one before, corporate actions allowed for, and what explains the jumps among these moves.

A jump is explained before it is condemned, by the first of these that holds: it goes back to where the price was before another jump; its
units are mixed up; the session itself traded there from the old price; two symbols have changed places; it is a split that nobody recorded;
the whole market moved; the volume is a crash's. The verdict on a session reads that session and the ``GateSettings.earlier_sessions``
before it, and nothing after.
"""

from __future__ import annotations

from enum import StrEnum
from math import log
from typing import TYPE_CHECKING

import polars as pl

from quant.market.securities import actions_by_security, named
from quant.quality.rule import PRICES, SEEN

if TYPE_CHECKING:
    from datetime import date

    from quant.calendar import ExchangeCalendar
    from quant.quality.rule import Beside, GateSettings

_KEY = ("symbol", "session")
_BAR = (*SEEN, "traded_as")
_CANDIDATE = 0.20  # the smallest split that is looked for is 4:3, a fall of 25 %
_TRADED = 0.5  # of a jump: with less than this between the close before and the open, the session traded through the levels
_SWAP = 0.15  # natural logarithm: how near two prices must be to each other's closes before
_SWAP_VOLUME = 6.0  # and how many times the other's usual volume may be
_HELD_SPLIT = 1.75  # 2:1 and more: real moves of that size are rare enough to hold the symbol for them
_MIN_VOLUMES = 5  # for a median
_MIX_UP = 100.0  # pence and pounds, cents and dollars
_WHOLE = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50)
_SPLITS = {
    **{f"{new}:1": float(new) for new in _WHOLE},
    **{f"1:{old}": 1.0 / old for old in _WHOLE},
    **{f"{new}:{old}": new / old for new, old in ((3, 2), (4, 3), (5, 2), (2, 3), (3, 4))},
}


class Kind(StrEnum):
    """What a jump turned out to be."""

    SPLIT_NOT_SEEN = "split_not_seen"  # a split is recorded, and the price did not follow it
    RETURNED = "returned"
    MIX_UP = "mix_up"
    SWAPPED = "swapped"
    TRADED = "traded"
    SPLIT_LIKE = "split_like"
    MARKET = "market"
    VOLUME = "volume"
    UNEXPLAINED = "unexplained"


def measured(
    rows: pl.DataFrame,
    earlier: pl.DataFrame,
    beside: Beside,
    ends: pl.DataFrame,
    *,
    calendar: ExchangeCalendar,
    last_closed: date,
    settings: GateSettings,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``moves`` and ``jumps`` of the bars of ``earlier`` and ``rows`` (raw_bars), from bar to bar of one security: by ``ends``
    (quant.market.securities) the first bar under a new symbol is compared with the last one under the old, and the first of a symbol that
    was delisted with none. symbol and other are what the bars traded under.
    """
    bars = named(pl.concat([earlier.select(SEEN), rows.select(SEEN)]), ends)
    moved = moves(bars, actions_by_security(beside.actions, ends), calendar=calendar, last_closed=last_closed, settings=settings)
    jumped = jumps(moved, named(beside.released, ends).drop("traded_as"), settings)
    if ends.is_empty():
        return moved, jumped
    names = bars.select("session", other="symbol", other_traded_as="traded_as").unique(["session", "other"])
    others = jumped.join(names, on=["session", "other"], how="left", maintain_order="left").with_columns(other="other_traded_as")
    return _as_traded(moved), _as_traded(others.drop("other_traded_as"))


def _as_traded(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(symbol="traded_as").sort(_KEY)


def moves(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    *,
    calendar: ExchangeCalendar,
    last_closed: date,
    settings: GateSettings,
) -> pl.DataFrame:
    """One row per sound bar of ``bars`` (SEEN and traded_as; symbol is the security), sorted by symbol and session.

    Sound is a bar that is alone under its key, in a closed session, with prices above zero, high and low around them and a volume. To the
    SEEN columns come

    - number: of the session, counted from the calendar's first;
    - before_session, before_open to before_volume, before_level: the sound bar before; null if it is more than ``volume_sessions`` old;
    - unchanged: it has the close of each of the ``unchanged_sessions`` - 1 sessions before;
    - split_index, level: the product of the splits up to the session, and close x split_index;
    - split, dividend: new shares per old, and USD (of a spin-off: its value), of the actions that went ex since. Both conventions of
      quant.market.adjustment are the same for a jump of 30 %, so a dividend counts per old share;
    - ratio, open_ratio: close and open on the share basis of the bar before, dividend added, over its close;
    - volume_ratio: volume over the median of the ``volume_sessions`` sessions before, splits allowed for; null with fewer than 5 of them;
    - usual_volume: that median, on the bar's own share basis;
    - market: natural logarithm of the session's median ratio; null with fewer than ``market_min_symbols`` of them.
    """
    indexed = _with_indices(_sound(bars.select(_BAR), calendar, last_closed), actions)
    since = pl.when(pl.col("symbol") == pl.col("symbol").shift(1)).then(pl.col("number") - pl.col("number").shift(1))
    near = since <= settings.volume_sessions
    same = (since == 1) & (pl.col("close") == pl.col("close").shift(1))

    def before(name: str) -> pl.Expr:
        return pl.when(near).then(pl.col(name).shift(1))

    volumes = pl.col("shares").rolling_median_by("number", f"{settings.volume_sessions}i", min_samples=_MIN_VOLUMES, closed="left")
    compared = indexed.with_columns(
        *(before(name).alias(f"before_{name}") for name in ("session", *PRICES, "volume", "level")),
        split=pl.col("split_index") / before("split_index"),
        dividend=pl.col("paid") - before("paid"),
        median=volumes.over("symbol"),
        unchanged=pl.all_horizontal(same.shift(by).fill_null(value=False) for by in range(settings.unchanged_sessions - 1)),
    )

    def ratio(name: str) -> pl.Expr:
        return (pl.col(name) * pl.col("split") + pl.col("dividend")) / pl.col("before_close")

    measured = compared.with_columns(
        ratio=ratio("close"),
        open_ratio=ratio("open"),
        volume_ratio=pl.when(pl.col("median") > 0).then(pl.col("shares") / pl.col("median")),
        usual_volume=pl.col("median") * pl.col("split_index"),
    )
    medians = (
        measured.filter(pl.col("ratio").is_not_null())
        .group_by("session")
        .agg(market=pl.col("ratio").median().log(), symbols=pl.len())
        .filter(pl.col("symbols") >= settings.market_min_symbols)
    )
    return measured.join(medians.select("session", "market"), on="session", how="left", maintain_order="left")


def _sound(bars: pl.DataFrame, calendar: ExchangeCalendar, last_closed: date) -> pl.DataFrame:
    number = pl.DataFrame({"session": calendar.days}, schema={"session": pl.Date}).with_row_index("number")
    highest, lowest = pl.max_horizontal("open", "close", "low"), pl.min_horizontal("open", "close", "high")
    finite = pl.all_horizontal(pl.col(*PRICES, "volume").is_finite())
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in _KEY).fill_null(value=False)
    sound = bars.sort(_KEY).filter(
        finite & (pl.col("low") > 0) & (pl.col("volume") >= 0) & (pl.col("high") >= highest) & (pl.col("low") <= lowest),
        pl.col("session") <= last_closed,
        ~(same | same.shift(-1, fill_value=False)),
    )
    return sound.join(number.with_columns(pl.col("number").cast(pl.Int64)), on="session", maintain_order="left")


def _with_indices(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """``bars`` with split_index and paid: product of the splits and sum of the dividends with ex_date up to the session; shares: volume on
    the share basis of before the first split; level: close on it.
    """
    split = pl.when(pl.col("kind") == "split").then("value").otherwise(1.0)
    dividend = pl.when(pl.col("kind").is_in(("dividend", "spinoff"))).then("value").otherwise(0.0)
    indices = (
        actions.sort("symbol", "ex_date", "kind")
        .with_columns(split_index=split.cum_prod().over("symbol"), paid=dividend.cum_sum().over("symbol"))
        .unique(["symbol", "ex_date"], keep="last", maintain_order=True)
        .select("symbol", "ex_date", "split_index", "paid")
    )
    found = bars.join_asof(indices, left_on="session", right_on="ex_date", by="symbol", check_sortedness=False)
    return found.with_columns(pl.col("split_index").fill_null(1.0), pl.col("paid").fill_null(0.0)).with_columns(
        shares=pl.col("volume") / pl.col("split_index"), level=pl.col("close") * pl.col("split_index")
    )


def jumps(moved: pl.DataFrame, released: pl.DataFrame, settings: GateSettings) -> pl.DataFrame:
    """The rows of ``moves`` that need a word, sorted by symbol and session.

    A mix-up of units and a missed split of 2:1 and more stand until the price is back, the split is recorded or the row is ``released``
    (quant.quality.rule.Beside): of the rows of the next ``hold_sessions``, those nearer to the new price than to the old one are held, with
    the kind of the jump. To the columns of moves come

    - kind: a Kind;
    - like: the split a jump is like ("2:1"), or null; other: the symbol swapped with, or null;
    - from_session, from_close: the bar that it jumps from, the one before; of a row that is held, the one before the jump;
    - times: the close over from_close, actions allowed for.
    """
    small = pl.col("ratio").is_between(1 - _CANDIDATE, 1 + _CANDIDATE)
    found = moved.filter(~small | (pl.col("split") != 1.0)).with_columns(move=pl.col("ratio").log(), gap=pl.col("open_ratio").log())
    told = _with_splits(_with_swaps(_with_returns(found, settings)), settings)
    large = (pl.col("ratio") - 1).abs() > settings.jump_ratio
    off = pl.min_horizontal((pl.col("ratio") - 1).abs(), (pl.col("open_ratio") - 1).abs())
    mixed_up = pl.min_horizontal(*((pl.col(name).abs() - log(_MIX_UP)).abs() for name in ("move", "gap")))
    traded = pl.col("gap") / pl.col("move") < _TRADED
    market = pl.col("move") / pl.col("market")
    kinds = {
        Kind.SPLIT_NOT_SEEN: (pl.col("split") != 1.0) & (off > settings.split_move_ratio),
        Kind.RETURNED: large & pl.col("returned"),
        Kind.MIX_UP: mixed_up <= log(1 + settings.scale_tolerance),
        Kind.TRADED: large & traded,
        Kind.SWAPPED: pl.col("other").is_not_null() & ~traded,
        Kind.SPLIT_LIKE: pl.col("like").is_not_null() & ~traded,
        Kind.MARKET: large & (market > 0) & (market <= settings.market_multiple),
        Kind.VOLUME: large & (pl.col("volume_ratio") >= settings.crash_volume_multiple),
        Kind.UNEXPLAINED: large,
    }
    kind = pl.coalesce(pl.when(holds).then(pl.lit(name.value)) for name, holds in kinds.items())
    fresh = told.with_columns(kind=kind, from_session="before_session", from_close="before_close", times="ratio").filter(
        pl.col("kind").is_not_null()
    )
    held = _held(moved, fresh, released, settings)
    columns = [*moved.columns, "kind", "like", "other", "from_session", "from_close", "times"]
    return pl.concat([fresh.join(held, on=list(_KEY), how="anti").select(columns), held.select(columns)]).sort(_KEY)


def _held(moved: pl.DataFrame, fresh: pl.DataFrame, released: pl.DataFrame, settings: GateSettings) -> pl.DataFrame:
    """The rows after a mix-up or a missed split that are still on its side, with the columns of a jump; of several jumps the newest.

    A ``released`` jump holds what was decided before the release, and no more: who decided without these rows never sees them.
    """
    large_split = (pl.col("kind") == Kind.SPLIT_LIKE) & (pl.col("move").abs() > log(_HELD_SPLIT))
    starts = fresh.filter((pl.col("kind") == Kind.MIX_UP) | large_split).select(
        "symbol", "kind", "like", "other", "from_session", "from_close", at="number", jumped="session", jump="move", left="before_level"
    )
    since, times = pl.col("number") - pl.col("at"), pl.col("level") / pl.col("left")
    after = moved.join(starts, on="symbol").filter(since.is_between(1, settings.hold_sessions)).with_columns(times=times)
    still = after.filter(times.log() / pl.col("jump") > 0.5)
    believed = still.join(released.rename({"session": "jumped"}), on=["symbol", "jumped"]).filter(
        pl.col("decided_through").is_null() | (pl.col("session") > pl.col("decided_through"))
    )
    doubted = still.join(believed, on=[*_KEY, "at"], how="anti")
    return doubted.sort(*_KEY, "at").unique(list(_KEY), keep="last", maintain_order=True)


def _with_returns(found: pl.DataFrame, settings: GateSettings) -> pl.DataFrame:
    """``found`` with returned: the close is nearer to the close before an earlier jump than to the one it left."""
    starts = found.filter((pl.col("ratio") - 1).abs() > settings.jump_ratio).select("symbol", at="number", left="before_level")
    since = pl.col("number") - pl.col("at")
    pairs = found.select("symbol", "number", "level", "move").join(starts, on="symbol").filter(since.is_between(1, settings.hold_sessions))
    back = pairs.filter((pl.col("level") / pl.col("left")).log().abs() < 0.5 * pl.col("move").abs())
    returned = back.select("symbol", "number").unique().with_columns(returned=pl.lit(value=True))
    return found.join(returned, on=["symbol", "number"], how="left", maintain_order="left").with_columns(
        pl.col("returned").fill_null(value=False)
    )


def _with_swaps(found: pl.DataFrame) -> pl.DataFrame:
    """``found`` with other: the symbol whose price and volume this one has in the session, while that one has this one's."""
    one = found.select("session", "symbol", "open", "close", "volume", "before_close", "usual_volume", "move")
    both = one.filter(pl.col("move") > 0).join(one.filter(pl.col("move") < 0), on="session", suffix="_other")

    def like(mine: str, theirs: str) -> pl.Expr:
        prices = ((pl.col(f"{name}{mine}") / pl.col(f"before_close{theirs}")).log().abs() <= _SWAP for name in ("open", "close"))
        volume = (pl.col(f"volume{mine}") / pl.col(f"usual_volume{theirs}")).log().abs() <= log(_SWAP_VOLUME)
        return pl.all_horizontal(*prices, volume.fill_null(value=True))

    swapped = both.filter(like("", "_other"), like("_other", ""))
    up = swapped.select("session", "symbol", other="symbol_other")
    down = swapped.select("session", symbol="symbol_other", other="symbol")
    pairs = pl.concat([up, down]).sort("session", "symbol", "other").unique(["session", "symbol"], keep="first", maintain_order=True)
    return found.join(pairs, on=["session", "symbol"], how="left", maintain_order="left")


def _with_splits(found: pl.DataFrame, settings: GateSettings) -> pl.DataFrame:
    """``found`` with like: the split that open, close and volume look like, the nearest one; null on a split's own ex-date. All three
    tolerances grow with the split: the smaller it is, the more moves that are none are as large.
    """
    splits = pl.DataFrame({"like": list(_SPLITS), "new": list(_SPLITS.values())})
    size = pl.col("new").log().abs()
    gap, move = ((pl.col(name) + pl.col("new").log()).abs() / size for name in ("gap", "move"))
    volume = (pl.col("volume_ratio") / pl.col("new")).log().abs() / size
    candidates = found.filter(pl.col("split") == 1.0).select(*_KEY, "gap", "move", "volume_ratio")
    fits = candidates.join(splits, how="cross").filter(
        gap <= settings.split_tolerance,
        move <= 2 * settings.split_tolerance,
        (volume <= settings.split_volume_tolerance).fill_null(value=True),
    )
    nearest = fits.sort(*_KEY, gap, "new").unique(list(_KEY), keep="first", maintain_order=True)
    return found.join(nearest.select(*_KEY, "like"), on=list(_KEY), how="left", maintain_order="left")
