"""Errors as the doors show them: AIP-193 for REST, Connect's own form for Connect."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc

from weft import rpc

_CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
_REASON = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "INVALID_ARGUMENT",
    "domain": "weft.dev",
}
_FIELD = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "fieldViolations": [{"field": "text", "description": "expects a string, got a number"}],
}

SCHEMAS: Mapping[str, Any] = MappingProxyType(
    {
        "Error": {
            "type": "object",
            "description": "What went wrong (AIP-193).",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message", "status"],
                    "properties": {
                        "code": {"type": "integer", "description": "HTTP status."},
                        "message": {"type": "string", "description": "For people."},
                        "status": {
                            "type": "string",
                            "enum": [code.name for code in _CODES],
                            "description": "Canonical code.",
                        },
                        "details": {
                            "type": "array",
                            "description": "Always a google.rpc.ErrorInfo with reason and domain; "
                            "google.rpc.BadRequest names the fields that do not fit.",
                            "items": {"$ref": "#/components/schemas/ErrorDetail"},
                        },
                    },
                }
            },
        },
        "ErrorDetail": {
            "type": "object",
            "required": ["@type"],
            "properties": {"@type": {"type": "string"}},
            "additionalProperties": True,
        },
        "ConnectError": {
            "type": "object",
            "description": "What went wrong, as the Connect protocol says it.",
            "required": ["code"],
            "properties": {
                "code": {"type": "string", "enum": [rpc.CONNECT_CODE[code] for code in _CODES]},
                "message": {"type": "string", "description": "For people."},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "value"],
                        "properties": {
                            "type": {"type": "string", "description": "Full message name."},
                            "value": {"type": "string", "description": "The message, base64."},
                        },
                        "additionalProperties": True,
                    },
                },
            },
        },
    }
)

RESPONSES: Mapping[str, Any] = MappingProxyType(
    {
        "Error": {
            "description": "The call failed.",
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Error"},
                    "example": {
                        "error": {
                            "code": 400,
                            "message": "text: expects a string, got a number",
                            "status": "INVALID_ARGUMENT",
                            "details": [_REASON, _FIELD],
                        }
                    },
                }
            },
        },
        "ConnectError": {
            "description": "The call failed.",
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/ConnectError"},
                    "example": {
                        "code": "invalid_argument",
                        "message": "text: expects a string, got a number",
                    },
                }
            },
        },
    }
)
