from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from orchestration import launcher
from tests.conftest import IN_CI


@pytest.fixture(scope="session")
def page_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the UI of an empty data root."""
    if shutil.which("chromium") is None and not IN_CI:
        pytest.skip("chromium is not installed: apt-get install chromium")
    root = tmp_path_factory.mktemp("browser")
    try:
        launcher.start(root, 3900)
        address = launcher.address(root)
        assert address is not None
        yield address
    finally:
        launcher.stop(root)
