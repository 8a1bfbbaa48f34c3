"""Alerts of Prometheus or an Alertmanager, told to a webhook: Discord's form, Slack's, or plain JSON.

board      which alerts fire; what of what comes in is news
forms      how news look to their receiver
outbox     what was not delivered yet
app        what is listened to
"""

from weft.alerts.app import App
from weft.alerts.board import Alert, Board
from weft.alerts.forms import FORMS, Form
from weft.alerts.outbox import Outbox, Teller

__all__ = ["FORMS", "Alert", "App", "Board", "Form", "Outbox", "Teller"]
