"""`afterclose factors`: factor libraries and expressions, looked at, checked and computed."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.markup import escape
from rich.tree import Tree

from orchestration.terminal import bars, err, out, parse_session
from quant.errors import FactorError, InputError, LookaheadError, expected

if TYPE_CHECKING:
    import polars as pl

    from quant.factors.expression import Node

factors = typer.Typer(
    help="Factor libraries and expressions: look at them, check them, compute them. The language: docs/factors.md.",
    no_args_is_help=True,
)

LibraryOption = Annotated[str, typer.Option("--library", "-l", help="alpha158, alpha360, or a TOML or Python file of name -> expression.")]
ModeOption = Annotated[
    Literal["qlib", "strict"],
    typer.Option(help="qlib: a window uses the values that are there. strict: missing unless every value in the window is known."),
]
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"[^$()]*\.[A-Za-z]\w*", re.ASCII)


@factors.command(name="list")
def list_factors(library: LibraryOption = "alpha158") -> None:
    """Names, earlier sessions needed and expressions of a library.

    Example: afterclose factors list --library mine.toml
    """
    from orchestration.factor_files import library_of
    from quant.factors.expression import parse
    from quant.factors.reach import reach

    expressions = library_of(library)
    past = {name: reach(parse(text)).past for name, text in expressions.items()}
    width = max(len("factor"), *map(len, expressions))
    out.print(f"[bold]{'factor':<{width}}  sessions  expression[/]", highlight=False)
    for name, text in expressions.items():
        out.print(f"{name:<{width}}  {past[name]:>8}  {' '.join(text.split())}", highlight=False, markup=False, soft_wrap=True)
    needed = _counted(max(past.values()), "earlier session")
    out.print(f"{_counted(len(expressions), 'factor')}; a value needs up to {needed}.", highlight=False)


@factors.command()
def show(
    factor: Annotated[str, typer.Argument(help="Name of a factor, or an expression in single quotes.")],
    library: Annotated[str | None, typer.Option("--library", "-l", help="Where to look for the name; default: alpha158, alpha360.")] = None,
    mode: ModeOption = "qlib",
) -> None:
    """A factor's tree, how far back it reaches and what it costs.

    Example: afterclose factors show CORD5, or: afterclose factors show 'Mean($close, 5)/$close'
    """
    from quant.factors.expression import features, parse, text

    name, home, expression, others = _found(factor, library)
    node = parse(expression)
    if name:
        out.print(f"[bold]{escape(name)}[/] of {escape(home)}", highlight=False, soft_wrap=True)
    out.print(text(node), highlight=False, markup=False, soft_wrap=True)
    out.print()
    out.print(_tree(node), highlight=False)
    out.print()
    _told("needs", _needs(node))
    _told("reads", ", ".join(f"${field}" for field in sorted(features(node))))
    _told("mode", {"qlib": "qlib: windows use the values that are there", "strict": "strict: windows need every value"}[mode])
    _told("cost", _cost(node, home, others, mode))


@factors.command()
def check(
    expression: Annotated[
        str, typer.Argument(metavar="EXPRESSION|NAME|FILE", help="An expression in single quotes, a factor's name, or a library's file.")
    ],
    library: Annotated[str | None, typer.Option("--library", "-l", help="Where to look for the name; default: alpha158, alpha360.")] = None,
) -> None:
    """Whether an expression or a whole library may be used; if not, why, with the position marked. Exit 2: refused.

    An expression that begins with a minus needs -- before it.

    Example: afterclose factors check '$close/Ref($close, 5)-1', or: afterclose factors check -- '-Delta($close, 5)/$close'
    """
    from quant.factors.library.frozen import LIBRARIES

    if expression in LIBRARIES or expression.lower().endswith((".toml", ".py")):
        _check_library(expression)
        return
    if _PATH.fullmatch(expression) or Path(expression).is_file():
        do = "rename the file, or put an expression into single quotes"
        raise InputError(expected("a library's file ending in .toml or .py", found=expression, where="check", do=do))
    name, home, written, _ = _found(expression, library)
    _check_expression(written, f"{name} of {home}: " if name else "")


@factors.command()
def compute(
    library: LibraryOption,
    target: Annotated[Path, typer.Option("--out", metavar="PATH.parquet", help="File to write; replaced whole if it is there.")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--bars",
            exists=True,
            help="Parquet or CSV, a row a session and symbol: session (or date), symbol, open, high, low, close, volume[, vwap]. Taken as "
            "they are: adjust them for splits and dividends first. Default: the adjusted bars of the data root.",
        ),
    ] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day; earlier bars are still read.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day.")] = None,
    mode: ModeOption = "qlib",
    dtype: Annotated[Literal["float32", "float64"], typer.Option(help="Type of the factors' columns.")] = "float32",
) -> None:
    """A library's factors for every session and symbol, to Parquet: sorted by symbol and session, null where a value is missing.

    Example: afterclose factors compute --library mine.toml --bars bars.csv --out factors.parquet
    """
    begin = None if first is None else parse_session(first, "--from")
    end = None if last is None else parse_session(last, "--to")
    if begin and end and begin > end:
        raise InputError(expected("--from not after --to", found=f"{begin} > {end}", where="compute", do="swap them"))
    _require_target(target, source)
    from orchestration.factor_files import library_of, write_parquet

    expressions = library_of(library)
    with err.status("reading bars"):
        panel = _panel(expressions, source, begin, end)
    wanted = _wanted(panel, begin)
    with bars() as progress:
        task = progress.add_task(f"{_counted(len(expressions), 'factor')}, thousands of rows", total=-(-wanted // 1000))
        frames = _computed(expressions, panel, begin, mode, dtype)
        rows = write_parquet(frames, target, lambda done: progress.update(task, completed=-(-done // 1000)))
    size = target.stat().st_size / 1e6
    out.print(
        f"{target}: {rows:,} rows, {_counted(len(expressions), 'factor')}, {dtype}, {size:,.1f} MB",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _found(factor: str, library: str | None) -> tuple[str, str, str, list[str]]:
    """Name (if it has one), library, expression, and the library's other expressions."""
    from orchestration.factor_files import library_of
    from quant.factors.library.frozen import LIBRARIES

    libraries = {name: library_of(name) for name in ([library] if library else LIBRARIES)}
    if not _NAME.fullmatch(factor):
        _require_quoted(factor)
        home, expressions = next(iter(libraries.items()))
        return "", home, factor, list(expressions.values())
    for home, expressions in libraries.items():
        if factor in expressions:
            return factor, home, expressions[factor], [text for name, text in expressions.items() if name != factor]
    from difflib import get_close_matches

    known = {name.casefold(): name for expressions in libraries.values() for name in expressions}
    close = [known[match] for match in get_close_matches(factor.casefold(), known, n=3)]
    do = f"perhaps {' or '.join(close)}" if close else "see `afterclose factors list`"
    raise InputError(expected("a factor's name, or an expression with $fields", found=factor, where=", ".join(libraries), do=do))


