"""The gateway's HTTP server: bounded connections in front of one ASGI application."""

from weft.gateway.http.refusal import MalformedHttp, RequestTooSlow, TooManyConnections
from weft.gateway.http.server import Application, HttpServer, Message, Receive, Send
from weft.gateway.http.settings import HttpSettings

__all__ = [
    "Application",
    "HttpServer",
    "HttpSettings",
    "MalformedHttp",
    "Message",
    "Receive",
    "RequestTooSlow",
    "Send",
    "TooManyConnections",
]
