"""The agent echo, called as the test that starts it says: `weft agents serve tests.polyglot.replica:echo`."""

from __future__ import annotations

import os

from weft.agents.echo import Echo

NAME = "ECHO_NAME"


def echo() -> Echo:
    return Echo(os.environ[NAME])
