"""Maximal marginal relevance (Carbonell and Goldstein 1998): what is relevant and says something that was not said yet."""

from __future__ import annotations

import numpy as np

from weft.agents.memory.embedding.port import Vector, Vectors


def chosen(relevance: Vector, vectors: Vectors, *, diversity: float, most: int) -> list[int]:
    """Rows in the order they are chosen.

    Args:
        relevance: of each row, 0 to 1.
        vectors: one row each, of length 1.
        diversity: how much being unlike what was chosen counts against being relevant, 0 to 1.
        most: how many are chosen.
    """
    left = np.ones(len(vectors), dtype=bool)
    nearest = np.zeros(len(vectors), dtype=np.float32)  # to what was chosen
    order: list[int] = []
    while left.any() and len(order) < most:
        worth = (1 - diversity) * relevance - diversity * nearest
        worth[~left] = -np.inf
        best = int(np.argmax(worth))
        order.append(best)
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return order
