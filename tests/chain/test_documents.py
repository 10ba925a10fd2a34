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


def test_the_figures_of_the_tour_are_those_of_a_fresh_run(demo: Root):
    assert tour(demo.lake, symbol=SYMBOL, session=SESSION) == (REPOSITORY / "docs" / "tour.md").read_text()


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
