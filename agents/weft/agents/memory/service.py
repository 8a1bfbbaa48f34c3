"""The agent `knowledge`: long-term memory of the caller's tenant, for any agent and any door."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from weft import rpc
from weft.agents.memory.chunking import Form
from weft.agents.memory.knowledge import Document, Hit, Knowledge, Library, StoredDocument, Way
from weft.rpc import paging
from weft.v1 import knowledge_pb2 as pb
from weft.v1 import knowledge_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_HITS = 5
_MOST_ID = 200
_FORMS = MappingProxyType(
    {
        pb.DOCUMENT_FORM_UNSPECIFIED: Form.MARKDOWN,
        pb.DOCUMENT_FORM_MARKDOWN: Form.MARKDOWN,
        pb.DOCUMENT_FORM_PLAIN: Form.PLAIN,
    }
)
_SHOWN_FORMS = MappingProxyType(
    {Form.MARKDOWN: pb.DOCUMENT_FORM_MARKDOWN, Form.PLAIN: pb.DOCUMENT_FORM_PLAIN}
)
_WAYS = MappingProxyType(
    {
        pb.SEARCH_WAY_UNSPECIFIED: Way.HYBRID,
        pb.SEARCH_WAY_HYBRID: Way.HYBRID,
        pb.SEARCH_WAY_LEXICAL: Way.LEXICAL,
        pb.SEARCH_WAY_VECTOR: Way.VECTOR,
    }
)
_SHOWN_WAYS = MappingProxyType(
    {
        Way.HYBRID: pb.SEARCH_WAY_HYBRID,
        Way.LEXICAL: pb.SEARCH_WAY_LEXICAL,
        Way.VECTOR: pb.SEARCH_WAY_VECTOR,
    }
)


class KnowledgeAgent(knowledge_pb2_grpc.KnowledgeServiceServicer):
    """Serves documents.

    Args:
        knowledge: where they are.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    async def AddDocument(
        self, request: pb.AddDocumentRequest, context: Context
    ) -> pb.AddDocumentResponse:
        """Adds or replaces a document."""
        del context
        given = request.document
        added = await self._library().add(
            Document(
                id=given.id,
                text=given.text,
                title=given.title,
                form=_known(_FORMS, given.form, "document.form"),
                language=given.language or "english",
                source=given.source,
                metadata=_mapping(given.metadata),
            )
        )
        return pb.AddDocumentResponse(
            changed=added.changed, chunks=added.chunks, embedded=added.embedded
        )

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Context
    ) -> pb.GetDocumentResponse:
        """Returns a document."""
        del context
        return pb.GetDocumentResponse(document=_shown(await self._library().get(_id(request.id))))

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        """Lists documents."""
        del context
        size = paging.page_size(request.page_size, default=100, most=500)
        begin = paging.page_begin(request.page_token, made_for="documents", like=("",))
        behind = str(begin[0]) if begin else ""
        found = await self._library().list(behind=behind, most=size + 1)
        response = pb.ListDocumentsResponse(documents=map(_shown, found[:size]))
        if len(found) > size:
            last = found[size - 1].id
            response.next_page_token = paging.page_token((last,), made_for="documents")
        return response

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        """Deletes a document."""
        del context
        await self._library().delete(_id(request.id))
        return pb.DeleteDocumentResponse()

    async def SearchDocuments(
        self, request: pb.SearchDocumentsRequest, context: Context
    ) -> pb.SearchDocumentsResponse:
        """Finds pieces of documents."""
        del context
        found = await self._library().search(
            request.question,
            limit=request.limit or _DEFAULT_HITS,
            where=_mapping(request.where),
            way=_known(_WAYS, request.way, "way"),
            diversity=request.diversity,
            language=request.language or "english",
        )
        return pb.SearchDocumentsResponse(
            hits=map(_hit, found.hits),
            way=_SHOWN_WAYS[found.way],
            embedding=found.embedding,
            because=found.because,
        )

    def _library(self) -> Library:
        """The documents of the caller's tenant."""
        call = rpc.current_call()
        identity = call.identity if call is not None else None
        return self._knowledge.of(identity.tenant if identity is not None else "")


def _id(text: str) -> str:
    if not 1 <= len(text) <= _MOST_ID or "\0" in text:
        raise rpc.InvalidArgument(f"must have 1 to {_MOST_ID} characters, and no NUL", field="id")
    return text


def _known(table: Mapping[Any, Any], value: int, field: str) -> Any:
    if value not in table:
        raise rpc.InvalidArgument("is not known", field=field)
    return table[value]


def _mapping(struct: Struct) -> Mapping[str, Any]:
    read: dict[str, Any] = json_format.MessageToDict(struct)
    return read


def _struct(values: Mapping[str, Any]) -> Struct:
    made = Struct()
    made.update(dict(values))
    return made


def _shown(stored: StoredDocument) -> pb.KnowledgeDocument:
    document = pb.KnowledgeDocument(
        id=stored.id,
        title=stored.title,
        text=stored.text,
        form=_SHOWN_FORMS[stored.form],
        language=stored.language,
        source=stored.source,
        metadata=_struct(stored.metadata),
        chunks=stored.chunks,
    )
    document.create_time.FromDatetime(stored.create_time)
    document.update_time.FromDatetime(stored.update_time)
    return document


def _hit(hit: Hit) -> pb.SearchHit:
    place = hit.citation
    return pb.SearchHit(
        citation=pb.Citation(
            document_id=place.document,
            title=place.title,
            headings=place.headings,
            begin=place.begin,
            end=place.end,
            quote=place.quote,
            source=place.source,
        ),
        score=hit.score,
        similarity=hit.similarity,
        metadata=_struct(hit.metadata),
    )
