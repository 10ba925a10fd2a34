"""A data root is one run's at a time, and one source's for good."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from orchestration.root import at_work, require_same_data
from orchestration.settings import Settings
from quant.errors import InputError, SequenceError

PROFILE = """
name = "test"
[source]
kind = "sample"
universe = {universe}
[calendar]
start = 2009-01-02
paper_start = 2013-02-01
"""


def settings(universe: str = '"all"') -> Settings:
    return Settings(**tomllib.loads(PROFILE.format(universe=universe)))


def test_a_second_run_waits_says_so_once_and_gives_up_with_a_clear_error(tmp_path: Path) -> None:
    told: list[str] = []
    with at_work(tmp_path, settings(), told.append):
        assert told == []
        with pytest.raises(SequenceError, match="one run at a time"), at_work(tmp_path, settings(), told.append, seconds=0.5):
            pass
    assert len(told) == 1
    assert told[0].startswith("waits for process ")
    with at_work(tmp_path, settings(), told.append, seconds=0):
        assert len(told) == 1


def test_a_killed_run_lets_the_next_one_in(tmp_path: Path) -> None:
    take = f"f = open({str(tmp_path / 'run.lock')!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX)"
    code = f"import fcntl, os; {take}; print('held', flush=True); os.read(0, 1)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SequenceError), at_work(tmp_path, settings(), lambda why: None, seconds=0.3):
            pass
        holder.kill()
        holder.wait()
        with at_work(tmp_path, settings(), lambda why: None, seconds=5):
            pass


def test_the_first_run_makes_a_root_its_sources_and_another_source_is_refused(tmp_path: Path) -> None:
    require_same_data(tmp_path, settings())
    assert not (tmp_path / "identity.json").exists()  # asking claims nothing
    with at_work(tmp_path, settings(), lambda why: None):
        pass
    require_same_data(tmp_path, settings())
    with pytest.raises(InputError, match="settings this data root was filled with"):
        require_same_data(tmp_path, settings('["AAPL", "IBM"]'))


def test_a_root_stays_its_own_when_its_folder_begins_to_grow(tmp_path: Path) -> None:
    files = PROFILE.format(universe='"all"').replace("sample", "files") + '[source.files]\nbars = "bars"\n'
    with at_work(tmp_path, Settings(**tomllib.loads(files)), lambda why: None):
        pass
    require_same_data(tmp_path, Settings(**tomllib.loads(files + "grows = true\n")))
    with pytest.raises(InputError, match="settings this data root was filled with"):
        require_same_data(tmp_path, Settings(**tomllib.loads(files + "publish_delay_minutes = 5\n")))
