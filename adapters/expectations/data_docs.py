"""A session's batch as a suite of Great Expectations, and its Data Docs page: reports/data-docs/SESSION.html, with index.html over them.

The page is rendered by Data Docs into a frame of ours (session.html): the one it comes with loads style sheets and scripts of seven hosts.
"""

# Great Expectations types its results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import html
import json
import os
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from quant.alerts.alert import one_line
from quant.ports import BatchReview
from quant.quality.expectations import ExpectationOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    import polars as pl
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.render.view.view import DefaultJinjaPageView

    from quant.quality.expectations import Expectation

_SHOWN = 3
_SESSIONS = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].html"
_OUTCOMES = re.compile(r'name="outcomes" content="(\d+)/(\d+)"')
_HEAD = 1000
_NAME = "accepted_bars"


class DataDocs:
    """BatchReviewer port. The newest ``pages`` pages of the folder are kept."""

    def __init__(self, folder: Path, *, pages: int) -> None:
        self._folder = folder
        self._pages = pages

    def review(self, batch: pl.DataFrame, suite: Sequence[Expectation], session: date) -> BatchReview:
        """See quant.ports.BatchReviewer.review."""
        result = _validated(batch, suite, session)
        by_id = {_id(found): found for found in result.results}  # the library groups them by column
        outcomes = tuple(_outcome(expectation, by_id[expectation.id]) for expectation in suite)
        return BatchReview(outcomes=outcomes, page=str(self._put(f"{session}.html", _page(result, outcomes, session))))

    def _put(self, name: str, page: str) -> Path:
        """Whole or not at all; then the oldest pages beyond the bound go, and the index is made of what is there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._write(name, page)
        pages = sorted(self._folder.glob(_SESSIONS))
        for old in pages[: -self._pages]:
            old.unlink(missing_ok=True)
        self._write("index.html", _index(reversed(pages[-self._pages :])))
        return path

    def _write(self, name: str, page: str) -> Path:
        path = self._folder / name
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(page, encoding="utf-8")
        beside.replace(path)
        return path


@dataclass(frozen=True, slots=True)
class _Listed:
    session: str
    met: int
    total: int

    @property
    def whole(self) -> bool:
        return self.met == self.total


def _index(pages: Iterable[Path]) -> str:
    """The page over the sessions' pages, in the order given; each says near its top how many expectations were met."""
    listed: list[_Listed] = []
    for page in pages:
        with page.open(encoding="utf-8") as opened:
            found = _OUTCOMES.search(opened.read(_HEAD))
        if found:
            listed.append(_Listed(page.stem, int(found[1]), int(found[2])))
    template = (Path(__file__).parent / "index.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(template).render(pages=listed)


def _validated(batch: pl.DataFrame, suite: Sequence[Expectation], session: date) -> ExpectationSuiteValidationResult:
    gx = _great_expectations()
    from great_expectations.util import convert_to_json_serializable

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    whole = context.data_sources.add_pandas("lake").add_dataframe_asset(_NAME).add_batch_definition_whole_dataframe("session")
    result = whole.get_batch({"dataframe": batch.to_pandas()}).validate(
        gx.ExpectationSuite(name=_NAME, expectations=[_expectation(expectation) for expectation in suite]),
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": ["symbol"], "partial_unexpected_count": _SHOWN},
    )
    for found in result.results:
        found.result = json.loads(json.dumps(convert_to_json_serializable(found.result)))  # numpy's numbers are none to the renderer
    result.meta["run_id"] = gx.RunIdentifier(run_name=str(session))
    return result


@cache
def _great_expectations() -> Any:  # noqa: ANN401  a module
    """The library, without its reports home."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"module 'sre_(constants|parse)' is deprecated", DeprecationWarning)
        import great_expectations as gx
    return gx


def _expectation(expectation: Expectation) -> Any:  # noqa: ANN401  a class of the library
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    configured = ExpectationConfiguration(
        type=expectation.type,
        kwargs=dict(expectation.arguments),
        meta={"id": expectation.id},
        severity=FailureSeverity.CRITICAL if expectation.sure else FailureSeverity.WARNING,
    )
    return configured.to_domain_obj()


def _id(found: ExpectationValidationResult) -> str:
    configured = found.expectation_config
    assert configured is not None
    assert configured.meta is not None
    return str(configured.meta["id"])


def _outcome(expectation: Expectation, found: ExpectationValidationResult) -> ExpectationOutcome:
    result: dict[str, Any] = found.result
    rows: list[dict[str, Any]] = result.get("partial_unexpected_index_list") or []
    if raised := _raised(found.exception_info):
        observed = f"it could not be evaluated: {one_line(raised)}"
    elif "unexpected_count" in result:
        more = ", ..." if result["unexpected_count"] > len(rows) else ""
        shown = ", ".join(" ".join([str(row["symbol"]), *(f"{k} {_text(v)}" for k, v in row.items() if k != "symbol")]) for row in rows)
        observed = f"{result['unexpected_count']} of {result['element_count']} rows" + (f": {shown}{more}" if rows else "")
    else:
        observed = _text(result.get("observed_value"))
    return ExpectationOutcome(
        expectation=expectation, passed=bool(found.success), observed=observed, symbols=tuple(str(row["symbol"]) for row in rows)
    )


def _text(value: object) -> str:
    return f"{value:,.10g}" if isinstance(value, (int, float)) else str(value)


def _raised(info: dict[str, Any] | None) -> str:
    """What the evaluation raised: one entry, or one for each metric."""
    entries = [info] if info and "raised_exception" in info else list((info or {}).values())
    return "; ".join(str(entry["exception_message"]) for entry in entries if entry["raised_exception"])


def _escaped(value: Any) -> Any:  # noqa: ANN401  JSON
    """Values of the bars go into the library's page as they are: a symbol could be markup."""
    if isinstance(value, dict):
        return {str(key): _escaped(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_escaped(part) for part in value]
    return html.escape(value) if isinstance(value, str) else value


@cache
def _view() -> DefaultJinjaPageView:
    """Data Docs' page with our frame; cached, because its templates take longer to compile than to fill."""
    from great_expectations.render.view.view import DefaultJinjaPageView

    class SessionPage(DefaultJinjaPageView):
        _template = "session.html"

    return SessionPage(custom_views_directory=str(Path(__file__).parent))


def _page(result: ExpectationSuiteValidationResult, outcomes: Sequence[ExpectationOutcome], session: date) -> str:
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    for found in result.results:
        found.result = _escaped(found.result)
    document = ValidationResultsPageRenderer(run_info_at_end=True).render(result)
    return _view().render(document, session=session, outcomes=outcomes)
