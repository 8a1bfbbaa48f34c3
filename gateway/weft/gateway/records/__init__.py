"""What the gateway writes down of requests: the request log, and the audit log of who did what."""

from weft.gateway.records.audit import AuditLog, Noted
from weft.gateway.records.redaction import Redaction, has_secrets
from weft.gateway.records.requests import RequestLog, RequestLogSettings

__all__ = ["AuditLog", "Noted", "Redaction", "RequestLog", "RequestLogSettings", "has_secrets"]
