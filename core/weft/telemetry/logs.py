"""Log lines: JSON for machines, one readable line for a terminal; each names the trace it belongs to."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Literal

import orjson

Format = Literal["json", "text"]
# What every LogRecord has; anything beyond came in through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    def __init__(self, service: str, trace_id: Callable[[], str]) -> None:
        super().__init__()
        self.service = service
        self.trace_id = trace_id

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        found = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if "trace_id" not in found and (trace_id := self.trace_id()):
            found["trace_id"] = trace_id
        return found


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "service": self.service,
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Text(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        extra = "".join(f" {key}={value}" for key, value in self.fields(record).items())
        line = f"{clock} {record.levelname:<7} {self.service:<10} {record.getMessage()}{extra}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def setup(
    service: str,
    *,
    form: Format = "text",
    level: str = "INFO",
    trace_id: Callable[[], str] = lambda: "",
) -> None:
    """Sends the log of this process to standard error. For process entries only.

    Args:
        service: what the process is, such as "gateway".
        form: "json" for one object a line, "text" for people.
        level: least level that is shown.
        trace_id: tells the trace of the current task, empty when there is none.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_Json if form == "json" else _Text)(service, trace_id))
    # Whoever keeps it wants all of it.
    logging.getLogger("weft.audit").setLevel("INFO")
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # A line for each request, with a URL that others chose.
    logging.getLogger("httpx").setLevel("WARNING")
    # An exporter whose collector is away says so at every batch.
    logging.getLogger("opentelemetry").setLevel("ERROR")
    logging.getLogger("opentelemetry.exporter").setLevel("CRITICAL")


def divert(name: str, path: Path, *, service: str) -> None:
    """Sends a logger's lines to a file, as JSON, instead of standard error. It may be moved away: it is made anew.

    Raises:
        ValueError: it cannot be written.
    """
    try:
        handler = WatchedFileHandler(path, encoding="utf-8")
    except OSError as failed:
        raise ValueError(f"{path} cannot be written: {failed.strerror}") from failed
    handler.setFormatter(_Json(service, lambda: ""))
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.propagate = False
