"""`afterclose audit` and `afterclose explain` on a small data root: what they print, and what they say when somebody was at the files."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from adapters.lake import open_lake
from tests.chain.command_line import PROFILE, afterclose
from tests.conftest import REPOSITORY

AUDIT = """
[audit]
anchors = "elsewhere"
[risk]
max_name_ratio = 0.6
max_order_notional_usd = {most}
"""


@dataclass(frozen=True)
class Made:
    root: Path
    profile: Path
    copy: Path

    def run(self, *words: str) -> Any:
        return afterclose(self.root, *words, profile=self.profile)

    def orders(self, book: str) -> pl.DataFrame:
        return open_lake(self.root).read("orders", where={"book": book})

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.root / "ledger.sqlite", isolation_level=None)) as database:
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")
            database.execute(statement)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two years of history and three sessions, of which the last denies what it opens with more than 1,000 USD."""
    folder = tmp_path_factory.mktemp("audited")
    profile = folder / "mine.toml"
    made = Made(root=folder / "root", profile=profile, copy=folder / "elsewhere" / "test.jsonl")
    for most, words in ((1_000_000, ("history",)), (1_000_000, ("backfill", "--to", "2013-02-27")), (1_000, ("paper-run",))):
        profile.write_text(PROFILE + AUDIT.format(most=most))
        ran = made.run(*words)
        assert ran.returncode == 0, ran.stderr
    return made


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """The same root, to be spoilt."""
    shutil.copytree(made.root, tmp_path / "root")
    return Made(root=tmp_path / "root", profile=made.profile, copy=made.copy)


pytestmark = pytest.mark.slow


def test_the_log_verifies_against_its_own_anchors_and_against_the_copy(made: Made) -> None:
    own = json.loads(made.run("audit", "verify", "--json").stdout)
    assert (own["sound"], own["faults"], own["anchors"]) == (True, [], 4)  # history, two sessions, one
    assert own["entries"] == own["anchored"] > 30
    assert made.copy.read_bytes() == (made.root / "audit" / "anchors.jsonl").read_bytes()
    said = made.run("audit", "verify", "--anchor", str(made.copy))
    assert said.returncode == 0
    assert re.search(rf"^entries +{own['entries']}, each chained .* head {own['head']}$", said.stdout, re.MULTILINE)
    public = made.run("audit", "key").stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", public)
    assert f"signed by {public}" in said.stdout
    stranger = made.run("audit", "verify", "--public-key", "00" * 32)
    assert (stranger.returncode, f"anchor 1: signed by key {public}, not by {'00' * 32}" in stranger.stderr) == (1, True)


def test_a_cut_tail_is_found_with_the_anchor_and_a_later_anchor_is_refused(copied: Made) -> None:
    copied.sql("DELETE FROM audit WHERE sequence > 20")
    for words in ((), ("--anchor", str(copied.copy))):
        said = copied.run("audit", "verify", *words)
        assert (said.returncode, "failed: entry 21: cut off: anchor" in said.stderr) == (1, True)
    shutil.rmtree(copied.root / "audit")
    said = copied.run("audit", "verify")  # no anchor here tells; the bookings do that the log no longer has
    assert (
        said.returncode,
        re.search(r"failed: the ledger: \d+ ledger entries from number 1 on, \d+ in the log", said.stderr) is None,
    ) == (1, False)
    again = copied.run("audit", "anchor")
    assert (again.returncode, "found others" in again.stderr) == (1, True)


def test_an_edit_is_named_in_the_report_of_its_month_too(copied: Made) -> None:
    with closing(sqlite3.connect(copied.root / "ledger.sqlite")) as database:
        (sequence,) = database.execute("SELECT max(sequence) FROM audit WHERE kind = 'risk'").fetchone()
    copied.sql(f"UPDATE audit SET payload = replace(payload, '1000', '9000') WHERE sequence = {sequence}")
    said = copied.run("audit", "report", "--month", "2013-02")
    assert (said.returncode, f"failed: entry {sequence}: its content is not what was hashed" in said.stderr) == (1, True)
    page = (copied.root / "reports" / "audit-report" / "paper-2013-02.html").read_text()
    assert f"entry {sequence}: its content is not what was hashed" in page
    assert "NOT as recorded" in page


