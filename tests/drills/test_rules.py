"""The alert rules that ship: they are sound, tested, explained and drilled."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import yaml
from tests.drills.drills import DRILLS
from tests.drills.prometheus import SHIPPED, program, rules, shortened
from tests.faults.processes import ROOT

from weft.cli import main

_RUNBOOKS = ROOT / "docs" / "runbooks"
_ALERTS = ROOT / "docs" / "alerts.md"
_PARTS = ("## First look", "```sh", "## Mend", "## Drill")


def _promtool(*arguments: str) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=SHIPPED, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration_and_the_rules():
    assert "SUCCESS" in _promtool("check", "config", "prometheus.yml")


@pytest.mark.timeout(180)
def test_each_rule_is_silent_fires_and_clears():
    _promtool("test", "rules", "weft.test.yml")


def test_no_rule_is_without_a_test():
    tests = yaml.safe_load((SHIPPED / "weft.test.yml").read_text())["tests"]
    assert {test["name"] for test in tests} == set(rules())
    for test in tests:
        assert [bool(check["exp_samples"]) for check in test["promql_expr_test"]] == [0, 1, 0]


@pytest.mark.timeout(180)
def test_a_rule_that_is_changed_fails_its_test(tmp_path):
    """The tests can fail: a limit that nothing reaches is noticed."""
    text = (SHIPPED / "weft.rules.yml").read_text()
    changed = text.replace("> 0.05", "> 1.5")
    assert changed != text
    (tmp_path / "weft.rules.yml").write_text(changed)
    (tmp_path / "weft.test.yml").write_text((SHIPPED / "weft.test.yml").read_text())
    done = subprocess.run(
        [program("promtool"), "test", "rules", "weft.test.yml"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0


@pytest.mark.parametrize("alert", sorted(rules()))
def test_each_alert_has_a_page_and_a_drill(alert):
    rule = rules()[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    page = (_RUNBOOKS / f"{alert}.md").read_text()
    assert page.startswith(f"# {alert}\n")
    assert all(part in page for part in _PARTS)
    for linked in re.findall(r"\]\((\w+)\.md\)", page):
        assert linked in rules()
    assert alert in DRILLS


def test_no_drill_and_no_page_is_left_over():
    assert DRILLS.keys() == set(rules())
    assert {page.stem for page in _RUNBOOKS.glob("*.md")} == set(rules())


def test_drills_change_nothing_but_spans_of_time():
    text = (SHIPPED / "weft.rules.yml").read_text()
    short = yaml.safe_load(shortened(text))
    kept = yaml.safe_load(text)
    for ours, theirs in zip(short["groups"], kept["groups"], strict=True):
        for one, other in zip(ours["rules"], theirs["rules"], strict=True):
            assert one["alert"] == other["alert"]
            assert re.sub(r"\d+[smhd]|> \d+", "", one["expr"]) == re.sub(
                r"\d+[smhd]|> \d+", "", other["expr"]
            )


@pytest.mark.parametrize("page", sorted(_RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_commands_of_runbooks_exist(page, capsys):
    """Each command of a page is one that the command line takes, options and all."""
    text = page.read_text()
    commands = re.findall(r"^(weft .+)$", text, re.MULTILINE) + re.findall(r"`(weft [^`]+)`", text)
    for command in commands:
        words = shlex.split(command.replace("...", "").split(";")[0])[1:]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0, f"{command}: {capsys.readouterr().err}"


def test_alerts_are_listed_as_they_are():
    listed = dict(
        re.findall(
            r"^\| \[(\w+)\]\(runbooks/\w+\.md\) \| (\w+) ", _ALERTS.read_text(), re.MULTILINE
        )
    )
    assert listed == {name: rule["labels"]["severity"] for name, rule in rules().items()}
