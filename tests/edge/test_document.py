"""docs/edge.md has every reason for which a test of the gateway is not one of the edge, and no reason is left over."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.entries import Why

ROOT = Path(__file__).parents[2]


def test_each_reason_is_told_and_used():
    told = (ROOT / "docs/edge.md").read_text().lower()
    tests = "".join(each.read_text() for each in (ROOT / "tests/gateway").rglob("test_*.py"))
    for why in Why:
        assert f"| {why.lower()} |" in told
        assert f"Why.{why.name}" in tests
