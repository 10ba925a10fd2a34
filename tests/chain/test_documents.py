"""What the documents say is what the code does: generated pages, the tour's figures, the notebook, the README's commands."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from datetime import date

import dagster as dg
import pytest

from orchestration.settings import Settings
from orchestration.tour import SESSION, SYMBOL, tour
from quant.calendar import exchange_calendar
from tests.chain.conftest import Root
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """The demo's profile through the session after the tour's."""
    profile = tomllib.loads((REPOSITORY / "afterclose.toml").read_text())
    settings = Settings(**profile, expectations={"enabled": False})  # seconds of import that no table depends on
    with dg.DagsterInstance.ephemeral() as instance:
        root = Root.make(tmp_path_factory.mktemp("demo"), settings, instance)
        root.history()
        root.days(exchange_calendar().sessions(date(2013, 2, 1), exchange_calendar().next(SESSION)))
        yield root


@pytest.mark.slow
def test_the_figures_of_the_tour_are_those_of_a_fresh_run(demo: Root):
    assert tour(demo.lake, symbol=SYMBOL, session=SESSION) == (REPOSITORY / "docs" / "tour.md").read_text()


@pytest.mark.slow
def test_the_order_of_the_tour_is_explained_down_to_its_raw_rows_and_met_bit_for_bit(demo: Root):
    from adapters.clock import SystemClock
    from adapters.notary import FileNotary, signed
    from adapters.tracking.mlflow_store import open_model_store
    from assets.lineage import lineage_of
    from orchestration.definitions import bar_source, build_chain
    from quant.audit.anchor import anchor_fault, verify

    source = bar_source(demo.settings, exchange_calendar(), SystemClock())
    chain = build_chain(demo.settings, source, SystemClock())
    order = demo.lake.read("orders", first=SESSION, last=SESSION, where={"symbol": SYMBOL})["client_order_id"][0]
    lineage = lineage_of(chain, demo.lake, demo.ledger, open_model_store(demo.path), order)
    links = [link.what.split()[0] for link in lineage.tree().walk()]
    assert links == [
        *("order", "fill", "life", "risk", "decision", "target", "score", "model", "feature", "adjusted", "raw", "corporate", "gate")
    ]
    again = lineage.replay()
    assert [item for item in again if not item.met] == []
    assert {"adjusted bars", "feature row", "model", "score", "signal", "target weight"} <= {item.what for item in again}
    notary = FileNotary(demo.path / "audit")
    anchors, fault = anchor_fault(notary.anchors(), public_key=notary.public_key(), signed=signed)
    found = demo.ledger.walk_audit(lambda entries: verify(entries, anchors))
    assert (fault, found.sound, found.anchors) == (None, True, 7)  # the history and six sessions
    assert found.entries == found.anchored > 60


@pytest.mark.slow
def test_the_notebook_runs_on_the_warehouse(demo: Root, monkeypatch: pytest.MonkeyPatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("AFTERCLOSE_DATA", str(demo.path))
    notebook = nbformat.read(REPOSITORY / "notebooks" / "questions.ipynb", as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(REPOSITORY / "notebooks")}}).execute(env=dict(os.environ))
    outputs = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(outputs) == sum(cell.cell_type == "code" for cell in notebook.cells)


@pytest.mark.parametrize("page", ["docs/data-dictionary.md", "docs/settings.md", "docs/command-line.md"])
def test_a_generated_page_is_up_to_date(page: str):
    from orchestration.reference import PAGES

    assert (REPOSITORY / page).read_text() == PAGES[page](), "run `make docs`"


def test_every_command_and_picture_of_the_readme_exists():
    from orchestration.reference import commands

    text = (REPOSITORY / "README.md").read_text()
    assert set(re.findall(r"`afterclose ((?:factors )?[a-z-]+)", text)) <= set(commands())
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", text)) <= targets
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (REPOSITORY / link).exists(), link