def _require_quoted(expression: str) -> None:
    """The shell replaces $close by nothing unless it stands in single quotes: say so, instead of what is wrong with the rest."""
    if "$" not in expression:
        do = "put the expression in single quotes, so that the shell leaves $close alone"
        raise InputError(expected("at least one $field", found=repr(expression), where="the expression", do=do))


def _tree(node: "Node") -> Tree:
    from quant.factors.expression import children

    tree = Tree(_label(node), guide_style="dim")
    _grow(tree, children(node))
    return tree


def _grow(tree: Tree, nodes: "tuple[Node, ...]") -> None:
    from quant.factors.expression import children

    for node in nodes:
        _grow(tree.add(_label(node)), children(node))


def _label(node: "Node") -> str:
    from quant.factors.expression import CrossSection, Elementwise, Feature, Number, Rolling, Shift, text

    match node:
        case Feature() | Number():
            return f"[cyan]{escape(text(node))}[/]"
        case Elementwise(op=op):
            return f"[bold]{op}[/]"
        case Shift(by=by):
            return f"[bold]Ref[/] {abs(by)} {'session' if abs(by) == 1 else 'sessions'} {'earlier' if by > 0 else '[red]later[/]'}"
        case Rolling(op=op, window=window, level=level):
            named = f"[bold]{op}[/]" if level is None else f"[bold]{op}[/] {level:g}"
            return f"{named} over {window} sessions" + (f", reads {node.rows}" if node.rows != window else "")
        case CrossSection(op=op, group=group):
            return f"[bold]{op}[/] over the symbols of a session" + (f" with the same ${escape(group)}" if group else "")


