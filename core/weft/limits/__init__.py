"""Limits of rates: buckets by the generic cell rate algorithm, in this process and, for all processes, in Redis."""

from weft.limits.buckets import Buckets
from weft.limits.shared import SharedLimits, Step

__all__ = ["Buckets", "SharedLimits", "Step"]
