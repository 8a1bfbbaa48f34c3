"""What of it is worth its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from weft.agents.context.model import Piece

_BYTES_A_TOKEN = 4
_PROVENANCE = 12  # tokens of a number, a name and a source


def estimated(text: str) -> int:
    """About as many tokens as a text has: one for each four bytes of UTF-8, rounded up."""
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def fitted(
    pieces: Iterable[Piece], budget: int, count: Callable[[str], int]
) -> tuple[Sequence[Piece], int, int]:
    """The pieces that fit into a budget of tokens, best first; their tokens; how many were left out.

    The best piece of each provider comes before the second one of any: what is known is told from many sides first.
    """
    ordered = sorted(pieces, key=lambda piece: -piece.score)
    firsts: dict[str, Piece] = {}
    for piece in ordered:
        firsts.setdefault(piece.provider, piece)
    leading = list(firsts.values())
    others = [piece for piece in ordered if firsts[piece.provider] is not piece]
    taken: list[Piece] = []
    spent = 0
    for piece in [*leading, *others]:
        cost = count(piece.fact.text) + _PROVENANCE
        if spent + cost <= budget:
            taken.append(piece)
            spent += cost
    taken.sort(key=lambda piece: -piece.score)
    return taken, spent, len(ordered) - len(taken)
