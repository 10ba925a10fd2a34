"""The factor engine against pyqlib and KunQuant, in turn in one process for each number of cores: medians and ratios.

python -m benchmarks.alpha158 [--repeats 3] [--only NAME ...] [--peers build/peers]

KunQuant is not a dependency; `make benchmark` puts it into build/peers first (it needs g++). A peer that cannot run fails the benchmark.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.measure import MemoryPeak
from benchmarks.panel import FIELDS, panel, write_qlib
from quant.factors.compile import compute, evaluate
from quant.factors.library.alpha158 import alpha158

GOALS = {  # name of a comparison -> at least so many times faster
    "alpha158 / pyqlib": 250,
    "alpha158 / KunQuant": 8,
    "alpha360 / pyqlib": 200,
    "own 50 / pyqlib": 50,
}


def own_expressions() -> dict[str, str]:
    """50 expressions that have no window and no shape in common with Alpha158."""
    shapes = {
        "decay": "EMA($close, {w})/WMA($close, {w})",
        "tail": "Skew($close/Ref($close, 2), {w})-Kurt($high/$low, {w})",
        "spread": "Mad($close, {w})/Med($close, {w})",
        "flow": "Cov($vwap/$close, $volume/Mean($volume, {w}), {w})",
        "impact": "Mean(Abs($close/$open-1)/Log($volume+10), {w})*1e3",
        "channel": "($vwap-Min($open, {w}))/(Max($open, {w})-Min($open, {w})+1e-9)",
        "trend": "Slope(Log($vwap), {w})*Rsquare($vwap, {w})",
        "rank": "Rank($volume*$vwap, {w})-Rank($high-$low, {w})",
        "signed": "Sum(Sign($open-Ref($open, 3))*If($high>Ref($high, 2), $volume, 0), {w})/Sum($volume, {w})",
        "nested": "Corr(Rank(Delta($open, 2), 8), Std($vwap/$open, 4), {w})",
    }
    return {f"{name}{window}": text.format(w=window) for name, text in shapes.items() for window in (7, 13, 25, 42, 90)}


def alpha360() -> dict[str, str]:
    from qlib.contrib.data.loader import Alpha360DL

    fields, names = Alpha360DL.get_feature_config()
    return dict(zip(names, fields, strict=True))


class Qlib:
    """pyqlib's own loader on the same panel."""

    def __init__(self, root: Path, cores: int) -> None:
        import qlib

        warnings.filterwarnings("ignore")
        qlib.init(provider_uri=str(root), region="us", kernels=cores, logging_level=40)

    def __call__(self, expressions: Mapping[str, str]) -> object:
        from qlib.data import D
        from qlib.data.cache import H

        H.clear()  # its memory of what it computed before
        return D.features(D.instruments("all"), list(expressions.values()), freq="day")


class KunQuant:
    """KunQuant's predefined Alpha158, compiled from C++ for this machine, on a rectangle of sessions and symbols."""

    def __init__(self, bars: pl.DataFrame, cores: int, peers: Path) -> None:
        sys.path.insert(0, str(peers))
        op, driver, runner, stage, jit, predefined = (
            import_module(f"KunQuant.{name}") for name in ("Op", "Driver", "runner.KunRunner", "Stage", "jit.cfake", "predefined.Alpha158")
        )
        builder = op.Builder()
        with builder:
            data = predefined.AllData(**{name: op.Input(name) for name in ("open", "high", "low", "close", "volume", "amount")})
            prices = [("OPEN", data.open), ("HIGH", data.high), ("LOW", data.low), ("VWAP", data.vwap)]
            windows = {"windows": [5, 10, 20, 30, 60]}
            factors, self.names = data.build({"kbar": {}, "price": {"windows": [0], "feature": prices}, "rolling": windows})
            for name, factor in zip(self.names, factors, strict=True):
                op.Output(factor, name)
        config = driver.KunCompilerConfig(dtype="float", input_layout="TS", output_layout="TS", partition_factor=8)
        library = jit.compileit([("alpha158", stage.Function(builder.ops), config)], "alpha158", jit.CppCompilerConfig())
        self._runner, self._module = runner, library.getModule("alpha158")
        self._executor = runner.createSingleThreadExecutor() if cores == 1 else runner.createMultiThreadExecutor(cores)
        wide = {name: bars.pivot("symbol", index="session", values=name).sort("session").drop("session") for name in FIELDS}
        lots = -wide["close"].width % 8  # it takes symbols eight at a time
        self._inputs = {
            name: np.ascontiguousarray(np.pad(frame.fill_null(float("nan")).to_numpy(), ((0, 0), (0, lots)), mode="edge"), np.float32)
            for name, frame in wide.items()
        }
        self._inputs["amount"] = self._inputs.pop("vwap") * self._inputs["volume"]

    def __call__(self) -> object:
        rows = len(self._inputs["close"])
        return self._runner.runGraph(self._executor, self._module, self._inputs, 0, rows)


