"""Cuts documents into chunks: at headings, then at ends of sentences, with exact places in the original."""

from weft.agents.memory.chunking.chunker import Chunk, Chunking, chunks
from weft.agents.memory.chunking.sections import Form, Section, sections
from weft.agents.memory.chunking.sentences import Span, sentences

__all__ = ["Chunk", "Chunking", "Form", "Section", "Span", "chunks", "sections", "sentences"]
