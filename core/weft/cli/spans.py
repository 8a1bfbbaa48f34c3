"""Times as people type them: "90s", "10m", "2h", "3d", "250ms", or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "": 1.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


class Span(click.ParamType[timedelta]):
    """A length of time; a number without unit is seconds."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Reads it."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(str(value).strip())
        if found is None:
            self.fail(
                f"{value!r} is no length of time such as 250ms, 30s, 10m, 2h or 3d", param, ctx
            )
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


class Moment(click.ParamType[datetime]):
    """A moment: a length of time ago, or a date in ISO 8601, of this machine's zone where it names none."""

    name = "moment"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Reads it."""
        if isinstance(value, datetime):
            return value
        if _SPAN.fullmatch(str(value).strip()):
            return datetime.now(UTC) - Span().convert(value, param, ctx)
        try:
            return datetime.fromisoformat(str(value)).astimezone(UTC)
        except ValueError:
            self.fail(
                f"{value!r} is neither 10m (ago) nor a date such as 2030-01-31T12:00", param, ctx
            )


SPAN, MOMENT = Span(), Moment()
