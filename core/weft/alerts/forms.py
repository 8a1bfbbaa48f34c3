"""How an alert looks to its receiver. Each form is a function of an alert and whether it fires, and gives JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from weft.alerts.board import Alert

Form = Callable[[Alert, bool], dict[str, Any]]

_RED, _YELLOW, _GREEN = 0xC4314B, 0xE8A317, 0x2E8B57
_SHOWN = 12  # labels
# Within what Discord takes: 256, 4,096, 256 and 1,024 characters, and 6,000 altogether
# (https://docs.discord.com/developers/resources/message, embed limits).
_TITLE, _TEXT, _FIELD_NAME, _FIELD = 256, 2_048, 64, 200
_SLACK_TEXT = 3_000


def _colour(alert: Alert, *, fires: bool) -> int:
    if not fires:
        return _GREEN
    return _RED if alert.labels.get("severity") == "page" else _YELLOW


def _title(alert: Alert, *, fires: bool) -> str:
    return f"{'FIRING' if fires else 'RESOLVED'}: {alert.name}"


def _about(alert: Alert) -> str:
    said = alert.annotations.get("summary", ""), alert.annotations.get("description", "")
    return "\n".join(filter(None, said))


def _labels(alert: Alert) -> dict[str, str]:
    shown = {name: value for name, value in alert.labels.items() if name != "alertname" and value}
    return dict(list(shown.items())[:_SHOWN])


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _when(alert: Alert, *, fires: bool) -> datetime:
    return alert.starts if fires else alert.ends


def discord(alert: Alert, fires: bool) -> dict[str, Any]:  # noqa: FBT001 a Form
    """What a Discord webhook takes ("Execute Webhook"). Nobody is pinged, whatever a label says."""
    embed: dict[str, Any] = {
        "title": _cut(_title(alert, fires=fires), _TITLE),
        "color": _colour(alert, fires=fires),
        "timestamp": _when(alert, fires=fires).isoformat(),
        "fields": [
            {"name": _cut(name, _FIELD_NAME), "value": _cut(value, _FIELD), "inline": True}
            for name, value in _labels(alert).items()
        ],
    }
    text = _about(alert)
    if runbook := alert.annotations.get("runbook_url"):
        text = f"{text}\nRunbook: {runbook}".strip()
    if text:
        embed["description"] = _cut(text, _TEXT)
    if alert.url.startswith(("http://", "https://")):
        embed["url"] = alert.url
    return {"username": "Weft", "allowed_mentions": {"parse": []}, "embeds": [embed]}


def slack(alert: Alert, fires: bool) -> dict[str, Any]:  # noqa: FBT001 a Form
    """What a Slack "incoming webhook" takes. Nobody is pinged, whatever a label says."""
    title = _escaped(_title(alert, fires=fires))
    about = _escaped(_cut(_about(alert), _SLACK_TEXT))
    attachment: dict[str, Any] = {
        "color": f"#{_colour(alert, fires=fires):06x}",
        "title": title,
        "fallback": title,
        "text": about,
        "ts": int(_when(alert, fires=fires).timestamp()),
        "fields": [
            {"title": _escaped(name), "value": _escaped(value), "short": True}
            for name, value in _labels(alert).items()
        ],
    }
    if alert.url.startswith(("http://", "https://")):
        attachment["title_link"] = alert.url
    if runbook := alert.annotations.get("runbook_url"):
        attachment["footer"] = _escaped(f"Runbook: {runbook}")
    return {"text": title, "attachments": [attachment]}


def _escaped(text: str) -> str:
    # Slack's three characters of control: a label shall neither link nor call for anybody.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(alert: Alert, fires: bool) -> dict[str, Any]:  # noqa: FBT001 a Form
    """The alert itself; signed as Standard Webhooks say, where there is a secret."""
    return {
        "type": "alert.firing" if fires else "alert.resolved",
        "timestamp": _when(alert, fires=fires).isoformat(),
        "data": {
            "name": alert.name,
            "labels": dict(alert.labels),
            "annotations": dict(alert.annotations),
            "starts_at": alert.starts.isoformat(),
            "ends_at": None if fires else alert.ends.isoformat(),
            "url": alert.url,
        },
    }


FORMS: Mapping[str, Form] = {"discord": discord, "slack": slack, "json": plain}
