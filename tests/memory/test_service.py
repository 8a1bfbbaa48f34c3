"""Long-term memory on the mesh: with scopes, for the caller's tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from tests.memory.embedding_server import DIMENSIONS, embedding_server

from weft import rpc
from weft.agents.memory.fleet import EmbeddingSettings, embedder, knowledge_agent
from weft.rpc.signing import Signer, Verifier
from weft.v1 import knowledge_pb2 as pb
from weft.v1 import knowledge_pb2_grpc
from weft.v1.identity_pb2 import Identity

SIGNER = Signer(Ed25519PrivateKey.generate())
READ, WRITE = "knowledge.read", "knowledge.write"
TEXT = "# Opening hours\n\nWe open at nine.\n\n## Holidays\n\nOn holidays the doors stay closed."
Stub = Any
As = Callable[..., Awaitable[Stub]]


@pytest_asyncio.fixture
async def caller(database_url: str, redis_url: str) -> AsyncIterator[As]:
    """Stubs for callers of some tenant with some scopes, of an agent that believes signed identities only."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedding_server())
        settings = EmbeddingSettings(by="ollama", url=server.url, model="m", dimensions=DIMENSIONS)
        made = await stack.enter_async_context(embedder(settings))
        agent = await stack.enter_async_context(
            knowledge_agent(database_url=database_url, redis_url=redis_url, embedder=made)
        )
        host = rpc.Server(verifier=Verifier(SIGNER.public))
        host.add(knowledge_pb2_grpc.add_KnowledgeServiceServicer_to_server, agent)
        await stack.enter_async_context(host)

        async def make(tenant: str, *scopes: str) -> Stub:
            identity = SIGNER.sign(Identity(subject="user:ann", tenant=tenant, scopes=scopes))
            channel = rpc.Channel(host.address, identity=identity)
            await stack.enter_async_context(channel)
            return knowledge_pb2_grpc.KnowledgeServiceStub(channel)

        yield make


def adding(id_: str, text: str = TEXT, **metadata: object) -> pb.AddDocumentRequest:
    document = pb.KnowledgeDocument(id=id_, text=text, source="https://shop.example")
    document.metadata.update(metadata)
    return pb.AddDocumentRequest(document=document)


async def test_a_document_is_added_found_shown_listed_and_deleted(caller: As):
    stub = await caller("acme", READ, WRITE)
    added = await stub.AddDocument(adding("hours", kind="help", year=2026))
    assert (added.changed, added.chunks, added.embedded) == (True, 2, True)
    assert not (await stub.AddDocument(adding("hours", kind="help", year=2026))).changed
    request = pb.SearchDocumentsRequest(question="closed on holidays", limit=1)
    request.where.update({"kind": "help", "year": 2026})
    found = await stub.SearchDocuments(request)
    assert (found.way, found.embedding, found.because) == (
        pb.SEARCH_WAY_HYBRID,
        f"m/{DIMENSIONS}",
        "",
    )
    hit = found.hits[0]
    place = hit.citation
    assert TEXT[place.begin : place.end] == place.quote == "On holidays the doors stay closed."
    assert list(place.headings) == ["Opening hours", "Holidays"]
    assert (place.document_id, place.title, place.source) == (
        "hours",
        "Opening hours",
        "https://shop.example",
    )
    assert hit.HasField("similarity")
    assert json_format.MessageToDict(hit.metadata) == {"kind": "help", "year": 2026}
    document = (await stub.GetDocument(pb.GetDocumentRequest(id="hours"))).document
    assert (document.text, document.language, document.chunks) == (TEXT, "english", 2)
    assert document.form == pb.DOCUMENT_FORM_MARKDOWN
    await stub.DeleteDocument(pb.DeleteDocumentRequest(id="hours"))
    assert not (await stub.SearchDocuments(request)).hits
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.GetDocument(pb.GetDocumentRequest(id="hours"))
    assert rpc.error_from_call(failed.value).reason == "DOCUMENT_NOT_FOUND"


async def test_lists_have_pages(caller: As):
    stub = await caller("acme", READ, WRITE)
    for number in range(5):
        await stub.AddDocument(adding(f"d{number}"))
    ids, token = [], ""
    while True:
        page = await stub.ListDocuments(pb.ListDocumentsRequest(page_size=2, page_token=token))
        assert not any(document.text for document in page.documents)
        ids.append([document.id for document in page.documents])
        if not (token := page.next_page_token):
            break
    assert ids == [["d0", "d1"], ["d2", "d3"], ["d4"]]


async def test_tenants_do_not_see_each_other(caller: As):
    ours, theirs = await caller("ours", READ, WRITE), await caller("theirs", READ, WRITE)
    await ours.AddDocument(adding("hours"))
    assert not (await theirs.SearchDocuments(pb.SearchDocumentsRequest(question="holidays"))).hits
    assert not (await theirs.ListDocuments(pb.ListDocumentsRequest())).documents
    for call in (
        theirs.GetDocument(pb.GetDocumentRequest(id="hours")),
        theirs.DeleteDocument(pb.DeleteDocumentRequest(id="hours")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert failed.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reading_and_writing_need_their_scopes(caller: As):
    reader, writer, nobody = await caller("t", READ), await caller("t", WRITE), await caller("t")
    calls = {
        WRITE: [
            lambda stub: stub.AddDocument(adding("hours")),
            lambda stub: stub.DeleteDocument(pb.DeleteDocumentRequest(id="hours")),
        ],
        READ: [
            lambda stub: stub.GetDocument(pb.GetDocumentRequest(id="hours")),
            lambda stub: stub.ListDocuments(pb.ListDocumentsRequest()),
            lambda stub: stub.SearchDocuments(pb.SearchDocumentsRequest(question="x")),
        ],
    }
    for scope, others in ((WRITE, (reader, nobody)), (READ, (writer, nobody))):
        for call in calls[scope]:
            for stub in others:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await call(stub)
                assert failed.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_what_is_wrong_is_named(caller: As):
    stub = await caller("t", READ, WRITE)
    wrong = [
        stub.AddDocument(pb.AddDocumentRequest()),
        stub.AddDocument(
            pb.AddDocumentRequest(document=pb.KnowledgeDocument(id="a", text="b", form=9))
        ),
        stub.GetDocument(pb.GetDocumentRequest()),
        stub.SearchDocuments(pb.SearchDocumentsRequest()),
        stub.SearchDocuments(pb.SearchDocumentsRequest(question="a", limit=-1)),
        stub.SearchDocuments(pb.SearchDocumentsRequest(question="a", diversity=float("nan"))),
        stub.SearchDocuments(pb.SearchDocumentsRequest(question="a", way=7)),
        stub.ListDocuments(pb.ListDocumentsRequest(page_size=-1)),
        stub.ListDocuments(pb.ListDocumentsRequest(page_token="x")),
    ]
    for call in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "settings",
    [
        EmbeddingSettings(by="local"),
        EmbeddingSettings(by="ollama", model="m", dimensions=3),
        EmbeddingSettings(by="openai", url="http://x", dimensions=3),
        EmbeddingSettings(by="openai", url="http://x", model="m"),
    ],
)
async def test_settings_that_cannot_be_used_are_refused(settings: EmbeddingSettings):
    with pytest.raises(ValueError, match=r"embedding|dimensions"):
        async with embedder(settings):
            pass
