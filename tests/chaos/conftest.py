"""What the tests here share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.trial import Trial, broker_of


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    with broker_of(tmp_path) as server:
        yield Trial(server, tmp_path)
