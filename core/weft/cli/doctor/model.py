"""What a finding is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was looked at.

    Attributes:
        check: what, such as "redis persistence".
        state: "ok"; "warn": it works, and will not always; "fail": something does not work.
        what: what was found.
        why: why it matters; empty where all is well.
        do: what to do; empty where all is well.
    """

    check: str
    state: State
    what: str
    why: str = ""
    do: str = ""


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check=check, state="ok", what=what)


def warn(check: str, what: str, why: str, do: str) -> Finding:
    """It works, and will not always."""
    return Finding(check=check, state="warn", what=what, why=why, do=do)


def fail(check: str, what: str, why: str, do: str) -> Finding:
    """Something does not work."""
    return Finding(check=check, state="fail", what=what, why=why, do=do)
