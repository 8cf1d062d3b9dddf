"""What ``semcache stats`` says of money: sources, unpriced models, estimates, budgets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from semcache import Budget
from semcache.cli import main
from semcache.money.budgets import Budgets
from semcache.money.ledger import Ledger
from semcache.stores.sqlite import SqliteStore
from semcache.types import Outcome, Usage

OPUS = "claude-opus-5-5"


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """One call or more of every kind that has a line."""
    path = tmp_path / "s.db"
    store = SqliteStore(path, budget_s=5)
    ledger = Ledger(store)
    wrote, read = Usage(5000, 100, 0, 4000), Usage(5000, 100, 4000)
    for outcome in [
        Outcome("miss", model=OPUS, usage=wrote),  # 4,000 + 20,000 + 2,000, and a premium of 4,000 in that
        Outcome("miss", model=OPUS, usage=read),  # 4,000 + 800 + 2,000; list price 22,000
        Outcome("miss", model=OPUS, usage=read, collapsed=True),  # 6,800
        Outcome("hit", "exact", model=OPUS, usage=read),  # 6,800
        Outcome("hit", "semantic", model=OPUS, usage=Usage(1000, 50, estimated=True)),  # 5,000
        Outcome("stale", "exact", model=OPUS, usage=Usage(1000, 50)),  # 5,000
        Outcome("miss", model="house\x1b[1m", usage=Usage(1000, 100)),
        Outcome("hit", "exact", model="house\x1b[1m", usage=Usage(1000, 100)),
        Outcome("miss", model=OPUS, reason="upstream raised APIError"),
        Outcome("miss", model=OPUS, refused=True, reason="over budget"),
    ]:
        ledger.record(outcome)
    ledger.record_overhead("embedding", "default", "text-embedding-3-small", Usage(50_000))  # 1,000
    ledger.record_audit("default", OPUS, Usage(1000, 50))  # 5,000
    ledger.close()
    budgets = Budgets([Budget(2), Budget(1, namespace="small")], store, lambda event: None)
    budgets.paid("small", 250_000)
    budgets.paid("default", 1_250_000)
    budgets.close()
    store.close()
    return f"sqlite://{path}"


def run(*args: str) -> str:
    result = CliRunner().invoke(main, ["stats", *args])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_source_has_its_line(store_url: str) -> None:
    shown = run("--store", store_url)
    for line in [
        r"exact hits +2 +6,200 +\$0\.0068",
        r"semantic hits +1 +1,050 +\$0\.0050",
        r"stale answers +1 +1,050 +\$0\.0050",
        r"collapsed calls +1 +5,100 +\$0\.0068",
        r"provider's cache, reads +1 +4,000 +\$0\.0152",
        r"provider's cache, writes +1 +4,000 +-\$0\.0040",
        r"embedding +1 +50,000 +-\$0\.0010",
        r"audits +1 +1,050 +-\$0\.0050",
    ]:
        assert re.search(line, shown), line
    assert "verifier" not in shown
    # 44,000 of list price and 23,600 of spared calls; 32,800 and 6,000 paid.
    assert "Without any cache: $0.0676. Paid: $0.0388. Saved: $0.0288 (42.6%)." in shown
    assert "Refused by a budget: 1 calls." in shown
    assert "The tokens of 1 calls are estimates" in shown
    assert "Not in the money: 1 calls whose tokens nobody counted" in shown
    assert "calls of house [1m (2)." in shown
    assert "Budget of all namespaces today (UTC): $1.50 of $2.00, 75%." in shown
    assert "Budget of small today (UTC): $0.2500 of $1.00, 25%." in shown


def test_as_json(store_url: str) -> None:
    found: dict[str, Any] = json.loads(run("--store", store_url, "--json"))
    totals = found["totals"]
    saved = [totals[f"usd_{name}"] for name in ("exact", "semantic", "stale", "collapsed", "reads", "writes")]
    assert saved == [0.0068, 0.005, 0.005, 0.0068, 0.0152, -0.004]
    assert sum(saved) - totals["usd_embedding"] - totals["usd_audit"] == pytest.approx(totals["usd_net_saved"])
    assert totals["usd_paid"] + totals["usd_net_saved"] == pytest.approx(totals["usd_without_cache"]) == 0.0676
    assert found["unpriced_models"] == [{"model": "house\x1b[1m", "calls": 2, "tokens": 2200}]
    assert [(one["namespace"], one["usd_per_day"], one["usd_spent"]) for one in found["budgets"]] == [
        (None, 2.0, 1.5),
        ("small", 1.0, 0.25),
    ]
    only_small = json.loads(run("--store", store_url, "--namespace", "small", "--json"))
    assert [one["namespace"] for one in only_small["budgets"]] == ["small"]


def test_a_price_file_prices_what_had_no_price(store_url: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        '[models."house\\u001b[1m"]\ninput = 1\noutput = 2\n[models.claude-opus-5-5]\ninput = 99\noutput = 99\n'
    )
    found = json.loads(run("--store", store_url, "--prices", str(path), "--json"))
    assert found["unpriced_models"] == []
    assert found["totals"]["usd_exact"] == 0.0068 + 0.0012
    assert found["totals"]["usd_without_cache"] == pytest.approx(0.0676 + 2 * 0.0012)
    assert found["totals"]["priced_by"]["prices.toml:house\x1b[1m"] == 2
    assert "no price is known" not in run("--store", store_url, "--prices", str(path))


def test_a_bad_price_file_is_named(store_url: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("[models.m]\ninput = 1")
    result = CliRunner().invoke(main, ["stats", "--store", store_url, "--prices", str(path)])
    assert result.exit_code == 2
    assert "output must be a number" in result.stderr


def test_what_caches_without_a_budget_paid_is_told_beside_it(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path / 's.db'}"
    for budgets, usage in (([Budget(1)], Usage(1000, 0)), ([], Usage(50_000, 0))):
        store = SqliteStore(tmp_path / "s.db", budget_s=5)
        ledger, counted = Ledger(store), Budgets(budgets, store, lambda event: None)
        ledger.on_paid.append(counted.paid)
        ledger.record(Outcome("miss", model=OPUS, usage=usage))
        ledger.close()
        counted.close()
        store.close()
    assert "today (UTC): $0.0040 of $1.00, 0%. Caches without a budget paid $0.2000 more." in run("--store", url)
    (told,) = json.loads(run("--store", url, "--json"))["budgets"]
    assert (told["usd_spent"], told["usd_outside"]) == (0.004, 0.2)
