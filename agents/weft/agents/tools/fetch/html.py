"""What a reader sees of a page: its title, its text, its headings, lists and links, as Markdown would have them.

Pages come from strangers: what is read is read once from the beginning to the end, so that no page takes time out of
proportion to its size, which cannot be said of every version of the standard library's parser.
"""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin, urlsplit

# What is in them is no text of the page.
# fmt: off
_UNSEEN = frozenset({
    "script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "audio", "video",
    "noembed", "noframes", "select", "textarea", "title",
})
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "nav", "ol", "option", "p",
    "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul", "h1", "h2", "h3", "h4", "h5", "h6",
    "head", "html",
})
# fmt: on
_CELLS = frozenset({"td", "th"})
_CLOSED = {name: re.compile(rf"</{name}\b", re.IGNORECASE) for name in _UNSEEN}
_MARK = re.compile(r"<(?=[A-Za-z/!?])")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,40})")
_STOP = re.compile(r"[>\"']")
_HREF = re.compile(r"\shref\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\r\f\v\N{NO-BREAK SPACE}]+")
_ANY_SPACE = re.compile(r"\s+")
_AROUND = re.compile(r" *\n *")
_EMPTY = re.compile(r"\n{3,}")
_EMPTY_LINK = re.compile(r"\[\s*\]\([^)\s]*\)")
_LONGEST_TAG = 4_000  # characters that a link is looked for in
_LONGEST_LINK = 500
_MOST_MARKS = (
    100_000  # tags and comments that are read: a second's work; what comes behind them is left out
)


def text_of(page: str, url: str = "") -> tuple[str, str]:
    """Title and text of a page.

    Args:
        page: HTML.
        url: where it is; links are told whole then.
    """
    reading = _Reading(page, url)
    reading.read()
    text = _AROUND.sub("\n", _SPACES.sub(" ", "".join(reading.pieces)))
    text = _EMPTY.sub("\n\n", _EMPTY_LINK.sub("", text)).strip()
    return _ANY_SPACE.sub(" ", _unescaped(reading.title)).strip()[:300], text


class _Reading:
    def __init__(self, page: str, url: str) -> None:
        self._page = page
        self._url = url
        self._at = 0
        self._pre = 0
        self._link = ""
        self._unclosed: set[str] = set()
        self.pieces: list[str] = []
        self.title = ""

    def read(self) -> None:
        page = self._page
        for _ in range(_MOST_MARKS):
            found = _MARK.search(page, self._at)
            if found is None:
                self._text(page[self._at :])
                return
            begin = found.start()
            self._text(page[self._at : begin])
            tag = _TAG.match(page, begin)
            if tag is not None:
                self._tag(begin, tag)
            elif page.startswith("<!--", begin):
                self._go_behind("-->", begin + 4)
            else:
                self._go_behind(">", begin + 2)

    def _go_behind(self, end: str, begin: int) -> None:
        found = self._page.find(end, begin)
        self._at = found + len(end) if found >= 0 else len(self._page)

    def _text(self, text: str) -> None:
        if text:
            plain = _unescaped(text)
            self.pieces.append(plain if self._pre else _ANY_SPACE.sub(" ", plain))

    def _tag(self, begin: int, tag: re.Match[str]) -> None:
        name, closing = tag[2].lower(), bool(tag[1])
        end = self._end_of_tag(tag.end())
        self._at = end + 1
        if closing:
            self._closed(name)
        elif name in _UNSEEN:
            self._pass_over(name, end + 1)
        else:
            self._opened(name, self._page[begin : min(end, begin + _LONGEST_TAG)])

    def _end_of_tag(self, at: int) -> int:
        """Where a tag ends; values in quotes may hold what ends others."""
        page = self._page
        while (found := _STOP.search(page, at)) is not None:
            quote = found[0]
            if quote == ">":
                return found.start()
            at = found.end()
            if quote in self._unclosed or not page[max(0, at - 20) : at - 1].rstrip().endswith("="):
                continue
            closed = page.find(quote, at)
            if closed < 0:
                self._unclosed.add(quote)
            else:
                at = closed + 1
        return len(page)

    def _pass_over(self, name: str, at: int) -> None:
        closed = _CLOSED[name].search(self._page, at)
        end = closed.start() if closed is not None else len(self._page)
        if name == "title" and not self.title:
            self.title = self._page[at : min(end, at + 1_000)]
        self._at = end

    def _opened(self, name: str, tag: str) -> None:
        if name in _BLOCKS:
            self._break(name)
        if name in _CELLS:
            self.pieces.append(" | ")
        elif name == "pre":
            self._pre += 1
        elif name == "li":
            self.pieces.append("- ")
        elif name == "a" and not self._link and (link := self._target(tag)):
            self._link = link
            self.pieces.append("[")
        elif len(name) == 2 and name[0] == "h" and name[1].isdigit():  # noqa: PLR2004 h1 to h6
            self.pieces.append("#" * int(name[1]) + " ")

    def _closed(self, name: str) -> None:
        if name in _BLOCKS:
            self._break(name)
        if name == "pre":
            self._pre = max(0, self._pre - 1)
        elif name == "a" and self._link:
            self.pieces.append(f"]({self._link})")
            self._link = ""

    def _break(self, name: str) -> None:
        self.pieces.append("\n" if name in {"br", "li", "tr", "dt", "dd", "option"} else "\n\n")

    def _target(self, tag: str) -> str:
        found = _HREF.search(tag)
        if found is None:
            return ""
        given = _unescaped(found[1] or found[2] or found[3] or "").strip()
        try:
            link = urljoin(self._url, given)
            scheme = urlsplit(link).scheme
        except ValueError:
            return ""
        odd = any(each in link for each in " \n\r\t()[]<>")
        usable = scheme in {"http", "https"} and len(link) <= _LONGEST_LINK and not odd
        return link if usable else ""


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a character's number of thousands of digits
        return text
