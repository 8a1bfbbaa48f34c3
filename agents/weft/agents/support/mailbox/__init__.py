"""Mailbox: takes customers' mails and keeps what is written to them."""

from weft.agents.support.mailbox.service import MailboxAgent

__all__ = ["MailboxAgent"]
