"""Tells callers by webhook that their jobs ended, in the form of Standard Webhooks (standardwebhooks.com)."""

from weft.gateway.jobs.webhooks.sender import Form, Refused, Sender, SenderSettings, Told
from weft.gateway.jobs.webhooks.signing import WrongSecret, headers, new_secret, parse_secret, sign
from weft.gateway.jobs.webhooks.targets import TargetRefused, Targets

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
