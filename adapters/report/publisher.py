"""Report pages and the tables behind them in a folder a book: reports/BOOK/SESSION.html and reports/BOOK/SESSION/*.parquet; that on factors
in reports/factor-report, and the months for compliance in reports/audit-report, which no book can be called.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from adapters.report.audit import audit_document, render_audit_report
from adapters.report.factors import render_factor_report
from adapters.report.html import render_report
from quant.reports.factors import factor_tables
from quant.reports.model import report_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import polars as pl

    from quant.reports.audit import AuditReport
    from quant.reports.factors import FactorReport
    from quant.reports.model import ReportModel

FACTOR_FOLDER = "factor-report"
AUDIT_FOLDER = "audit-report"


class ReportFolder:
    """ReportPublisher port. The tables are in place before the page that shows them; both appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, model: ReportModel) -> str:
        """See quant.ports.ReportPublisher.publish."""
        return _put(self._folder / model.book, str(model.session), render_report(model), report_tables(model))

    def publish_factors(self, report: FactorReport) -> str:
        """See quant.ports.ReportPublisher.publish_factors."""
        return _put(self._folder / FACTOR_FOLDER, str(report.session), render_factor_report(report), factor_tables(report))

    def publish_audit(self, report: AuditReport) -> str:
        """See quant.ports.ReportPublisher.publish_audit."""
        folder, name = self._folder / AUDIT_FOLDER, f"{report.book}-{report.month}"
        folder.mkdir(parents=True, exist_ok=True)
        _put_tables(folder / name, report.tables(), lambda rows, path: rows.write_csv(path.with_suffix(".csv")))
        _put_text(folder / f"{name}.json", audit_document(report))
        return _put_text(folder / f"{name}.html", render_audit_report(report))


def _put(folder: Path, name: str, html: str, tables: Mapping[str, pl.DataFrame]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    _put_tables(folder / name, tables, lambda rows, path: rows.write_parquet(path.with_suffix(".parquet")))
    return _put_text(folder / f"{name}.html", html)


def _put_text(path: Path, text: str) -> str:
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return str(path)


def _put_tables(target: Path, tables: Mapping[str, pl.DataFrame], write: Callable[[pl.DataFrame, Path], None]) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name, rows in tables.items():
        write(rows, beside / name)
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)
