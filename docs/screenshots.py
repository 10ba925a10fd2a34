"""Pictures of the running UI and of a report for README and docs.

python -m docs.screenshots http://127.0.0.1:3000 docs/images --report data/reports/paper/2013-03-01.html
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from orchestration.supervisor import LOCATION

SIZE = {"width": 1600, "height": 1000}
CHECK = "feed_is_sound"
COLOURS = 256  # a palette keeps a picture under 300 KB
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def opened() -> Iterator[Page]:
    """A page of headless Chromium with an empty profile."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        chromium = shutil.which("chromium") or "/usr/bin/chromium"
        context = playwright.chromium.launch_persistent_context(profile, executable_path=chromium, args=FLAGS, viewport=SIZE)  # type: ignore[arg-type]
        try:
            yield context.pages[0]
        finally:
            context.close()


def show_graph(page: Page, address: str, asset: str) -> None:
    """The asset graph with all groups open; ``asset`` is in one of them. Alt+E opens and closes them, once the graph is there."""
    page.goto(f"{address}/asset-groups", wait_until="domcontentloaded")
    node = page.get_by_text(asset, exact=True).first
    for _ in range(20):
        page.keyboard.press("Alt+KeyE")
        page.wait_for_timeout(1500)
        if node.is_visible():
            return
    node.wait_for(timeout=1)


def show_group(page: Page, address: str, group: str) -> None:
    page.goto(f"{address}/locations/__repository__@{LOCATION}/asset-groups/{group}/lineage", wait_until="domcontentloaded")
    page.get_by_text("View lineage").wait_for()


def widen(page: Page) -> None:
    """Hide the navigation, and let the graph fit itself into what it left."""
    if page.get_by_text("Hide navigation").is_visible():
        page.get_by_text("Hide navigation").click()
    page.reload(wait_until="domcontentloaded")


def show_asset(page: Page, address: str, asset: str, view: str) -> None:
    page.goto(f"{address}/assets/{asset}?view={view}", wait_until="domcontentloaded")
    page.get_by_text("Lineage", exact=True).last.wait_for()
    if view == "overview":
        page.get_by_text("Plots", exact=True).first.click()
        page.get_by_text("Events", exact=True).last.click()
    if view == "checks":
        page.get_by_text(CHECK, exact=True).first.click()
    if view == "partitions":
        page.get_by_text(re.compile(r"^\d{4}-\d\d-\d\d$")).nth(2).click()  # the first two are the ends of the bar


def save(page: Page, target: Path) -> None:
    """Write what the page shows, with a palette, and say how large it is."""
    from PIL import Image

    page.wait_for_timeout(3000)  # charts and layouts are animated
    page.screenshot(path=target)
    with Image.open(target) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(target, optimize=True)
    print(f"{target} {target.stat().st_size / 1000:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="address of the running UI")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--group", default="paper", help="asset group shown on its own")
    parser.add_argument("--asset", default="daily_pnl", help="asset whose plots and partitions are shown")
    parser.add_argument("--checked", default="accepted_bars", help=f"asset whose check {CHECK} is shown")
    parser.add_argument("--report", type=Path, help="report page to show")
    parser.add_argument("--factors", type=Path, help="page on factors to show")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with opened() as page:
        show_graph(page, given.address, given.asset)
        page.mouse.move(1000, 600)
        page.mouse.wheel(0, -34)  # opened groups are laid out after the graph was fitted: bring the top of it into the picture
        save(page, given.folder / "asset-graph.png")
        show_group(page, given.address, given.group)
        widen(page)
        save(page, given.folder / "asset-group.png")
        for view, name in (("overview", "asset-plots"), ("checks", "asset-checks"), ("partitions", "asset-partitions")):
            show_asset(page, given.address, given.checked if view == "checks" else given.asset, view)
            save(page, given.folder / f"{name}.png")
        for path, name in ((given.report, "report"), (given.factors, "factor-report")):
            if path is not None:
                page.goto(path.resolve().as_uri(), wait_until="load")
                save(page, given.folder / f"{name}.png")


if __name__ == "__main__":
    main()
