"""Alpha158, the user's factors and forward returns: for the history in one go, for a session from the window that it needs."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

import dagster as dg
import polars as pl

from assets.chain import Chain, Metadata, session_of, table_metadata
from assets.market import adjusted, as_decided, market_history, relearned, require_sound_feed
from quant.errors import SequenceError, expected
from quant.factors.expression import features as bar_columns
from quant.factors.expression import parse
from quant.factors.library.user_factors import library_digest, user_factors_table
from quant.market.securities import as_traded
from quant.ports import Lake, Ledger

KEY = ["session", "symbol"]


def compute_features(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Put the features of first..last in the place of the old ones."""
    rows = feature_rows(chain, lake, ledger, first, last, known_by)
    lake.replace("alpha158", rows, first=first, last=last)
    return rows


def feature_rows(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Rows of table alpha158, computed and not stored."""
    window = as_decided(chain, lake, ledger, chain.back(first, chain.strategy.feature_reach), last, known_by)
    return as_traded(chain.strategy.features(window, chain.calendar, first, last), window)


def compute_user_factors(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Put the factors of the user's library of first..last in the place of the old ones."""
    rows = user_factor_rows(chain, lake, ledger, first, last, known_by)
    lake.replace("user_factors", rows, first=first, last=last)
    return rows


def user_factor_rows(chain: Chain, lake: Lake, ledger: Ledger, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Rows of table user_factors, computed and not stored."""
    window = as_decided(chain, lake, ledger, chain.back(first, chain.strategy.library_reach), last, known_by)
    return as_traded(chain.strategy.user_factors(window, chain.calendar, first, last), window)


def model_features(chain: Chain, lake: Lake, first: date, last: date) -> pl.DataFrame:
    """session, symbol and every factor column that the strategy's model reads, of first..last, sorted by session and symbol."""
    return factor_tables(chain, lake, chain.strategy.feature_tables, first, last)


def factor_tables(chain: Chain, lake: Lake, tables: Sequence[str], first: date, last: date) -> pl.DataFrame:
    """session, symbol and the factor columns of ``tables``, of first..last, sorted by session and symbol. SequenceError where the tables do
    not have the same rows, or have them of another library than the profile's.
    """
    return side_by_side(chain, [lake.read(table, first=first, last=last) for table in tables], first, last)


def side_by_side(chain: Chain, parts: Sequence[pl.DataFrame], first: date, last: date) -> pl.DataFrame:
    """session, symbol and the factor columns of the rows of several tables; SequenceError as for factor_tables."""
    rows, *others = (_of_this_library(chain, part) for part in parts)
    for other in others:
        if not other.select(KEY).equals(rows.select(KEY)):
            found = f"{other.height} rows for {rows.height}"
            do = "run `afterclose history`, which computes them"
            raise SequenceError(expected("a row of every table for every bar", found=found, where=f"features of {first} to {last}", do=do))
        rows = rows.hstack(other.drop(KEY))
    return rows


def _of_this_library(chain: Chain, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows without their column ``library``; SequenceError if another library computed one of them."""
    if "library" not in rows.columns:
        return rows
    wanted = library_digest(chain.strategy.library)
    for stale in rows.filter(pl.col("library") != wanted)["session"].head(1):
        do = "run `afterclose history`: it computes them again, and trains on them"
        raise SequenceError(expected(f"factors of library {wanted}", found=f"those of another in {stale}", where="user_factors", do=do))
    return rows.drop("library")


def compute_labels(chain: Chain, lake: Lake, first: date, last: date, known_by: datetime) -> pl.DataFrame:
    """Put the labels that become known in first..last in the place of the old ones."""
    window = adjusted(chain, lake, chain.back(first, chain.strategy.label_reach), last, known_by)
    rows = as_traded(chain.strategy.forward_returns(window, chain.calendar, first, last), window)
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
        made = compute_features(chain, lake, ledger, first, last, known_by)
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


def user_factor_assets(sessions: dg.PartitionsDefinition, library: Mapping[str, str]) -> list[dg.AssetsDefinition]:
    """The factors of the user's library, for the history and for a session; none without a library."""
    if not library:
        return []
    columns = [
        dg.TableColumn(name, str(column.dtype), description=column.description)
        for name, column in user_factors_table(library).columns.items()
    ]
    schema = {"dagster/column_schema": dg.TableSchema(columns=columns)}
    lineage = dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(dg.AssetKey("adjusted_bars"), column) for column in sorted(bar_columns(parse(text)))]
            for name, text in sorted(library.items())
        }
    )

    def told(lake: Lake, rows: int) -> Metadata:
        return {**table_metadata(lake, "user_factors", rows), "factors": len(library), "dagster/column_lineage": lineage}

    @dg.asset(group_name="research", deps=[market_history], kinds={"numpy", "deltalake"}, metadata=schema)
    def user_factor_history(
        context: dg.AssetExecutionContext, chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake], ledger: dg.ResourceParam[Ledger]
    ) -> dg.MaterializeResult:
        """The factors of the profile's library for every session before the paper start."""
        rows, known_by = 0, chain.history_instant(lake, ledger)
        for first, last in calendar_years(chain.start, chain.history_last):
            context.log.info(f"{first.year}")
            rows += compute_user_factors(chain, lake, ledger, first, last, known_by).height
        return dg.MaterializeResult(metadata=told(lake, rows))

    @dg.asset(partitions_def=sessions, group_name="market", deps=["adjusted_bars"], kinds={"numpy", "deltalake"}, metadata=schema)
    def user_factors(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        ledger: dg.ResourceParam[Ledger],
    ) -> dg.MaterializeResult:
        """The factors of the profile's library in the session, and again in earlier sessions that another library computed."""
        session = session_of(context)
        require_sound_feed(lake, session)
        known_by = chain.decision_instant(lake, ledger, session)
        rows = compute_user_factors(chain, lake, ledger, _computed_otherwise(chain, lake, session), session, known_by)
        return dg.MaterializeResult(metadata=told(lake, rows.height))

    return [user_factor_history, user_factors]


def _computed_otherwise(chain: Chain, lake: Lake, session: date) -> date:
    """First daily session up to ``session`` whose factors are of another library than the profile's; ``session`` if there is none. Those
    before the paper start have to be of this one, or the champion was trained on others.
    """
    _of_this_library(chain, lake.read("user_factors", first=chain.history_last, last=chain.history_last, columns=[*KEY, "library"]))
    done = lake.read("user_factors", first=chain.paper_start, last=session, columns=["session", "library"])
    other = done.filter(pl.col("library") != library_digest(chain.strategy.library))["session"]
    return min([session, *other.head(1)])


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
        rows = compute_features(chain, lake, ledger, session, session, chain.decision_instant(lake, ledger, session))
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
