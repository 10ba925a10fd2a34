"""What a run was made with, for the audit log: the settings without their secrets, and the version of the code."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestration.settings import REPOSITORY, SECRETS, Settings

PACKAGES = ("quant", "adapters", "strategies", "assets", "orchestration", "services")
_SOURCES = {".py", ".toml", ".json", ".jinja", ".html"}
_LIBRARIES = ("polars", "pyarrow", "deltalake", "numpy", "numba", "lightgbm", "sqlalchemy", "dagster")
"""What the numbers, and the bytes that are hashed, depend on."""


def settings_document(settings: Settings) -> Mapping[str, object]:
    """Every setting with its value; secrets are left out."""
    secrets = {section: {inner: {key} for held, inner, key in SECRETS if held == section} for section, *_ in SECRETS}
    return settings.model_dump(mode="json", exclude=secrets)


@cache
def code_version() -> Mapping[str, object]:
    """Version of the package, commit of the checkout if it is one, SHA-256 over the source files, and the libraries underneath."""
    return {
        "version": _installed("afterclose"),
        "commit": _commit(),
        "source_sha256": source_digest(REPOSITORY),
        "python": platform.python_version(),
        "libraries": {name: _installed(name) for name in _LIBRARIES},
    }


def source_digest(root: Path) -> str:
    """SHA-256 over path and content of every source file of the packages under ``root``, in the order of their paths."""
    digest = hashlib.sha256()
    files = [path for package in PACKAGES for path in (root / package).rglob("*") if path.suffix in _SOURCES]
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    if not (REPOSITORY / ".git").exists():
        return None
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()
