"""Report pages and the tables behind them in a folder a book: reports/BOOK/SESSION.html and reports/BOOK/SESSION/*.parquet."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from adapters.report.html import render_report
from quant.reports.model import report_tables

if TYPE_CHECKING:
    from pathlib import Path

    from quant.reports.model import ReportModel


class ReportFolder:
    """ReportPublisher port. The tables are in place before the page that shows them; both appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, model: ReportModel) -> str:
        """See quant.ports.ReportPublisher.publish."""
        book = self._folder / model.book
        book.mkdir(parents=True, exist_ok=True)
        self._tables(model, book / str(model.session))
        page = book / f"{model.session}.html"
        beside = page.with_suffix(f".{os.getpid()}")
        beside.write_text(render_report(model), encoding="utf-8")
        beside.replace(page)
        return str(page)

    def _tables(self, model: ReportModel, target: Path) -> None:
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        for name, rows in report_tables(model).items():
            rows.write_parquet(beside / f"{name}.parquet")
        shutil.rmtree(target, ignore_errors=True)
        beside.replace(target)
