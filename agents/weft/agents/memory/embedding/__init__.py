"""Embeddings: texts as vectors that are near each other where texts mean the same.

The port is `Embedder`. Behind it are a small model on the CPU (`local.LocalEmbedder`, with the extra `memory` and
weights that are on this machine) and embedding services (`http.OpenAIEmbedder`, `http.OllamaEmbedder`).
"""

from weft.agents.memory.embedding.port import (
    Embedder,
    EmbedderUnavailable,
    Vector,
    Vectors,
    WrongVectors,
    checked,
)

__all__ = ["Embedder", "EmbedderUnavailable", "Vector", "Vectors", "WrongVectors", "checked"]
