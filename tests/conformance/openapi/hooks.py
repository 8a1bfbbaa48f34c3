"""What schemathesis cannot make up."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies

# A token is empty or out of the answer before.
schemathesis.openapi.format("page-token", strategies.just(""))