def measured(runs: Mapping[str, Callable[[], object]], repeats: Mapping[str, int]) -> dict[str, float]:
    """Median seconds of each, taken in turn; the first call of each is not counted where it is repeated."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        if repeats[name] > 1:
            run()
    for turn in range(max(repeats.values())):
        for name, run in runs.items():
            if turn < repeats[name]:
                begin = time.perf_counter()
                result = run()
                taken[name].append(time.perf_counter() - begin)
                del result
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def streamed(expressions: Mapping[str, str], bars: pl.DataFrame, cores: int) -> int:
    return sum(batch.height for batch in evaluate(expressions, bars, threads=cores))


def against_peers(cores: int, repeats: int, peers: Path) -> None:
    """Alpha158, Alpha360 and 50 expressions of a user on 500 symbols x 1260 sessions."""
    bars = panel(500, 1260, 7)
    with tempfile.TemporaryDirectory() as folder:
        write_qlib(bars, Path(folder) / "qlib")
        qlib, kunquant = Qlib(Path(folder) / "qlib", cores), KunQuant(bars, cores, peers)
        ours = max(7, repeats)
        for name, factors in (("alpha158", dict(alpha158())), ("alpha360", alpha360()), ("own 50", own_expressions())):
            runs: dict[str, Callable[[], object]] = {
                "engine": lambda factors=factors: compute(factors, bars, threads=cores),
                "engine, batch by batch": lambda factors=factors: streamed(factors, bars, cores),
                "pyqlib": lambda factors=factors: qlib(factors),
            }
            if name == "alpha158":
                runs["KunQuant"] = kunquant
            counts = {run: repeats if run == "pyqlib" and name == "alpha158" else 1 if run == "pyqlib" else ours for run in runs}
            seconds = measured(runs, counts)
            for run, median in seconds.items():
                ratio = "" if run.startswith("engine") else f"{median / seconds['engine']:8.1f} x the engine"
                goal = GOALS.get(f"{name} / {run}")
                print(f"{name:9} {cores} core(s)  {run:22} {median:9.4f} s {ratio}{f' (goal {goal} x)' if goal else ''}", flush=True)


def scaling(cores: int, repeats: int) -> None:
    """Seven million rows, and whether twelve times the rows take twelve times as long."""
    factors = dict(alpha158())
    small, large = panel(500, 1260, 7), panel(6000, 1260, 8)
    seconds = measured(
        {"small": lambda: streamed(factors, small, cores), "large": lambda: streamed(factors, large, cores)}, {"small": 7, "large": repeats}
    )
    rows = large.height / small.height
    print(f"alpha158 2 core(s)  {large.height / 1e6:.1f} M rows {seconds['large']:.3f} s (goal 1.0 s)", end="; ")
    print(f"{rows:.1f} x the rows of the small panel take {seconds['large'] / seconds['small']:.1f} x its {seconds['small']:.4f} s")


def last_session(cores: int) -> None:
    factors = dict(alpha158())
    for symbols in (500, 3000, 8000):
        bars = panel(symbols, 400, 9)
        days = bars["session"].unique().sort()
        recent = bars.filter(pl.col("session") >= days[-61])
        rows = compute(factors, recent, since=days[-1], threads=cores).height
        run: Callable[[], object] = lambda recent=recent, last=days[-1]: compute(factors, recent, since=last, threads=cores)  # noqa: E731
        seconds = measured({"last": run}, {"last": 15})["last"]
        print(
            f"alpha158 1 core     last session of {rows} symbols {seconds * 1e3:.1f} ms, {seconds / rows * 1e6:.1f} us a symbol (goal 6 us)"
        )


COLD = """
import time; begin = time.perf_counter()
import polars as pl
from quant.factors.compile import compute
from quant.factors.library.alpha158 import alpha158
frame = compute(alpha158(), pl.read_parquet({path!r}))
print(time.perf_counter() - begin, frame.height)
from benchmarks.measure import MemoryPeak
print(MemoryPeak().peak_gb())
"""


def cold_process() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.parquet"
        panel(500, 1260, 7).write_parquet(path)
        command = [sys.executable, "-c", COLD.format(path=str(path))]
        subprocess.run(command, check=True, capture_output=True)  # compiles, where nothing is compiled yet
        seconds: list[float] = []
        peaks: list[float] = []
        for _ in range(5):
            begin = time.perf_counter()
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            seconds.append(time.perf_counter() - begin)
            peaks.append(float(answer[-1]))
        print(f"alpha158 2 core(s)  a whole process, Parquet to frame {statistics.median(seconds):.2f} s (goal 2.0 s)")
        print(f"alpha158 2 core(s)  its peak memory {max(peaks):.2f} GB (goal 0.9 GB)")


def to_parquet() -> None:
    """40 million rows, batch by batch into a file."""
    import pyarrow.parquet as pq

    factors = dict(alpha158())
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "bars"
        parts.mkdir()
        for part in range(8):
            bars = panel(1000, 5000, part).with_columns((pl.lit(f"P{part}") + pl.col("symbol")).alias("symbol"))
            bars.write_parquet(parts / f"{part}.parquet")
            del bars
        memory, written = MemoryPeak(), 0
        memory.reset()
        begin = time.perf_counter()
        bars = pl.read_parquet(parts / "*.parquet")
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            writer = None
            for batch in evaluate(factors, bars):
                table = batch.to_arrow()
                writer = writer or pq.ParquetWriter(file.name, table.schema, use_dictionary=["session", "symbol"])  # pyright: ignore[reportArgumentType]
                writer.write_table(table)
                written += table.num_rows
            assert writer is not None
            writer.close()
            size = Path(file.name).stat().st_size / 1e9
        taken = time.perf_counter() - begin
        print(f"alpha158 2 core(s)  {written / 1e6:.1f} M rows to {size:.1f} GB of Parquet {taken:.0f} s, ", end="")
        print(f"peak {memory.peak_gb():.2f} GB (goal 4 GB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of pyqlib's Alpha158, which takes most of the time")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="where KunQuant is installed")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS), help="parts to run; default: all")
    parser.add_argument("--here", action="store_true", help="in this process, on all its cores")
    chosen = parser.parse_args()
    for name in chosen.only:
        cores, run = PARTS[name]
        if chosen.here:
            run(cores, chosen)
            continue
        options = ["--only", name, "--repeats", str(chosen.repeats), "--peers", str(chosen.peers)]
        allowed = set(sorted(os.sched_getaffinity(0))[:cores])
        environment = {**os.environ, "POLARS_MAX_THREADS": str(cores)}
        command = [sys.executable, "-m", "benchmarks.alpha158", "--here", *options]
        subprocess.run(command, check=True, env=environment, preexec_fn=lambda allowed=allowed: os.sched_setaffinity(0, allowed))


PARTS: dict[str, tuple[int, Callable[[int, argparse.Namespace], None]]] = {  # name -> cores and what to run on them
    "one": (1, lambda cores, chosen: against_peers(cores, chosen.repeats, chosen.peers)),
    "two": (2, lambda cores, chosen: against_peers(cores, chosen.repeats, chosen.peers)),
    "scaling": (2, lambda cores, chosen: scaling(cores, chosen.repeats)),
    "last": (1, lambda cores, _: last_session(cores)),
    "cold": (2, lambda *_: cold_process()),
    "parquet": (2, lambda *_: to_parquet()),
}

if __name__ == "__main__":
    main()
