"""Deliveries: who gets which message, for how long, and what becomes of it."""

from weft.broker.delivery.delivery import Delivery

__all__ = ["Delivery"]
