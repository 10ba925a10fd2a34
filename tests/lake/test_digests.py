"""Every stored file is held to the digest of what was written before a row of it is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.lake import open_lake
from adapters.lake.digests import FOLDER
from adapters.lake.warehouse import DuckDBWarehouse
from quant.errors import CorruptFileError
from tests.lake.test_delta import D1, D2, D3, scores

ROWS = scores((D1, "A", 1), (D2, "A", 2), (D3, "A", 3))


def lake_with_rows(root: Path) -> tuple[Path, Path]:
    """The files of 2012 and of 2013."""
    open_lake(root).replace("scores", ROWS, first=D1, last=D3)
    return tuple(sorted((root / "lake/scores").glob("year=*/*.parquet")))  # type: ignore[return-value]


def flip(file: Path, place: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.scenario(20)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_anywhere_is_refused(tmp_path: Path, place: int, bit: int):
    files = sorted((tmp_path / "lake/scores").glob("year=2013/*.parquet")) or lake_with_rows(tmp_path)
    flip(files[-1], place, bit)
    with pytest.raises(
        CorruptFileError, match=r"expected the file part-.* as it was written in table scores \(.*found SHA-256 .* was written"
    ):
        open_lake(tmp_path).read("scores")
    flip(files[-1], place, bit)
    assert open_lake(tmp_path).read("scores").equals(ROWS)


@pytest.mark.scenario(20)
@pytest.mark.parametrize("length", [0, 4, 100])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int):
    file = lake_with_rows(tmp_path)[1]
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CorruptFileError, match="found SHA-256"):
        open_lake(tmp_path).read("scores", first=D3)


@pytest.mark.scenario(20)
def test_a_file_that_is_gone_is_refused(tmp_path: Path):
    lake_with_rows(tmp_path)[1].unlink()
    with pytest.raises(CorruptFileError, match="found no such file"):
        open_lake(tmp_path).read("scores")


def test_a_range_that_the_damaged_file_has_no_part_in_can_be_read(tmp_path: Path):
    flip(lake_with_rows(tmp_path)[1], 50)
    assert open_lake(tmp_path).read("scores", last=D1)["score"].to_list() == [1.0]


def test_a_damaged_file_does_not_become_a_new_one(tmp_path: Path):
    flip(lake_with_rows(tmp_path)[1], 50)
    with pytest.raises(CorruptFileError):
        open_lake(tmp_path).replace("scores", scores((D2, "B", 20)), first=D2, last=D2)
    assert open_lake(tmp_path).version("scores") == 0


def test_an_older_version_is_held_to_its_digests_too(tmp_path: Path):
    old = lake_with_rows(tmp_path)[1]
    open_lake(tmp_path).replace("scores", scores((D2, "B", 20)), first=D2, last=D2)
    flip(old, 50)
    assert open_lake(tmp_path).read("scores").height == 3
    with pytest.raises(CorruptFileError):
        open_lake(tmp_path).read("scores", version=0)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, b"\x00" * 90, b"abc  ../year=2013/part"], ids=["empty", "not text", "zeros", "short"]
)
def test_a_digest_that_is_none_is_told_apart_from_a_damaged_file(tmp_path: Path, content: bytes):
    file = lake_with_rows(tmp_path)[1]
    (tmp_path / "lake/scores" / FOLDER / f"{file.name}.sha256").write_bytes(content)
    file.touch()  # looked at anew, as another process would
    with pytest.raises(CorruptFileError, match=rf"found a recorded digest that is none \(.*{file.name}.sha256\)"):
        open_lake(tmp_path).read("scores")


def test_a_data_root_may_be_a_link_or_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for n, root in enumerate((tmp_path / "link", Path("link"), Path("real/../real"), tmp_path / "real")):
        open_lake(root).replace("scores", scores((D2, "A", n)), first=D2, last=D2)
        lake = open_lake(root)
        assert lake.read("scores")["score"].to_list() == [n]
        assert [(file.recorded, file.fault) for file in lake.inspected("scores")] == [(True, None)]
        DuckDBWarehouse(lake, tmp_path / "w.duckdb").publish({"profile": "test"})
        with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as reader:
            assert reader.execute("SELECT score FROM scores").fetchall() == [(n,)]


def test_files_from_before_there_were_digests_get_theirs_with_the_next_commit(tmp_path: Path):
    lake_with_rows(tmp_path)
    for sidecar in (tmp_path / "lake/scores" / FOLDER).iterdir():
        sidecar.unlink()
    lake = open_lake(tmp_path)
    assert [found.recorded for found in lake.inspected("scores")] == [False, False]
    assert lake.read("scores").equals(ROWS)
    lake.replace("scores", scores((D2, "B", 20)), first=D2, last=D2)
    assert {(found.recorded, found.fault) for found in lake.inspected("scores")} == {(True, None)}


_FILL = """
import resource, signal, sys
from pathlib import Path
from adapters.lake import open_lake
from tests.lake.test_delta import D2, scores
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails like one on a full disk
lake = open_lake(Path(sys.argv[1]))
lake.read("scores")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
lake.replace("scores", scores(*((D2, f"S{n * 7919 % 100_003:06d}", n * 0.37 % 1.0) for n in range(3000))), first=D2, last=D2)
"""


@pytest.mark.scenario(18)
@pytest.mark.parametrize("room", [0, 700, 8_000])
def test_a_disk_that_fills_up_while_a_table_is_written_leaves_the_version_before_readable(tmp_path: Path, room: int):
    lake_with_rows(tmp_path)
    done = subprocess.run([sys.executable, "-c", _FILL, str(tmp_path), str(room)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0, "the limit was not reached"
    lake = open_lake(tmp_path)
    assert lake.version("scores") == 0
    assert lake.read("scores").equals(ROWS)
    lake.replace("scores", scores((D2, "B", 20)), first=D2, last=D2)  # there is room again
    assert lake.read("scores")["score"].to_list() == [1.0, 20.0, 3.0]
    assert all(found.fault is None for found in lake.inspected("scores"))


_PUBLISH = """
import resource, signal, sys
from pathlib import Path
from adapters.lake import open_lake
from adapters.lake.warehouse import DuckDBWarehouse
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
DuckDBWarehouse(open_lake(root), root / "w.duckdb").publish({"profile": "second"})
"""


def test_a_disk_that_fills_up_while_the_warehouse_is_built_leaves_the_one_before_readable(tmp_path: Path):
    lake_with_rows(tmp_path)
    path = tmp_path / "w.duckdb"
    DuckDBWarehouse(open_lake(tmp_path), path).publish({"profile": "first"})
    done = subprocess.run([sys.executable, "-c", _PUBLISH, str(tmp_path)], capture_output=True, check=False, timeout=120)
    assert done.returncode != 0, "the limit was not reached"
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.sql("SELECT value FROM facts").fetchall() == [("first",)]
        assert connection.sql("SELECT count(*) FROM scores").fetchall() == [(3,)]
    assert list(tmp_path.glob("*.new*")) == []
