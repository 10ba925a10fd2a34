"""docs/tour.md: one symbol through one session, with the numbers of the demo's data root at each link (`make docs` after `make demo`)."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from orchestration.settings import REPOSITORY, data_root, load_settings
from quant.calendar import exchange_calendar
from quant.ports import Lake

SYMBOL, SESSION = "AAPL", date(2013, 2, 7)
SHOWN_FACTORS = ("KMID", "ROC5", "STD20", "CORR20", "VWAP0")


def tour(lake: Lake, *, symbol: str, session: date, book: str = "paper") -> str:
    """The page, from the lake alone. Needs the session and the one after it."""
    calendar = exchange_calendar()
    following, before = calendar.next(session), calendar.previous(session)

    def one(table: str, day: date = session, clock: str = "session", **where: str) -> dict[str, Any]:
        rows = lake.read(table, where={"symbol": symbol, **where}).filter(pl.col(clock) == day)
        return rows.row(0, named=True) if rows.height else {}

    raw, actions = one("raw_bars"), lake.read("corporate_actions", first=session, last=session, where={"symbol": symbol})
    findings = lake.read("bar_findings", first=session, last=session)
    adjusted, yesterday = one("adjusted_bars"), one("adjusted_bars", before)
    features, score = one("alpha158"), one("scores")
    scores = lake.read("scores", first=session, last=session).sort("score", descending=True)
    weight, position, pnl = one("target_weights", book=book), one("positions", book=book), one("daily_pnl", book=book)
    orders = lake.read("orders", first=session, last=session, where={"book": book, "symbol": symbol})
    fills = lake.read("fills", first=following, last=following, where={"book": book, "symbol": symbol})
    today_fills = lake.read("fills", first=session, last=session, where={"book": book, "symbol": symbol})
    nav = lake.read("daily_nav", first=session, last=session, where={"book": book}).row(0, named=True)
    action = actions.row(0, named=True)
    ratio = adjusted["total_index"] / yesterday["total_index"]
    factors = "\n".join(f"| {name} | {'null' if features[name] is None else f'{features[name]:.6f}'} |" for name in SHOWN_FACTORS)
    ranked = "\n".join(f"| {r['symbol']} | {r['score']:.6f} |" for r in scores.iter_rows(named=True))
    executed = "\n".join(_fill(r) for r in today_fills.iter_rows(named=True)) or "Nothing executed in this symbol in this session."
    ordered = "\n".join(_order(r) for r in orders.iter_rows(named=True)) or "No order: the book already holds what it wants."
    became = "\n".join(_fill(r) for r in fills.iter_rows(named=True)) or "Nothing was ordered, so nothing executed."
    return f"""# A tour: {symbol} through session {session}

One symbol, one session, the actual numbers at each link. They come from `make demo`; `make docs` makes this page from the data root and a test holds the page to
a fresh run. Every table named here is a view in `data/afterclose.duckdb`: follow along with `afterclose sql`.

## 1. Ingest: raw_bars and corporate_actions

The source delivers the bar as traded, unadjusted:

| open | high | low | close | volume |
|---|---|---|---|---|
| {raw["open"]} | {raw["high"]} | {raw["low"]} | {raw["close"]} | {raw["volume"]:,.0f} |

`known_at` {raw["known_at"]:%Y-%m-%d %H:%M} UTC is the expected publish time (close + 30 minutes), flagged assumed: {raw["known_at_assumed"]}. The row's digest starts with
`{raw["digest"][:12]}`. The session is also an ex-date: {action["kind"]} of {action["value"]} USD a share, known since {action["known_at"]:%Y-%m-%d %H:%M} UTC, the evening before.

## 2. Gate: bar_findings, accepted_bars

Findings in the whole session: {findings.height}. The bar passes as it is.

## 3. Adjustment: adjusted_bars

A dividend leaves the share count alone and lifts the total-return index by (C + D) / C = ({raw["close"]} + {action["value"]}) / {raw["close"]} = {ratio:.9f}:

| session | split_index | total_index |
|---|---|---|
| {before} | {yesterday["split_index"]:.6f} | {yesterday["total_index"]:.9f} |
| {session} | {adjusted["split_index"]:.6f} | {adjusted["total_index"]:.9f} |

Earlier rows stay as they were. Factors see price x total_index and volume / split_index.

## 4. Features: alpha158

158 columns by Qlib's names and definitions; five of them:

| column | value |
|---|---|
{factors}

VWAP0 is null because this source has no vwap: it is declared absent, dropped from training, and never made up.

## 5. Score: scores

Model `{score["model_version"]}`, trained on what was known before the first session of {session.year}, says of the next tradable return (open to open):

| symbol | score |
|---|---|
{ranked}

The feature row that was scored has digest `{score["feature_digest"]}`.

## 6. What executed this morning: fills

{executed}

## 7. Mark and result: positions, daily_pnl, daily_nav

At the close the book holds {position.get("quantity", 0):,.0f} {symbol}, marked at {position.get("mark", 0):,.2f} USD: {position.get("weight", 0):+.2%} of net asset value.
Its result of the session: prices {pnl.get("price_pnl", 0):,.2f}, dividends {pnl.get("dividends", 0):,.2f}, commissions {-pnl.get("commissions", 0):,.2f}, regulatory
fees {-pnl.get("regulatory_fees", 0):,.2f}, borrow {-pnl.get("borrow", 0):,.2f} USD. The dividend is earned today and becomes cash on its pay date; the sample has none, so that is 21 days later, flagged as assumed.

The whole book, to the cent:

| opening | prices | dividends | cash in lieu | write-offs | commissions | fees | borrow | interest | flows | closing |
|---|---|---|---|---|---|---|---|---|---|---|
| {nav["opening_nav"]:,.2f} | {nav["price_pnl"]:,.2f} | {nav["dividends"]:,.2f} | {nav["cash_in_lieu"]:,.2f} | {nav["write_offs"]:,.2f} | {-nav["commissions"]:,.2f} | {-nav["regulatory_fees"]:,.2f} | {-nav["borrow"]:,.2f} | {nav["interest"]:,.2f} | {nav["external_flows"]:,.2f} | {nav["closing_nav"]:,.2f} |

By side, costs taken off: {nav["long_pnl"]:,.2f} from longs, {nav["short_pnl"]:,.2f} from shorts. Of the closing value {nav["receivables"]:,.2f} are dividends not paid yet.

## 8. Weight: target_weights

The score normalised over the session is {weight["signal"]:+.6f} (mean 0, standard deviation 0.02); its sleeve weight is {weight["sleeve"]:+.2f} and the target {weight["target_weight"]:+.2%} of
net asset value.

## 9. Orders for the next open: orders

{ordered}

## 10. The next morning, {following}: fills

{became}
"""


def _order(row: dict[str, Any]) -> str:
    denied = f", denied by {row['denied_by']}" if row["denied_by"] else ""
    return (
        f"- {row['side']} {row['quantity']:,.0f} ({row['leg']}), sized at {row['reference_price']:,.2f} USD, {row['state']}{denied}, "
        f"id `{row['client_order_id']}`"
    )


def _fill(row: dict[str, Any]) -> str:
    return (
        f"- {row['side']} {row['quantity']:,.0f} at {row['price']:,.4f} USD: the open {row['reference_price']:,.2f} plus slippage and impact of "
        f"{row['slippage']:,.2f} USD; commission {row['commission']:,.2f} USD; {row['unfilled']:,.0f} shares expired; order `{row['client_order_id']}`"
    )


def main(page: Path = REPOSITORY / "docs" / "tour.md") -> None:
    """Write the page from the data root."""
    from adapters.lake import open_lake

    load_settings()
    page.write_text(tour(open_lake(data_root()), symbol=SYMBOL, session=SESSION))


if __name__ == "__main__":
    main()