def _told(label: str, value: str) -> None:
    out.print(f"[dim]{label:<8}[/]{escape(value)}", highlight=False, soft_wrap=True)


def _needs(node: "Node") -> str:
    from quant.factors.reach import reach

    found = reach(node)
    past = "its own session only" if not found.past else f"{found.past} earlier session{'s' if found.past > 1 else ''}"
    return past if not found.future else f"{past}, and {found.future} later: a label may, a feature may not"


def _cost(node: "Node", home: str, others: list[str], mode: Literal["qlib", "strict"]) -> str:
    """Instructions, and how many of them are there anyway where the rest of the library is computed."""
    from quant.factors.cost import cost
    from quant.factors.expression import parse
    from quant.factors.plan import Mode

    rest = [parse(text) for text in others]
    own, without, together = (cost(nodes, Mode(mode)) for nodes in ([node], rest, [*rest, node]))
    shared = max(own.dense - (together.dense - without.dense), 0)
    passes = f", {own.passes} {'pass' if own.passes == 1 else 'passes'} over the symbols of each session" if own.passes else ""
    counted = f"{own.dense} instruction{'s' if own.dense != 1 else ''} a row ({own.masked} where bars are missing){passes}"
    return f"{counted}; beside the others of {home}, {own.dense - shared} of its own, {shared} shared"


def _check_library(path: str) -> None:
    from adapters.factor_library import load_library
    from quant.factors.expression import features, groups, parse
    from quant.factors.library.frozen import LIBRARIES, frozen_library
    from quant.factors.reach import reach
    from quant.factors.scale import volume_matters

    try:
        expressions = frozen_library(path) if path in LIBRARIES else load_library(Path(path))
    except FactorError as error:
        _refused(error)
    nodes = {name: parse(text) for name, text in expressions.items()}
    past = max(reach(node).past for node in nodes.values())
    out.print(f"[bold green]accepted:[/] {escape(path)}: {_counted(len(expressions), 'factor')}", highlight=False, soft_wrap=True)
    _told("needs", f"up to {_counted(past, 'earlier session')}")
    _told_groups(frozenset[str]().union(*map(groups, nodes.values())))
    reading = [name for name, node in nodes.items() if "volume" in features(node)]
    with err.status(f"what {_counted(len(reading), 'factor')} make of the level of volume"):
        dependent = [name for name in reading if volume_matters(expressions[name])]
    if reading:
        _told_volume(f" in {', '.join(dependent)}" if dependent else None)


def _told_groups(columns: frozenset[str]) -> None:
    if columns:
        _told("groups", f"by {', '.join(f'${column}' for column in sorted(columns))}: with `compute --bars` only, not in the chain")


def _told_volume(where: str | None) -> None:
    _told("volume", "its level does not matter" if where is None else f"its level matters{where}: adjust it for splits")


