"""Which alerts fire. Prometheus tells of each again and again: only what begins and what ends is news."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from weft import rpc

MOST = 10_000  # alerts that fire at the same time; of further ones nobody is told
_MOST_LABELS, _MOST_TEXT = 64, 4_096
# An alert that its sender no longer tells of, and whose end it did not name (the Alertmanager's resolve_timeout).
_FORGOTTEN = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert that begins or has ended.

    Attributes:
        labels: that tell it from others.
        annotations: what it says.
        starts: when it began to fire.
        ends: when it is over; of one that fires: when it is if nobody tells of it any more.
        url: where its rule is shown; empty: nowhere.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts: datetime
    ends: datetime
    url: str = ""

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """By which it is known again."""
        return tuple(sorted(self.labels.items()))

    @property
    def name(self) -> str:
        """Of its rule."""
        return self.labels.get("alertname", "alert")

    def fires(self, now: datetime) -> bool:
        """Whether it goes on."""
        return self.ends > now


def read(given: Any, now: datetime) -> list[Alert]:
    """Alerts as Prometheus posts them (Alertmanager API v2), or an Alertmanager (webhook, version 4).

    Raises:
        InvalidArgument: they are neither.
    """
    alerts = given.get("alerts") if isinstance(given, dict) else given
    if not isinstance(alerts, list):
        raise rpc.InvalidArgument(
            "must be a list of alerts, or an object that has one", field="alerts"
        )
    return [_read(each, f"alerts[{number}]", now) for number, each in enumerate(alerts)]


def _read(given: Any, field: str, now: datetime) -> Alert:
    if not isinstance(given, dict):
        raise rpc.InvalidArgument("must be an object", field=field)
    labels = _texts(given.get("labels"), f"{field}.labels")
    if not labels:
        raise rpc.InvalidArgument("must not be empty", field=f"{field}.labels")
    starts = _moment(given.get("startsAt"), f"{field}.startsAt") or now
    ends = _moment(given.get("endsAt"), f"{field}.endsAt")
    if given.get("status") == "resolved":
        ends = min(ends or now, now)
    url = given.get("generatorURL")
    return Alert(
        labels=labels,
        annotations=_texts(given.get("annotations") or {}, f"{field}.annotations"),
        starts=starts,
        ends=ends or now + _FORGOTTEN,
        url=url[:_MOST_TEXT] if isinstance(url, str) else "",
    )


def _texts(given: Any, field: str) -> dict[str, str]:
    if not isinstance(given, dict) or len(given) > _MOST_LABELS:
        raise rpc.InvalidArgument(f"must be an object of at most {_MOST_LABELS} texts", field=field)
    for name, value in given.items():
        if not isinstance(value, str) or len(value) + len(name) > _MOST_TEXT:
            raise rpc.InvalidArgument(
                f"must be a text of at most {_MOST_TEXT} characters", field=field
            )
    return given


def _moment(given: Any, field: str) -> datetime | None:
    """A time; None: none is named (Go's zero time, year 1)."""
    if given in (None, ""):
        return None
    try:
        found = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise rpc.InvalidArgument("must be a time as of RFC 3339", field=field) from None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return None if found.year == 1 else found


class Board:
    """The alerts that fire."""

    def __init__(self) -> None:
        self._firing: dict[tuple[tuple[str, str], ...], Alert] = {}

    def firing(self) -> list[Alert]:
        """All of them, the first one first."""
        return sorted(self._firing.values(), key=lambda alert: alert.starts)

    def take(self, alerts: Iterable[Alert], now: datetime) -> list[Alert]:
        """Takes in what is told; what of it is news: alerts that begin, and such that have ended."""
        news = []
        for alert in alerts:
            known = alert.key in self._firing
            if alert.fires(now):
                if not known and len(self._firing) >= MOST:
                    continue
                self._firing[alert.key] = alert
                if not known:
                    news.append(alert)
            elif known:
                del self._firing[alert.key]
                news.append(alert)
        return news

    def lapse(self, now: datetime) -> list[Alert]:
        """Ends what nobody tells of any more, and returns it."""
        over = [alert for alert in self._firing.values() if not alert.fires(now)]
        for alert in over:
            del self._firing[alert.key]
        return over
