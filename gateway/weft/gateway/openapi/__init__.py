"""OpenAPI 3.1 of everything the gateway serves, and a page to read and try it."""

from weft.gateway.openapi import page
from weft.gateway.openapi.builder import document

__all__ = ["document", "page"]