def _check_expression(expression: str, name_of: str) -> None:
    """``name_of`` is what to print before the expression: its name, if it has one."""
    from quant.factors.expression import features, groups, parse, text
    from quant.factors.reach import refuse_lookahead
    from quant.factors.scale import refuse_scale, volume_matters

    name = expression if len(expression) <= 40 else f"{expression[:37]}..."
    try:
        node = parse(expression)
        refuse_lookahead(name, node)
        refuse_scale(name, expression)
    except FactorError as error:
        _refused(error, expression)
    out.print(f"[bold green]accepted:[/] {escape(name_of)}{escape(text(node))}", highlight=False, soft_wrap=True)
    _told("needs", _needs(node))
    _told("reads", ", ".join(f"${field}" for field in sorted(features(node))))
    _told_groups(groups(node))
    _told("prices", "their level does not matter")
    if "volume" in features(node):
        _told_volume("" if volume_matters(expression) else None)


def _refused(error: FactorError, expression: str | None = None) -> NoReturn:
    out.print(f"[bold red]refused:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    position = _position(error, expression) if expression else None
    if expression and position:
        first = max(position - out.width * 2 // 3, 0)  # a line that the terminal would wrap has its mark in the wrong place
        line = re.sub(r"\s", " ", expression)[first : first + out.width - 4]
        out.print(f"  {line}\n  {' ' * (position - 1 - first)}^", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(2)


def _position(error: FactorError, expression: str) -> int | None:
    if isinstance(error, LookaheadError):
        from quant.factors.reach import forward_position

        return forward_position(expression)
    return error.position


def _require_target(target: Path, source: Path | None) -> None:
    if target.suffix != ".parquet":
        raise InputError(expected("a file ending in .parquet", found=target.name, where="--out", do="rename it"))
    if target.is_dir() or not target.parent.is_dir():
        found = "a folder" if target.is_dir() else f"no folder {target.parent}"
        raise InputError(expected("a file in a folder that is there", found=found, where="--out", do="choose another, or make the folder"))
    if source is not None and source.resolve() in (target.resolve(), target.resolve().parent):
        found = f"{target} among the bars"
        raise InputError(expected("a file apart from the bars", found=found, where="--out", do="write somewhere else"))


def _panel(expressions: Mapping[str, str], source: Path | None, begin: date | None, end: date | None) -> "pl.DataFrame":
    """The bars up to the last day that is wanted. InputError if none is in the range."""
    import polars as pl

    from orchestration.factor_files import panel_from_file, panel_from_lake
    from orchestration.settings import data_root, load_settings
    from quant.factors.expression import groups, parse

    grouped = sorted({group for text in expressions.values() for group in groups(parse(text))})
    load_settings()
    panel = panel_from_lake(data_root(), grouped) if source is None else panel_from_file(source, grouped)
    there = f"{panel['session'].min()} to {panel['session'].max()}"
    panel = panel if end is None else panel.filter(pl.col("session") <= end)
    if not _wanted(panel, begin):
        found = f"bars from {there}"
        raise InputError(expected("bars in the range", found=found, where="--from and --to", do="choose days among them"))
    return panel


def _wanted(panel: "pl.DataFrame", begin: date | None) -> int:
    import polars as pl

    rows = panel if begin is None else panel.filter(pl.col("session") >= begin)
    return rows.height - rows["close"].null_count()


def _computed(
    expressions: Mapping[str, str],
    panel: "pl.DataFrame",
    begin: date | None,
    mode: Literal["qlib", "strict"],
    dtype: Literal["float32", "float64"],
) -> "Iterator[pl.DataFrame]":
    """The factors' rows, without those for sessions that a symbol missed. As in the chain, cross-sections are over those that traded."""
    import polars as pl

    from quant.factors.compile import evaluate
    from quant.factors.plan import Mode
    from quant.factors.traded import among_traded

    kind = pl.Float32 if dtype == "float32" else pl.Float64
    traded = "traded or not"  # no factor's name
    named = {name: among_traded(text) for name, text in expressions.items()}
    for batch in evaluate({**named, traded: "$close"}, panel, since=begin, mode=Mode(mode), dtype=kind):
        yield batch.filter(pl.col(traded).is_not_null()).drop(traded)
