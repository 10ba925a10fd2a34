"""Factor libraries: Qlib's two, frozen, and those that users bring."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec

import pytest

from quant.errors import InputError
from quant.factors.expression import FIELDS, features, parse
from quant.factors.library.frozen import LIBRARIES, frozen_library
from quant.factors.reach import Reach, reach

needs_pyqlib = pytest.mark.skipif(find_spec("qlib") is None, reason="pyqlib has no wheel for this Python")


@needs_pyqlib
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_names_and_expressions_are_those_of_pyqlibs_own_class(library: str) -> None:
    from adapters.freeze_factors import frozen

    stored = files("quant.factors.library") / f"{library}.toml"
    assert stored.read_text(encoding="utf-8") == frozen(library), "run `make factors`"


def test_alpha360_is_sixty_sessions_of_each_field_over_the_last_close_or_volume() -> None:
    alpha360 = frozen_library("alpha360")
    assert [name.rstrip("0123456789") for name in list(alpha360)[::60]] == ["CLOSE", "OPEN", "HIGH", "LOW", "VWAP", "VOLUME"]
    nodes = {name: parse(text) for name, text in alpha360.items()}
    assert len(nodes) == 360
    assert {field for node in nodes.values() for field in features(node)} == set(FIELDS)
    for name, node in nodes.items():
        assert reach(node) == Reach(past=int("".join(filter(str.isdigit, name))), future=0), name


def test_a_library_that_nobody_froze_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of alpha158, alpha360 in the factor libraries, found alpha101"):
        frozen_library("alpha101")
