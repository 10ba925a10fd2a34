"""A user's factor library from its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from quant.errors import InputError, expected
from quant.factors.library.reader import MAX_CHARACTERS, read_library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KINDS: Mapping[str, Literal["toml", "python"]] = {".toml": "toml", ".py": "python"}


def load_library(path: Path) -> Mapping[str, str]:
    """Name -> expression of a TOML or Python file, with or without a byte order mark; see quant.factors.library.reader.

    Raises InputError for a file that cannot be read.
    """
    if path.suffix.lower() not in _KINDS:
        raise InputError(expected("a factor library ending in .toml or .py", found=path.name, where=str(path.parent), do="rename it"))
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise InputError(expected("a factor library", found="no such file", where=str(path), do="correct the path")) from None
    except UnicodeDecodeError as error:
        raise InputError(expected("UTF-8 text", found=str(error), where=str(path), do="save it as UTF-8")) from None
    except OSError as error:
        raise InputError(expected("a file that can be read", found=error.strerror, where=str(path), do="correct the path")) from None
    return read_library(text, kind=_KINDS[path.suffix.lower()], where=str(path))
