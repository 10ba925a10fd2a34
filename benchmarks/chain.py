"""The whole chain on a universe of files: seconds and peak memory of every step of the history and of the daily sessions.

python -m benchmarks.chain --bars PATH --actions PATH --start 1999-11-01 --paper-start 2021-04-15 [--column date=session]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import MemoryPeak

PROFILE = """\
name = "benchmark"
[source]
kind = "files"
[source.files]
bars = "{bars}"
actions = "{actions}"
columns = {columns}
convention = "{convention}"
absent = ["vwap"]
[calendar]
start = {start}
paper_start = {paper_start}
[model]
max_train_years = 5
threads = {threads}
[model.params]
learning_rate = 0.02
num_leaves = 31
min_data_in_leaf = 1000
[portfolio]
names_per_side = {names}
[risk]
max_name_ratio = 0.05
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path, required=True, help="Parquet or CSV of raw bars")
    parser.add_argument("--actions", type=Path, required=True, help="Parquet or CSV of splits and dividends")
    parser.add_argument("--column", action="append", default=[], metavar="THEIRS=OURS", help="column to rename, e.g. date=session")
    parser.add_argument("--convention", default="ex_date_close", help="previous_close or ex_date_close")
    parser.add_argument("--start", required=True, help="first session of the history")
    parser.add_argument("--paper-start", required=True, help="first daily session")
    parser.add_argument("--sessions", type=int, default=3, help="daily sessions to run after the history")
    parser.add_argument("--names", type=int, default=50, help="names a side")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of the training")
    parser.add_argument("--root", type=Path, help="data root to keep; default: a temporary one")
    return parser.parse_args()


@contextmanager
def data_root(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="afterclose-benchmark-") as folder:
        yield Path(folder)


def write_profile(root: Path, given: argparse.Namespace) -> Path:
    renamed = ", ".join(f'{theirs} = "{ours}"' for theirs, ours in (pair.split("=", 1) for pair in given.column))
    text = PROFILE.format(
        bars=given.bars.resolve(),
        actions=given.actions.resolve(),
        columns=f"{{{renamed}}}",
        convention=given.convention,
        start=given.start,
        paper_start=given.paper_start,
        threads=given.threads,
        names=given.names,
    )
    path = root / "profile.toml"
    path.write_text(text)
    return path


def watch(lines: list[tuple[str, float, float]], memory: MemoryPeak, label: str) -> Callable[[str, bool, str], None]:
    began: dict[str, float] = {}

    def step(name: str, done: bool, note: str) -> None:
        if note:
            print(f"    {note}", flush=True)
        elif done:
            end(name)
        else:
            memory.reset()
            began[name] = time.monotonic()

    def end(name: str) -> None:
        lines.append((f"{label}{name}", time.monotonic() - began[name], memory.peak_gb()))
        print(f"{lines[-1][0]:<46}{lines[-1][1]:9.1f} s {lines[-1][2]:7.2f} GB", flush=True)

    return step


def main() -> None:
    given = arguments()
    memory, lines, began = MemoryPeak(), list[tuple[str, float, float]](), time.monotonic()
    with data_root(given.root) as root:
        os.environ["AFTERCLOSE_PROFILE"], os.environ["AFTERCLOSE_DATA"] = str(write_profile(root, given)), str(root / "data")
        from rich.console import Console

        from orchestration.runs import run_job
        from orchestration.workbench import Workbench

        with Workbench.opened() as bench:
            run_job(bench.defs, bench.instance, "history", partition=None, watch=watch(lines, memory, ""))
            for session in bench.missing_sessions()[: given.sessions]:
                before = time.monotonic()
                run_job(bench.defs, bench.instance, "daily", partition=f"{session}", watch=watch(lines, memory, f"{session} "))
                print(f"session {session}: {time.monotonic() - before:.1f} s", flush=True)
            bench.print_summary(Console())
    peak = max(gigabytes for _, _, gigabytes in lines)
    print(f"wall {(time.monotonic() - began) / 60:.1f} min, peak {peak:.2f} GB ({max(lines, key=lambda line: line[2])[0]})")


if __name__ == "__main__":
    main()
