from __future__ import annotations

from pathlib import Path

import pytest
from tests.postgres.migration_rules import faults

from weft.cli.schemas import SCHEMAS

ROOT = Path(__file__).parents[2]
ALL = sorted(path for path in ROOT.glob("*/weft/**/sql/*.sql") if path.name[:4].isdecimal())
# Agents have these in a schema of their own.
OF_AUTHORS = {"weft.agents.messaging.sql"}


def package(path: Path) -> str:
    return ".".join(path.parent.relative_to(ROOT).parts[1:])


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{package(path)}/{path.name}")
def test_no_migration_breaks_the_version_before(path: Path):
    assert faults(path.read_text()) == []


def test_the_command_knows_every_migration():
    known = {each for schema in SCHEMAS for each in schema.packages}
    assert known | OF_AUTHORS == {package(path) for path in ALL}


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE runs",
        "drop index if exists runs_ended",
        "ALTER TABLE runs DROP COLUMN budget",
        "ALTER TABLE runs ADD COLUMN a int,\n  DROP budget",
        "ALTER TABLE runs RENAME TO jobs",
        "ALTER TABLE runs RENAME COLUMN a TO b",
        "ALTER TYPE state RENAME VALUE 'a' TO 'b'",
        "ALTER TABLE runs SET SCHEMA other",
        "ALTER TABLE runs ADD COLUMN a int NOT NULL",
        "ALTER TABLE runs ADD COLUMN a int NOT NULL, ADD COLUMN b int DEFAULT 1",
        "ALTER TABLE ONLY runs ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE runs ALTER a TYPE bigint",
        "ALTER TABLE runs ALTER a DROP DEFAULT",
        "ALTER TABLE runs ADD CONSTRAINT few CHECK (a < 3)",
        "ALTER TABLE runs ADD UNIQUE (a)",
        "TRUNCATE runs",
        "CREATE TABLE runs_2 (); DROP TABLE runs",
    ],
)
def test_what_breaks_the_version_before_is_found(sql: str):
    assert faults(f"{sql};")
    assert faults(f"-- contract: no version since 0.3 uses it\n{sql};") == []
    assert faults(f"-- contract:\n{sql};"), "it does not say why"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (b int NOT NULL, PRIMARY KEY (b))",
        "DROP TRIGGER told ON runs; CREATE TRIGGER told AFTER INSERT ON runs EXECUTE FUNCTION f()",
        "ALTER TABLE runs ADD COLUMN a int, ADD COLUMN b text NOT NULL DEFAULT ', DROP' CHECK (b <> '')",
        "ALTER TABLE runs ALTER COLUMN a DROP NOT NULL",
        "ALTER TABLE runs ADD CONSTRAINT few CHECK (a < 3) NOT VALID",
        "-- DROP TABLE runs\nSELECT 'DROP TABLE runs'",
        "CREATE FUNCTION f() RETURNS void AS $$ DROP TABLE x; $$ LANGUAGE sql",
    ],
)
def test_what_the_version_before_can_live_with_passes(sql: str):
    assert faults(f"{sql};") == []
