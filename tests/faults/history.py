"""What clients saw, line by line, in files that survive the death of whoever writes them.

One file per process, `WHO.NUMBER.log`, each line one event: kind, monotonic time in ns (one clock for all processes of
a machine), queue, id, key, attempt, lease, note, separated by tabs. Each batch of events is one write(2) to a file
opened with O_APPEND. The last line of a killed process may be torn; it is not read.

kind        written                                     note
intent      before a message is first sent              due=NS or expires=NS; queue: all queues it must reach, with ","
resend      before it is sent again, unanswered         -
receipt     when it was accepted                        "duplicate" if the broker said so
refused     when it was refused for good                the status
repeat      before an accepted message is sent again    -
repeated    when that was accepted                      "duplicate" if the broker said so
ask         before a request is sent                    -
answer      when its outcome came                       the reply, or "error STATUS"
begin       when a message was delivered                -
corrupt     when its payload is not what was published  -
done        when it is handled, before its ack is sent  the reply, if it is a request
acked       when the ack is confirmed                   -
lost        when the broker said that the lease is lost the reason
nack        before it is given back                     -
reject      before it is rejected                       the reason
extend      before an extension is sent                 -
extended    when that is confirmed                      time of its extend
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_COLUMNS = 8


class Event(NamedTuple):
    kind: str
    at: int
    queue: str = ""
    id: str = ""
    key: str = ""
    attempt: int = 0
    lease: str = ""
    note: str = ""
    who: str = ""

    def __str__(self) -> str:
        parts = [f"{self.at / 1e9:.6f}", self.who, self.kind, self.queue, self.id]
        if self.key:
            parts.append(f"key={self.key}")
        if self.attempt:
            parts.append(f"attempt={self.attempt}")
        if self.lease:
            parts.append(f"lease={self.lease}")
        if self.note:
            parts.append(f"[{self.note}]")
        return " ".join(parts)


class Writer:
    """Appends the events of one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lines: list[str] = []

    def note(
        self,
        kind: str,
        queue: str = "",
        id: str = "",  # noqa: A002 the column's name
        key: str = "",
        attempt: int = 0,
        lease: str = "",
        note: str = "",
    ) -> None:
        """Adds an event to the next write."""
        now = time.monotonic_ns()
        if note:
            note = " ".join(note.split())
        self._lines.append(f"{kind}\t{now}\t{queue}\t{id}\t{key}\t{attempt}\t{lease}\t{note}\n")

    def write(self) -> None:
        """What was noted is in the file when this returns."""
        if self._lines:
            data = "".join(self._lines).encode()
            self._lines.clear()
            while data:  # a signal or a full disk may cut a write short
                data = data[os.write(self._file, data) :]

    def close(self) -> None:
        self.write()
        os.close(self._file)


def read_file(path: Path) -> Iterator[Event]:
    """The events of one file."""
    who = path.name.rsplit(".", 2)[0]
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        columns = line[:-1].split("\t")
        if len(columns) != _COLUMNS:
            raise ValueError(f"{path}: {line!r}")
        kind, at, queue, name, key, attempt, lease, note = columns
        yield Event(kind, int(at), queue, name, key, int(attempt), lease, note, who)


def read(paths: Iterable[Path]) -> list[Event]:
    """The events of all files, in the order of time."""
    events = [event for path in paths for event in read_file(path)]
    events.sort(key=lambda event: event.at)
    return events
