"""What can keep a private server from running.

    embedded.Error
    |-- NotMainThread    |-- NotInstalled    |-- Incompatible    |-- NoAccount
    |-- FolderUnusable   |-- FolderBusy      |-- StartFailed     `-- ServerLost

Each message says what to do next.
"""

from __future__ import annotations


class Error(Exception):
    """A private server cannot be used."""


class NotMainThread(Error):
    """Servers are started from the main thread only."""


class NotInstalled(Error):
    """No binary of a server was found on this machine."""


class Incompatible(Error):
    """The data folder was written by a server that the one at hand must not replace."""


class NoAccount(Error):
    """PostgreSQL refuses to run as root, and no other account can reach its files."""


class FolderUnusable(Error):
    """The data folder, or the folder for its sockets, cannot be used."""


class FolderBusy(Error):
    """Another launcher holds the data folder and does not say where its servers are."""


class StartFailed(Error):
    """A server did not come up; the end of its log is in the message."""


class ServerLost(Error):
    """A server died more often than it is restarted."""