def test_the_month_lists_sessions_orders_denials_fills_and_anchors(made: Made) -> None:
    said = made.run("audit", "report", "--month", "2013-02")
    assert said.returncode == 0, said.stderr
    folder = made.root / "reports" / "audit-report"
    document = json.loads((folder / "paper-2013-02.json").read_text())
    assert [(row["session"], row["state"]) for row in document["sessions"]] == [(f"2013-02-{day}", "decided") for day in (26, 27, 28)]
    assert (document["verification"]["sound"], document["unlogged"]) == (True, [])
    orders = made.orders("paper")
    denied = orders.filter(pl.col("state") == "denied")
    assert denied.height > 0
    assert (len(document["orders"]), len(document["denials"])) == (orders.height, denied.height)
    assert {(row["session"], row["limit"], row["allowed"]) for row in document["denials"]} == {("2013-02-28", "order_notional", 1000)}
    with (folder / "paper-2013-02" / "denials.csv").open() as file:
        assert [row["client_order_id"] for row in csv.DictReader(file)] == denied["client_order_id"].to_list()
    assert len(document["versions"]) == 3  # settings changed once, the code did not
    page = (folder / "paper-2013-02.html").read_text()
    assert all(text in page for text in ("order_notional", "as recorded", *denied["client_order_id"]))
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)  # self-contained


@pytest.mark.parametrize("month", ["2013", "2013-13", "yesterday"])
def test_a_month_that_is_none_is_refused(made: Made, month: str) -> None:
    said = made.run("audit", "report", "--month", month)
    assert (said.returncode, "expected a month as YYYY-MM in --month" in said.stderr) == (2, True)


LINKS = ("fill", "life of the order", "risk review", "decision at", "target weight", "score", "model", "feature row", "adjusted bars")


def test_an_order_is_explained_down_to_its_raw_rows_and_every_bit_comes_out_again(made: Made) -> None:
    order = made.orders("paper").filter(pl.col("session").dt.day() == 26, pl.col("symbol") == "AAPL").row(0, named=True)
    said = made.run("explain", order["client_order_id"][:20], "--replay")
    assert said.returncode == 0, said.stderr
    places = [said.stdout.index(f"── {link}") for link in (*LINKS, "raw rows", "corporate actions that entered", "gate")]
    assert places == sorted(places)
    again = [line.split("  ")[0] for line in said.stdout.splitlines() if re.match(r"equal|different|not again", line)]
    assert (len(again), set(again)) == (17, {"equal"})
    told = json.loads(made.run("explain", order["client_order_id"], "--replay", "--json").stdout)
    review = next(link for link in walk(told["lineage"]) if link["what"] == "risk review")
    saw = {row["limit"]: row["saw"] for row in review["rows"]}
    assert 0 < saw["gross_exposure"] <= 1.1, "what the limits saw of an order that they let pass"
    links = {link["what"].split()[0]: link for link in walk(told["lineage"])}
    assert len(links["feature"]["values"]) == 158
    assert links["feature"]["digest"] in {item["again"] for item in told["replay"]}
    assert links["raw"]["rows"][-1]["session"] == "2013-02-26"
    assert re.fullmatch("[0-9a-f]{64}", links["raw"]["rows"][-1]["origin_digest"])
    assert links["fill"]["session"] == "2013-02-27"


def walk(link: dict[str, Any]) -> list[dict[str, Any]]:
    return [link, *(inner for origin in link.get("from", []) for inner in walk(origin))]


def test_a_denied_order_says_what_the_limit_saw_under_the_settings_of_its_day(made: Made) -> None:
    denied = made.orders("paper").filter(pl.col("state") == "denied").row(0, named=True)
    told = json.loads(made.run("explain", denied["client_order_id"], "--json").stdout)
    review = next(link for link in walk(told["lineage"]) if link["what"] == "risk review")
    assert (review["verdict"], review["denied_by"], review["allowed"]) == ("denied", "order_notional", 1000)
    first = made.orders("paper").row(0, named=True)["client_order_id"]
    earlier = json.loads(made.run("explain", first, "--json").stdout)
    review = next(link for link in walk(earlier["lineage"]) if link["what"] == "risk review")
    assert (review["verdict"], review["max_order_notional_usd"]) == ("allowed", 1_000_000)


