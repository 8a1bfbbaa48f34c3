"""What makes vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from weft import rpc

Vector: TypeAlias = npt.NDArray[np.float32]
Vectors: TypeAlias = npt.NDArray[np.float32]
"""One row for each text."""

MOST_DIMENSIONS = 4_000
"""What pgvector can index as halfvec (pgvector 0.8, README, "Half-precision indexing")."""


class EmbedderUnavailable(rpc.Unavailable):
    """Texts cannot be embedded now; try again."""

    reason = "EMBEDDER_UNAVAILABLE"


class WrongVectors(rpc.FailedPrecondition):
    """The model gave other vectors than it was set up for."""

    reason = "WRONG_VECTORS"


class Embedder(Protocol):
    """A model that embeds texts."""

    @property
    def name(self) -> str:
        """What made a vector. Vectors of one name are comparable, those of two are not. 1 to 200 characters."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in a vector, 1 to 4,000."""
        ...

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """A vector of length 1 for each text.

        Args:
            texts: what to embed.
            question: whether they are what somebody looks for; else what is to be found.

        Raises:
            EmbedderUnavailable: not now.
            WrongVectors: the model is not what it was said to be.
        """
        ...


def checked(rows: object, *, texts: int, dimensions: int) -> Vectors:
    """Vectors that a model gave, each of length 1.

    Raises:
        WrongVectors: there are too few, or they have other dimensions, or none has a direction.
    """
    try:
        vectors = np.asarray(rows, dtype=np.float32).reshape(texts, -1)
    except (TypeError, ValueError):
        raise WrongVectors(f"{texts} vectors were expected, and something else came.") from None
    if vectors.shape[1] != dimensions and texts:
        raise WrongVectors(
            f"The vectors have {vectors.shape[1]} dimensions, and {dimensions} were expected."
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        raise WrongVectors("A vector has no direction.")
    return np.asarray(vectors / lengths, dtype=np.float32)
