from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from docs.screenshots import opened, show_graph

pytestmark = pytest.mark.browser


@pytest.mark.smoke
def test_the_asset_graph_shows_every_group_and_every_asset(page_address: str) -> None:
    from orchestration.definitions import defs

    specs = defs.resolve_all_asset_specs()
    groups = {spec.group_name or "default" for spec in specs}
    names = {spec.key.path[-1] for spec in specs}
    assert len(groups) > 2
    with opened() as page:
        show_graph(page, page_address, min(names))
        for shown in groups | names:
            shortened = f"{re.escape(shown[:10])}…{re.escape(shown[-7:])}"  # as the graph does with long names
            expect(page.get_by_text(re.compile(f"^({re.escape(shown)}|{shortened})$")).first).to_be_visible(timeout=30_000)


def test_every_asset_page_has_a_description_and_no_error(page_address: str) -> None:
    from orchestration.definitions import defs

    with opened() as page:
        for spec in defs.resolve_all_asset_specs():
            page.goto(f"{page_address}/assets/{'/'.join(spec.key.path)}", wait_until="domcontentloaded")
            expect(page.get_by_text("Description", exact=True).first).to_be_visible(timeout=30_000)
            assert spec.description, f"{spec.key.to_user_string()} has no description"
            assert "PythonError" not in page.inner_text("body")
