"""Alpha158 and forward returns: for the history in one go, for a session from the window that it needs."""

from datetime import date, datetime

import dagster as dg
import polars as pl

from assets.chain import Chain, session_of, table_metadata
from assets.market import adjusted, market_history, relearned, require_sound_feed
from quant.ports import Lake, Ledger


def compute_features(chain: Chain, lake: Lake, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Put the features of first..last in the place of the old ones."""
    window = adjusted(chain, lake, chain.back(first, chain.strategy.feature_reach), last, known_by)
    rows = chain.strategy.features(window, chain.calendar, first, last)
    lake.replace("alpha158", rows, first=first, last=last)
    return rows


def compute_labels(chain: Chain, lake: Lake, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Put the labels that become known in first..last in the place of the old ones."""
    window = adjusted(chain, lake, chain.back(first, chain.strategy.label_reach), last, known_by)
    rows = chain.strategy.forward_returns(window, chain.calendar, first, last)
    lake.replace("forward_returns", rows, first=first, last=last)
    return rows


@dg.asset(group_name="research", deps=[market_history], kinds={"numpy", "deltalake"})
def feature_history(
    context: dg.AssetExecutionContext, chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake], ledger: dg.ResourceParam[Ledger]
) -> dg.MaterializeResult:
    """Qlib's 158 columns for every session before the paper start."""
    rows, nulls, known_by = 0, 0, chain.history_instant(lake, ledger)
    # Year by year: the width of 158 columns, not their number of rows, is what fills the memory. The values are the same.
    for first, last in calendar_years(chain.start, chain.history_last):
        context.log.info(f"{first.year}")
        made = compute_features(chain, lake, first, last, known_by)
        rows, nulls = rows + made.height, nulls + sum(made.null_count().row(0))
    return dg.MaterializeResult(metadata={**table_metadata(lake, "alpha158", rows), "nulls_a_row": nulls / max(rows, 1)})


def calendar_years(first: date, last: date) -> list[tuple[date, date]]:
    """The range first..last cut at the turns of years."""
    years = range(first.year, last.year + 1)
    return [(max(first, date(year, 1, 1)), min(last, date(year, 12, 31))) for year in years]


@dg.asset(group_name="research", deps=[market_history], kinds={"polars", "deltalake"})
def label_history(chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake], ledger: dg.ResourceParam[Ledger]) -> dg.MaterializeResult:
    """Forward returns that were known before the paper start, each with the session on which it became known."""
    rows = compute_labels(chain, lake, chain.start, chain.history_last, chain.history_instant(lake, ledger))
    return dg.MaterializeResult(metadata=table_metadata(lake, "forward_returns", rows.height))


def daily_feature_assets(sessions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The daily links from adjusted bars to features and labels."""

    @dg.asset(partitions_def=sessions, group_name="market", deps=["adjusted_bars"], kinds={"numpy", "deltalake"})
    def alpha158(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """Qlib's 158 columns of the session, from the sessions they reach back to."""
        session = session_of(context)
        require_sound_feed(lake, session)
        rows = compute_features(chain, lake, session, session, chain.decision_instant(lake, ledger, session))
        return dg.MaterializeResult(metadata=table_metadata(lake, "alpha158", rows.height))

    @dg.asset(partitions_def=sessions, group_name="market", deps=["adjusted_bars"], kinds={"polars", "deltalake"})
    def forward_returns(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """The labels that become known at the session's close: those of decisions some sessions ago. Late actions rewrite them."""
        session = session_of(context)
        first, known_by = relearned(chain, lake, ledger, session)
        rows = compute_labels(chain, lake, first, session, known_by)
        return dg.MaterializeResult(metadata=table_metadata(lake, "forward_returns", rows.height))

    return [alpha158, forward_returns]
