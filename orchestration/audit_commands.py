"""`afterclose audit`: whether the log is what was recorded, its anchors and its key, and the month for compliance. Trees of `explain`."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from orchestration.terminal import err, out, print_rows
from quant.audit.anchor import Anchor, Fault, Verification, anchor_fault, days, verify
from quant.audit.lineage import Link, Recomputed
from quant.errors import InputError, expected

if TYPE_CHECKING:
    from orchestration.workbench import Workbench

audit = typer.Typer(
    help="The hash-chained log of everything that led to an order: verify it, anchor it, report a month. More: docs/audit.md.",
    no_args_is_help=True,
)


@contextmanager
def _opened() -> "Iterator[Workbench]":
    """The data root; InputError for one without a ledger, which looking at it would make."""
    from orchestration.settings import data_root
    from orchestration.workbench import Workbench

    if not (file := data_root() / "ledger.sqlite").exists():
        raise InputError(expected("a ledger", found="no file", where=str(file), do="name another data root, or run `afterclose demo`"))
    with Workbench.opened() as bench:
        yield bench


@audit.command(name="verify")
def verify_log(
    anchor: Annotated[Path | None, typer.Option(metavar="FILE", help="Anchors kept elsewhere; default: those of the data root.")] = None,
    public_key: Annotated[str | None, typer.Option(metavar="HEX", help="Key that must have signed them; default: the data root's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Walk through the whole log and name the first entry that is not what was recorded, then hold bookings, orders, sessions,
    decisions, trading states and champions against it. Exit 1 if anything is wrong.
    """
    if anchor is not None and not anchor.is_file():
        raise InputError(expected("a file of anchors", found="none", where=str(anchor), do="name one: audit/anchors.jsonl or its copy"))
    with _opened() as bench:
        began = time.perf_counter()
        found, anchors = verification(bench, anchor, public_key)
        seconds = time.perf_counter() - began
    if as_json:
        told = {"sound": found.sound, "faults": [str(fault) for fault in found.faults], "entries": found.entries, "head": found.head}
        sys.stdout.write(json.dumps({**told, "anchors": found.anchors, "anchored": found.anchored}, indent=1) + "\n")
    else:
        for line in verification_lines(found, anchors, seconds):
            out.print(line, soft_wrap=True, highlight=False, markup=False)
    if not found.sound:
        err.print(f"[bold red]failed:[/] {escape(str(found.faults[0]))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)


def verification(bench: "Workbench", file: Path | None = None, public_key: str | None = None) -> tuple[Verification, Sequence[Anchor]]:
    """The log of a data root held against anchors: those of ``file`` or its own; and the anchors that were sound."""
    from dataclasses import replace

    from adapters.notary import read_anchors

    notary = bench.open_notary()
    key = public_key or (notary.public_key() if notary.has_key else None)
    sound, fault = anchor_fault(notary.anchors() if file is None else read_anchors(file), public_key=key, signed=notary.signed)
    ledger = bench.open_ledger()
    found = ledger.walk_audit(lambda entries: verify(entries, sound))
    # Tables are held against a log that is what was recorded; of another one nothing follows.
    unlike = () if fault or found.faults else tuple(Fault(reason=told) for told in ledger.unlike_the_log())
    return replace(found, faults=(*((fault,) if fault else ()), *found.faults, *unlike)), sound


def verification_lines(found: Verification, anchors: Sequence[Anchor], seconds: float) -> Iterator[str]:
    """What a person wants to read of a verification."""
    speed = f", {found.entries / seconds:,.0f} a second" if seconds > 0 and found.entries > 1000 else ""
    if found.sound:
        yield "ledger     bookings, orders, sessions, decisions, states and champions are those that the log tells of"
    yield f"entries    {found.entries:,}, each chained to the one before ({seconds:.2f} s{speed}); head {found.head}"
    if anchors:
        newest = anchors[-1]
        yield f"anchors    {found.anchors:,}, signed by {newest.public_key}"
        yield f"anchored   entries up to {found.anchored:,}, at {newest.written_at}; {found.entries - found.anchored:,} entries since"
        day = days(anchors)[-1]
        yield f"last root  {day.day}: {day.root}"
    else:
        yield "anchors    none: a tail that was cut off, or a log that was written again, would not be seen"


@audit.command(name="anchor")
def anchor_now() -> None:
    """Sign what was recorded since the last anchor; the daily run does so at its end."""
    from assets.audit import anchor_log

    with _opened() as bench:
        notary = bench.open_notary()
        made = anchor_log(bench.open_ledger(), notary, bench.chain.clock)
        copied = notary.copy()
    if made is None:
        out.print("Nothing was recorded since the last anchor.")
    else:
        out.print(f"anchor {made.number}: entries {made.first} to {made.last}, head {made.head}", soft_wrap=True, highlight=False)
    if copied:
        out.print(f"{copied} new in the copy", highlight=False)


@audit.command()
def key(pem: Annotated[bool, typer.Option("--pem", help="As PEM, for other tools.")] = False) -> None:
    """The public key that anchors are signed with: note it down elsewhere, and pass it to `verify --public-key`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    with _opened() as bench:
        public = bench.open_notary().public_key()
    as_pem = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    sys.stdout.write(as_pem.decode() if pem else f"{public}\n")


@audit.command(name="list")
def list_entries(
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="So many of the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document with whole payloads.")] = False,
) -> None:
    """The newest entries of the log."""
    with _opened() as bench:
        entries = bench.open_ledger().audit(kind)[-most:]
    if as_json:
        told = [{"sequence": n, "recorded_at": at.isoformat(), "kind": of, "payload": payload} for n, at, of, payload in entries]
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    rows = [[str(n), f"{at:%Y-%m-%d %H:%M:%S}", of, _short(payload)] for n, at, of, payload in entries]
    print_rows(rows, ["entry", "recorded (UTC)", "kind", "of"])


@audit.command()
def report(
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="Month of the sessions, and of what was recorded.")],
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """A month for compliance: sessions, orders, denials, fills, halts, overrides, releases, promotions, revisions, anchors. Exit 1 if the
    log is not what was recorded.
    """
    from adapters.report.publisher import ReportFolder
    from quant.reports.audit import audit_report, month_entries

    try:
        first = date.fromisoformat(f"{month}-01")
    except ValueError:
        raise InputError(expected("a month as YYYY-MM", found=repr(month), where="--month", do="write it like 2013-02")) from None
    last = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    with _opened() as bench:
        chain = bench.chain
        found, anchors = verification(bench)
        read = {"first": first, "last": last, "where": {"book": chain.paper_book}}
        made = audit_report(
            bench.open_ledger().walk_audit(lambda entries: month_entries(entries, month)),
            month=month,
            book=chain.paper_book,
            profile=chain.profile,
            source=bench.source_name,
            calendar=chain.calendar.sessions(max(first, chain.paper_book_start), min(last, bench.last_session())),
            orders=bench.lake.read("orders", **read),
            fills=bench.lake.read("fills", **read),
            nav=bench.lake.read("daily_nav", **read),
            verification=found,
            anchors=anchors,
        )
        page = Path(ReportFolder(bench.root / "reports").publish_audit(made))
    states = ", ".join(f"{n} {state}" for state, n in sorted(made.sessions["state"].value_counts().iter_rows())) or "none"
    out.print(f"sessions   {states}", highlight=False)
    out.print(f"orders     {made.orders.height}, {made.denials.height} of them denied; {made.fills.height} fills", highlight=False)
    out.print(f"acts       {made.acts.height} entries that are no session's routine", highlight=False)
    out.print(f"report     {page}", soft_wrap=True, highlight=False)
    if open_it:
        typer.launch(page.as_uri())
    if faults := [*map(str, found.faults), *(f"{name} is not in the log" for name in made.unlogged[:1])]:
        err.print(f"[bold red]failed:[/] {escape(faults[0])}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)


def _short(payload: Mapping[str, object]) -> str:
    """Names and small numbers of a payload, without its rows."""
    plain = {name: value for name, value in payload.items() if isinstance(value, (str, int, float)) and len(str(value)) <= 40}
    return ", ".join(f"{name} {value}" for name, value in plain.items())[:100]


def lineage_tree(link: Link, rows: int) -> Tree:
    """A link and what it came from; of its rows the ``rows`` newest."""
    tree = Tree(_titled(link))
    _grow(tree, link, rows)
    return tree


def _grow(tree: Tree, link: Link, rows: int) -> None:
    for row in list(link.rows)[len(link.rows) - min(rows, len(link.rows)) :]:
        tree.add(escape(_facts(row)))
    if len(link.rows) > rows:
        tree.add(f"[dim]and {len(link.rows) - rows} before; --rows {len(link.rows)} shows all[/]")
    if link.values:
        named = list(link.values.items())
        shown = ", ".join(f"{name} {_text(value)}" for name, value in named[:rows])
        rest = len(named) - rows
        tree.add(escape(shown) + (f"[dim]{' ' if shown else ''}and {rest} more; --rows {len(named)} shows all[/]" if rest > 0 else ""))
    for origin in link.origins:
        _grow(tree.add(_titled(origin)), origin, rows)


def _titled(link: Link) -> str:
    facts = escape(_facts(link.facts))
    return f"[bold]{escape(link.what)}[/]" + (f"  {facts}" if facts else "")


def _facts(facts: Mapping[str, object]) -> str:
    named = {name if "." in name else name.replace("_", " "): value for name, value in facts.items() if value is not None}
    return ", ".join(f"{name} {_text(value)}" for name, value in named.items())


def _text(value: object) -> str:
    match value:
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S} UTC"
        case bool() | None:
            return {True: "yes", False: "no", None: "null"}[value]
        case int():
            return f"{value}"
        case float():
            return f"{value:.10g}"
        case str() if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return value[:16]  # a digest: --json has all of it
        case Decimal():
            return format(value.normalize() + 0, "f")  # without the zeros of its scale, and never 1E+3
        case _:
            return str(value)


def recomputed_lines(again: Sequence[Recomputed]) -> Iterator[str]:
    """A line for everything that was computed again."""
    width = max((len(item.what) for item in again), default=0)
    for item in again:
        if item.met:
            yield f"equal      {item.what:<{width}}  {item.again}"
        elif item.why:
            yield f"not again  {item.what:<{width}}  {item.why}"
        else:
            yield f"different  {item.what:<{width}}  recorded {item.recorded}, now {item.again}"
