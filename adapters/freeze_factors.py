"""Freeze the expressions of pyqlib's own Alpha158 into quant/factors/library/alpha158.toml (``make factors``)."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any


def frozen_alpha158() -> str:
    """Names and expressions of pyqlib's Alpha158DL, in its order, as TOML."""
    library: Any = import_module("qlib.contrib.data.loader")  # without types, and absent where pyqlib has no wheel
    fields, names = library.Alpha158DL.get_feature_config()
    head = "# pyqlib 0.9.7, Alpha158DL.get_feature_config(); made by `make factors`, held to pyqlib by a test.\n"
    return head + "".join(f"{name} = {json.dumps(text)}\n" for name, text in zip(names, fields, strict=True))


if __name__ == "__main__":
    (Path(__file__).parent.parent / "quant" / "factors" / "library" / "alpha158.toml").write_text(frozen_alpha158())
