"""What is told of approvals by webhook: that there is something to decide, or to look at. What it is, is left to be fetched."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from weft.agents.orchestrator.approvals.model import StoredApproval
from weft.postgres import Database


async def announce(database: Database, approval: StoredApproval) -> None:
    """Has it told, where the workflow names a webhook; once, however often this is called.

    Raises:
        rpc.Unavailable: the database is away.
    """
    if not approval.webhook_url:
        return
    what = (approval.verdict or "ASKED").lower()
    when = approval.decide_time if approval.verdict else approval.create_time
    body = {
        "type": f"approval.{what}",
        "timestamp": (when or datetime.now(UTC)).isoformat(),
        "data": {
            "approval": approval.id,
            "run": approval.run_id,
            "workflow": approval.workflow,
            "step": approval.step,
            "title": approval.title,
            "digest": approval.digest,
        },
    }
    await database.execute(
        "add_webhook",
        f"msg_{approval.id}_{what}",
        approval.tenant,
        approval.webhook_url,
        json.dumps(body, separators=(",", ":")).encode(),
    )
