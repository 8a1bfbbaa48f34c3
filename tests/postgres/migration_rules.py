"""What a migration may not do, because the version before runs on the schema while the new one rolls out.

Expand (add what the new code needs), migrate (fill it), contract (drop what no version uses any more), each in a release of
its own. A migration that contracts says so, and why it may: `-- contract: no version since 0.3 reads it`.
"""

from __future__ import annotations

import re

_CONTRACT = re.compile(r"^-- contract: \S+( \S+)+", re.MULTILINE)
# Comments, literals, and bodies of functions: what is in them is not done by the migration.
_OPAQUE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_THINGS = r"(?:MATERIALIZED VIEW|TABLE|VIEW|SCHEMA|TYPE|DOMAIN|FUNCTION|PROCEDURE|TRIGGER|INDEX|SEQUENCE|EXTENSION)"
_DROP = re.compile(rf"^DROP ({_THINGS})(?: CONCURRENTLY)?(?: IF EXISTS)? ([\w.\"]+)", re.IGNORECASE)
_ALTER_TABLE = re.compile(
    r"^ALTER TABLE(?: IF EXISTS)?(?: ONLY)? [\w.\"]+ (.*)", re.IGNORECASE | re.DOTALL
)
_FORBIDDEN = (
    (
        re.compile(r"^DROP (?!(?:DEFAULT|NOT NULL)\b)", re.IGNORECASE),
        "drops what the version before uses",
    ),
    (re.compile(r"^RENAME\b", re.IGNORECASE), "renames what the version before uses"),
    (re.compile(r"^SET SCHEMA\b", re.IGNORECASE), "moves what the version before uses"),
    (
        re.compile(r"^ALTER (?:COLUMN )?\S+ SET NOT NULL", re.IGNORECASE),
        "refuses rows that the version before writes",
    ),
    (
        re.compile(r"^ALTER (?:COLUMN )?\S+ DROP (?:DEFAULT|EXPRESSION|IDENTITY)", re.IGNORECASE),
        "refuses rows that the version before writes",
    ),
    (
        re.compile(r"^ALTER (?:COLUMN )?\S+ (?:SET DATA )?TYPE\b", re.IGNORECASE),
        "changes a type under the version before, and rewrites the table meanwhile",
    ),
    (
        re.compile(
            r"^ADD (?:CONSTRAINT \S+ )?(?:CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)\b(?!.*NOT VALID)",
            re.IGNORECASE | re.DOTALL,
        ),
        "refuses rows that the version before writes",
    ),
)
_ADDED = re.compile(
    r"^ADD (?:COLUMN )?(?!CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)", re.IGNORECASE
)


def faults(sql: str) -> list[str]:
    """What is wrong with a migration; nothing where it says that it contracts."""
    if _CONTRACT.search(sql):
        return []
    bare = _OPAQUE.sub(lambda found: "''" if found[0][0] in "'$" else " ", sql)
    statements = [" ".join(each.split()) for each in bare.split(";")]
    made = " ; ".join(each for each in statements if each.upper().startswith("CREATE"))
    return [fault for each in statements if each for fault in _of_statement(each, made)]


def _of_statement(statement: str, made: str) -> list[str]:
    if dropped := _DROP.match(statement):
        again = re.search(
            rf"{dropped[1]} (?:IF NOT EXISTS )?{re.escape(dropped[2])}\b", made, re.IGNORECASE
        )
        return [] if again else [f"{statement}: drops what the version before uses"]
    if re.match(r"TRUNCATE\b", statement, re.IGNORECASE):
        return [f"{statement}: empties what the version before uses"]
    if re.match(rf"ALTER (?!TABLE){_THINGS} .* (?:RENAME|SET SCHEMA)\b", statement, re.IGNORECASE):
        return [f"{statement}: renames what the version before uses"]
    altered = _ALTER_TABLE.match(statement)
    return (
        []
        if altered is None
        else [
            f"ALTER TABLE ... {action}: {why}"
            for action in _actions(altered[1])
            for why in _of_action(action)
        ]
    )


def _of_action(action: str) -> list[str]:
    found = [why for form, why in _FORBIDDEN if form.match(action)]
    if _ADDED.match(action):
        upper = action.upper()
        filled = "DEFAULT" in upper or "GENERATED" in upper or "SERIAL" in upper
        if ("NOT NULL" in upper or "PRIMARY KEY" in upper) and not filled:
            found.append("refuses rows that the version before writes: it needs a DEFAULT")
    return found


def _actions(text: str) -> list[str]:
    """The actions of an ALTER TABLE: parted by commas that are in no brackets."""
    depth, found = 0, [""]
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found]
