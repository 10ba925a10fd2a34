"""What the benchmarks measure with."""

import resource
from pathlib import Path


class MemoryPeak:
    """Peak resident memory of this process since the last reset (Linux); elsewhere since its start."""

    def reset(self) -> None:
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")

    def peak_gb(self) -> float:
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
