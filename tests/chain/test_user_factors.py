"""A user's library of factors: a setting, columns, lineage, and one of the rules that a booked session keeps to."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from adapters.clock import FixedClock
from assets.factor_report import require_trained_on
from orchestration.definitions import build_definitions
from quant.errors import AftercloseError, InputError, SequenceError
from quant.ports import SessionStart, TrainedModel
from tests.chain.conftest import settings_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

LATER = FixedClock(datetime(2020, 1, 1, tzinfo=UTC))
SESSION = date(2013, 2, 1)
LIBRARY = 'reversal = "-Delta($close, 5)/$close"\nbusy = "Log($volume/Mean($volume, 60))"\n'


def definitions(tmp_path: Path, library: str | None, features: str | None = None) -> dg.Definitions:
    lines = ["", "[strategy]"]
    if library is not None:
        (tmp_path / "own.toml").write_text(library)
        lines.append(f'factors = "{tmp_path}/own.toml"')
    lines += [f'features = "{features}"'] if features else []
    settings = settings_of(paper_start="2013-02-01", end="2013-03-01", extra="\n".join([*lines, ""]))
    return build_definitions(settings, tmp_path / "root", LATER)


def parents(defs: dg.Definitions, asset: str) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().get(dg.AssetKey(asset)).parent_keys}


@pytest.mark.parametrize(
    ("features", "read"),
    [(None, True), ("alpha158+library", True), ("library", True), ("alpha158", False)],
)
def test_a_library_is_computed_in_both_jobs_and_is_upstream_of_the_model_if_the_model_reads_it(
    tmp_path: Path, features: str | None, read: bool
):
    defs = definitions(tmp_path, LIBRARY, features)
    jobs = {
        job: {key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys} for job in ("history", "daily")
    }
    assert "user_factor_history" in jobs["history"]
    assert "user_factors" in jobs["daily"]
    assert ("user_factors" in parents(defs, "scores")) == read
    for asset in ("walk_forward_scores", "alpha_model"):
        assert ("user_factor_history" in parents(defs, asset)) == read


def test_the_columns_of_the_asset_are_the_factors_with_their_expressions(tmp_path: Path):
    graph = definitions(tmp_path, LIBRARY).resolve_asset_graph()
    for asset in ("user_factor_history", "user_factors"):
        schema = graph.get(dg.AssetKey(asset)).metadata["dagster/column_schema"]
        told = {column.name: (column.type, column.description) for column in schema.columns}
        assert list(told) == ["session", "symbol", "library", "busy", "reversal"]
        assert told["busy"] == ("Float32", "Log($volume/Mean($volume, 60))")


def test_without_a_library_there_is_no_such_asset(tmp_path: Path):
    assert not [key for key in definitions(tmp_path, None).resolve_asset_graph().get_all_asset_keys() if "user" in key.to_user_string()]


@pytest.mark.parametrize(
    ("library", "features", "words"),
    [
        (None, "library", "a factor library with factors in it in .strategy. features = 'library', found none"),
        ("", "alpha158+library", "own.toml, found no factor"),
        ('KMID = "$close/$open"', None, "found KMID, which is Alpha158's KMID"),
        ('library = "$close/$open"', None, "found library, which is column library of table user_factors"),
        ('month = "$close/$open"', None, "found month, which is the column that user_factors is partitioned by"),
        ('label = "$close/$open"', None, "found label, which is column label of table forward_returns"),
        ('up = "$close/$open"\nUP = "$open/$close"', None, "found UP, which is up of line 1"),
        ('ahead = "Ref($close, -1)/$close"', None, "no row after the session in feature ahead"),
        (
            'best = "CSRank($close/$open, $sector)"',
            None,
            r"expected columns of table adjusted_bars in factor best, found \$sector to group symbols by; leave .*factors compute --bars",
        ),
        (f'long = "CSRank({"+".join(["CSRank($close/$open)"] * 70)})"', None, "factor long, once .*: expected at most 2000 characters"),
        ('typo = "Mena($close, 5)"', None, "Mena"),
    ],
)
def test_a_library_that_cannot_be_columns_is_refused_before_anything_runs(
    tmp_path: Path, library: str | None, features: str | None, words: str
):
    with pytest.raises(AftercloseError, match=words):
        definitions(tmp_path, library, features)


def test_a_library_that_is_not_there_is_refused_by_name(tmp_path: Path):
    settings = settings_of(paper_start="2013-02-01", end="2013-03-01", extra=f'\n[strategy]\nfactors = "{tmp_path}/none.toml"\n')
    with pytest.raises(InputError, match=r"none\.toml"):
        build_definitions(settings, tmp_path / "root", LATER)


def bound_of(defs: dg.Definitions) -> AbstractContextManager[Any]:
    assert defs.resources is not None
    return dg.build_resources({name: defs.resources[name] for name in ("chain", "ledger")})


@pytest.mark.parametrize(
    ("library", "found"),
    [
        (LIBRARY, None),
        ("".join(reversed(LIBRARY.splitlines(keepends=True))), None),
        (
            LIBRARY.replace("60", "20"),
            r"busy = Log\(\$volume/Mean\(\$volume, 60\)\) .*, found .*busy = Log\(\$volume/Mean\(\$volume, 20\)\)",
        ),
        (LIBRARY.splitlines()[0], r"busy = Log.*, found \[strategy\] factors: busy = none"),
        (LIBRARY + 'more = "$open/$close"', r"more = none .*, found \[strategy\] factors: more = \$open/\$close"),
        (None, r"features = alpha158\+library.*, found .*reversal = none"),
    ],
    ids=["same", "moved", "changed", "removed", "added", "no library"],
)
def test_a_booked_session_keeps_the_library_that_it_was_booked_under(tmp_path: Path, library: str | None, found: str | None):
    (tmp_path / "root").mkdir()
    with bound_of(definitions(tmp_path, LIBRARY)) as bound:
        start = SessionStart(book="paper", session=SESSION, decision_at=LATER.now(), rules=json.dumps(bound.chain.rules_in_force))
        bound.ledger.begin(start)
    with bound_of(definitions(tmp_path, library)) as bound:
        if found is None:
            assert bound.chain.begun(bound.ledger, SESSION) == start
        else:
            with pytest.raises(InputError, match=found):
                bound.chain.begun(bound.ledger, SESSION)


def test_a_report_without_the_library_that_the_scores_were_made_with_is_refused():
    trained = TrainedModel(version="abc", text="", features=("KMID", "reversal"))
    require_trained_on(trained, ["KMID", "KLEN", "reversal"])
    with pytest.raises(SequenceError, match=r"found one that reads reversal; name the library with --profile"):
        require_trained_on(trained, ["KMID", "KLEN"])
