"""Recent traces of this mesh: an OTLP receiver in memory, and answers about what it took."""

from weft.traces.service import OtlpReceiver, TraceQuery, TraceUnknown, services
from weft.traces.store import TraceStore

__all__ = ["OtlpReceiver", "TraceQuery", "TraceStore", "TraceUnknown", "services"]
