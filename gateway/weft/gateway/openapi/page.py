"""The page that shows /openapi.json and lets a person try each call. It loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files


def _asset(name: str) -> str:
    return files("weft.gateway.openapi").joinpath("assets", name).read_text("utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_STYLE = _asset("page.css")
_SCRIPT = _asset("page.js")

HTML: bytes = (
    _asset("page.html").replace("/*STYLE*/", _STYLE).replace("/*SCRIPT*/", _SCRIPT).encode()
)

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        (
            "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'; "
            f"style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}"
        ).encode(),
    ),
)
