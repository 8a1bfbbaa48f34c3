"""Webhooks in the form of Standard Webhooks (standardwebhooks.com): how they are signed, where they may go, who sends them.

What is told, and where it is kept until it arrived, is left to whoever has something to tell: a `Queue`.
"""

from weft.webhooks.sender import Delivery, Queue, Refused, Rings, Sender, SenderSettings, Told
from weft.webhooks.signing import WrongSecret, headers, new_secret, parse_secret, sign
from weft.webhooks.targets import AddressRefused, NameUnknown, TargetRefused, Targets

__all__ = [
    "AddressRefused",
    "Delivery",
    "NameUnknown",
    "Queue",
    "Refused",
    "Rings",
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
