"""Credentials, which settings name and never hold: in a variable of the environment or in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit


def read_credential(variable: str, file: str, environ: Mapping[str, str]) -> str:
    """What a variable or a file holds; empty where neither is named.

    Raises:
        ValueError: it holds no credential. The message says which, and nothing of what it holds.
    """
    if variable:
        found, where = environ.get(variable, "").strip(), f"the variable {variable}"
    elif file:
        where = file
        try:
            found = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ValueError(f"{file} cannot be read") from None
    else:
        return ""
    if not found:
        raise ValueError(f"{where} holds no credential")
    if not (found.isprintable() and found.isascii()):
        raise ValueError(f"{where} holds what no header can")
    return found


def check_url(given: str) -> SplitResult:
    """A URL for HTTP that holds no credential.

    Raises:
        ValueError: it is none. Nothing of what it holds beyond its scheme is told.
    """
    url = urlsplit(given)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(f"url must begin with https:// or http://, not {url.scheme[:40]!r}")
    if url.username is not None or url.password is not None:
        raise ValueError("url must hold no password: name a file or a variable that does")
    return url
