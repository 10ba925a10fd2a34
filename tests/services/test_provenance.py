"""What the audit log says of settings and code: every value, no secret, and another digest for other code."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from orchestration.provenance import code_version, settings_document, source_digest
from orchestration.settings import SECRETS, Settings
from quant.audit.canonical import canonical_json
from tests.conftest import REPOSITORY

SECRET = "s3cret-of-a-channel"
ALERTS = {
    "email": {"host": "mail.example.com", "sender": "a@example.com", "recipients": ["b@example.com"], "password": SECRET},
    "slack": {"url": SECRET},
    "webhook": {"url": "https://oncall.example.com/x", "secret": SECRET},
}


def test_every_setting_is_in_the_document_and_no_secret() -> None:
    profile = tomllib.loads((REPOSITORY / "afterclose.toml").read_text())
    document = json.loads(canonical_json(settings_document(Settings(**profile, alerts=ALERTS))))
    assert SECRET not in json.dumps(document)
    assert set(document) == set(Settings.model_fields)
    assert document["portfolio"]["names_per_side"] == 2
    for section, inner, key in SECRETS:
        assert key not in document[section][inner]
        assert document[section][inner] is not None


def test_the_code_has_a_version_a_digest_and_the_libraries_that_its_numbers_depend_on() -> None:
    told = code_version()
    assert told["version"]
    assert told["source_sha256"] == source_digest(REPOSITORY)
    assert set(told["libraries"]) >= {"polars", "lightgbm", "numpy"}  # type: ignore[call-overload]
    assert all(told["libraries"].values())  # type: ignore[attr-defined]


def test_another_line_of_code_is_another_digest(tmp_path: Path) -> None:
    (tmp_path / "quant").mkdir()
    (tmp_path / "tests").mkdir()
    digests = [source_digest(tmp_path)]
    for path, text in (("quant/a.py", "x = 1\n"), ("quant/a.py", "x = 2\n"), ("quant/b.py", "x = 2\n"), ("tests/a.py", "x = 1\n")):
        (tmp_path / path).write_text(text)
        digests.append(source_digest(tmp_path))
    assert len(set(digests)) == 4  # a test is no code of the product
    assert digests[3] == digests[4]
