"""MCP in the revision without sessions, by raw HTTP, in front of a real agent."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path

import httpx
import orjson
import pytest
from httpx import AsyncClient

from weft.rpc.testing import wait_until

sys.path.insert(0, str(Path(__file__).parent))

from mcp_client import ACCEPT, META, MODERN, ask, call, messages, meta, modern, refused, sse

from ..conftest import Mesh
