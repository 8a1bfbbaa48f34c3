"""Tells callers by webhook that their jobs ended."""

from weft.gateway.jobs.webhooks.sender import Form, Sender
from weft.webhooks import (
    Refused,
    SenderSettings,
    TargetRefused,
    Targets,
    Told,
    WrongSecret,
    headers,
    new_secret,
    parse_secret,
    sign,
)

__all__ = [
    "Form",
    "Refused",
    "Sender",
    "SenderSettings",
    "TargetRefused",
    "Targets",
    "Told",
    "WrongSecret",
    "headers",
    "new_secret",
    "parse_secret",
    "sign",
]