def test_an_order_of_the_backtest_is_explained_and_its_model_trained_again_if_it_is_not_stored(made: Made) -> None:
    last = made.orders("backtest").row(-1, named=True)["client_order_id"]
    said = made.run("explain", last, "--replay")
    assert (said.returncode, said.stdout.count("\nequal ")) == (0, 5), said.stderr
    shutil.move(made.root / "mlflow.db", made.root / "hidden.db")
    try:
        said = made.run("explain", last, "--replay")
    finally:
        (made.root / "hidden.db").replace(made.root / "mlflow.db")
    assert "--replay trains it again" in " ".join(said.stdout.split())
    assert (said.returncode, said.stdout.count("\nequal ")) == (0, 5), said.stderr


def test_a_number_that_was_changed_in_the_lake_is_told_by_name(copied: Made) -> None:
    lake = open_lake(copied.root)
    order = copied.orders("paper").filter(pl.col("session").dt.day() == 27).row(0, named=True)
    scores = lake.read("scores", first=order["session"], last=order["session"])
    changed = scores.with_columns(pl.when(pl.col("symbol") == order["symbol"]).then(pl.col("score") * (1 + 2**-52)).otherwise("score"))
    pinned = lake.version("scores")
    lake.replace("scores", changed.rename({"score": "score"}), first=order["session"], last=order["session"])
    assert copied.run("explain", order["client_order_id"], "--replay").returncode == 0  # it reads the version that was decided on
    for file in (copied.root / "lake" / "scores" / "_delta_log").glob("*.json"):
        if int(file.stem) == lake.version("scores"):
            newest = file.read_text()
    # Somebody who rewrites the past of the lake itself: the version that was decided on is no longer what it was.
    versions = sorted((copied.root / "lake" / "scores" / "_delta_log").glob("*.json"))
    assert pinned is not None
    with closing(sqlite3.connect(copied.root / "ledger.sqlite")) as database:
        (held,) = database.execute(
            "SELECT json_extract(table_versions, '$.scores') FROM decisions WHERE session = ?", (str(order["session"]),)
        ).fetchone()
    (copied.root / "lake" / "scores" / "_delta_log" / f"{held:020}.json").write_text(newest)
    for later in versions:
        if int(later.stem) > held:
            later.unlink()
    said = copied.run("explain", order["client_order_id"], "--replay")
    assert said.returncode == 1
    lost = {line.split("  ")[1].strip() for line in said.stdout.splitlines() if line.startswith("different")}
    assert {"rows of scores", "score", "score in the audit log"} <= lost


def test_a_data_root_without_a_ledger_is_told_and_none_is_made(made: Made, tmp_path: Path) -> None:
    for words in (("audit", "verify", "--anchor", str(made.copy)), ("audit", "report", "--month", "2013-02"), ("audit", "list")):
        said = afterclose(tmp_path / "none", *words, profile=made.profile)
        assert (said.returncode, "expected a ledger in" in said.stderr) == (2, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("order", ["nobody", "paper-"])
def test_an_id_that_is_not_that_of_one_order_is_refused(made: Made, order: str) -> None:
    said = made.run("explain", order)
    assert (said.returncode, "expected the id of one order, or its beginning" in said.stderr) == (2, True)


def test_the_commands_of_the_audit_page_run_as_they_stand_there(made: Made) -> None:
    page = (REPOSITORY / "docs" / "audit.md").read_text()
    order = made.orders("paper").row(0, named=True)["client_order_id"]
    commands = re.findall(r"^afterclose (.*?)(?: +#.*)?$", page, flags=re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        words = command.replace("ORDER_ID", order).replace("/mnt/vault/sample.jsonl", str(made.copy)).split()
        said = made.run(*words)
        assert said.returncode == 0, (command, said.stderr)
