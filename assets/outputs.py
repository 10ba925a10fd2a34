"""What people look at: report pages and the analysts' database."""

from datetime import date

import dagster as dg

from assets.chain import Chain, Metadata, session_of, table_metadata
from assets.trading import backtest
from quant.ports import Lake, ReportPublisher, Warehouse
from quant.reports.model import REPORT_INPUTS, ReportModel, report_model
from quant.tables import TABLES


def book_report(chain: Chain, lake: Lake, book: str, first: date, session: date) -> ReportModel:
    """The report of a book from ``first`` to ``session``, from the lake."""
    tables = {
        name: lake.read(name, first=first, last=session, where={"book": book} if "book" in TABLES[name].columns else None)
        for name in REPORT_INPUTS
    }
    return report_model(tables, book=book, session=session, profile=chain.profile, source=chain.source.facts.name)


def publish(lake: Lake, reports: ReportPublisher, model: ReportModel) -> Metadata:
    """Write the page and put its figures in the place of the old ones; returns the asset's metadata."""
    page = reports.publish(model)
    where = {"book": model.book}
    lake.replace("performance", model.figures, first=model.session, last=model.session, where=where)
    figures = {f: v for f, v in model.figures.select("figure", "value").iter_rows() if v is not None}
    return {**table_metadata(lake, "performance", model.figures.height), "page": dg.MetadataValue.path(page), **figures}


@dg.asset(group_name="research", deps=[backtest], kinds={"plotly"})
def backtest_report(
    chain: dg.ResourceParam[Chain], lake: dg.ResourceParam[Lake], reports: dg.ResourceParam[ReportPublisher]
) -> dg.MaterializeResult:
    """One self-contained page on the backtest, and its figures as tables."""
    sessions = lake.read("daily_nav", where={"book": chain.backtest_book}, columns=["session"])["session"]
    if sessions.is_empty():
        return dg.MaterializeResult(metadata={"sessions": 0})
    model = book_report(chain, lake, chain.backtest_book, sessions[0], sessions[-1])
    return dg.MaterializeResult(metadata=publish(lake, reports, model))


@dg.asset(group_name="outputs", deps=[backtest_report, dg.AssetDep("performance_report")], kinds={"duckdb"})
def warehouse(chain: dg.ResourceParam[Chain], warehouse_file: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
    """afterclose.duckdb: a view a table over one snapshot of the lake, swapped in whole; readers never wait."""
    rows = warehouse_file.publish({"profile": chain.profile, "source": chain.source.facts.name, "paper_book": chain.paper_book})
    return dg.MaterializeResult(metadata={"views": len(rows), "rows": sum(rows.values())})


def daily_output_assets(sessions: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The last daily link: the session's report."""

    @dg.asset(partitions_def=sessions, group_name="outputs", deps=["orders", "positions", "daily_pnl", "forward_returns"], kinds={"plotly"})
    def performance_report(
        context: dg.AssetExecutionContext,
        chain: dg.ResourceParam[Chain],
        lake: dg.ResourceParam[Lake],
        reports: dg.ResourceParam[ReportPublisher],
    ) -> dg.MaterializeResult:
        """One self-contained page on the paper book up to the session, and its figures as tables."""
        session = session_of(context)
        model = book_report(chain, lake, chain.paper_book, chain.paper_book_start, session)
        return dg.MaterializeResult(metadata=publish(lake, reports, model))

    return [performance_report]
