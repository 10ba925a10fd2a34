"""`afterclose lake`: whether the stored files are what was written."""

import typer

from orchestration.terminal import bars, out, print_rows
from quant.errors import CorruptFileError, expected

lake = typer.Typer(help="The tables' files: whether they are what was written.", no_args_is_help=True)


@lake.callback()
def group() -> None:
    """A group of its own, so that `verify` is named in full."""


@lake.command()
def verify() -> None:
    """Read every file of every table's current version and hold it to the SHA-256 that was recorded when it was written.

    Exit 1 names the damaged ones. Every read of a table does the same for the files it needs; this is for all of them at once, for instance
    after a copy or before a backup. Files from before digests were recorded get theirs when their table is next written to.
    """
    from adapters.lake import open_lake
    from orchestration.settings import data_root
    from quant.tables import TABLES

    opened = open_lake(data_root())
    lines: list[list[str]] = []
    faults: list[str] = []
    with bars() as progress:
        task = progress.add_task("tables", total=len(TABLES))
        for name in TABLES:
            progress.update(task, description=name)
            found = opened.inspected(name)
            broken = [file for file in found if file.fault is not None]
            faults += [f"{file.path}: {file.fault}" for file in broken]
            counts = (len(found), sum(file.size_bytes for file in found), sum(not file.recorded for file in found), len(broken))
            lines.append([name, *(f"{count:,}" for count in counts)])
            progress.advance(task)
    print_rows(lines, ["table", "files", "bytes", "without digest", "damaged"])
    for fault in faults:
        out.print(fault, soft_wrap=True, highlight=False, markup=False)
    if faults:
        do = "restore them from a backup; if there is none, fill a new data root (AFTERCLOSE_DATA) from the source"
        raise CorruptFileError(expected("every file as it was written", found=f"{len(faults)} that are not", where=str(data_root()), do=do))
