"""Reading prose: its sentences and the words that carry their meaning."""

from weft.agents.support.prose.sentences import bare, joined, marks, sentences
from weft.agents.support.prose.terms import content, stem, terms, words

__all__ = ["bare", "content", "joined", "marks", "sentences", "stem", "terms", "words"]
