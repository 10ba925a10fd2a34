"""Freeze the expressions of pyqlib's own Alpha158 and Alpha360 into quant/factors/library (``make factors``)."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from quant.factors.library.frozen import LIBRARIES


def frozen(library: str) -> str:
    """Names and expressions of pyqlib's class for ``library`` (alpha158: Alpha158DL), in its order, as TOML."""
    loader: Any = import_module("qlib.contrib.data.loader")  # without types, and absent where pyqlib has no wheel
    kind = f"{library.capitalize()}DL"
    fields, names = getattr(loader, kind).get_feature_config()
    head = f"# pyqlib 0.9.7, {kind}.get_feature_config(); made by `make factors`, held to pyqlib by a test.\n"
    return head + "".join(f"{name} = {json.dumps(text)}\n" for name, text in zip(names, fields, strict=True))


if __name__ == "__main__":
    folder = Path(__file__).parent.parent / "quant" / "factors" / "library"
    for name in LIBRARIES:
        (folder / f"{name}.toml").write_text(frozen(name), encoding="utf-8")
