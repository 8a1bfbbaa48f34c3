"""Publishes: checked, gathered into batches, stored, answered when they are as safe as asked."""

from weft.broker.publishing.payloads import Payloads
from weft.broker.publishing.publishing import Publishing
from weft.broker.publishing.requests import Requests
from weft.broker.publishing.rounds import Rounds

__all__ = ["Payloads", "Publishing", "Requests", "Rounds"]
