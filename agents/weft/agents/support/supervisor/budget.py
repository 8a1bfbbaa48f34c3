"""One deadline over all steps: each gets a fair share, those that may think a larger one, and a reserve for the answer stays."""

from __future__ import annotations

from datetime import timedelta

from weft import rpc

_DEFAULT = timedelta(seconds=30)
_RESERVE = timedelta(seconds=2)
_RESERVE_SHARE = 0.3  # of a short budget
_ANSWERING = 0.25  # share of the reserve that is kept from the ticket, to store and send the answer


class Budget:
    """The time an exchange may take.

    Args:
        deadline: when the caller stops waiting; None: it named none.
        steps: steps that share the time, at most.
    """

    def __init__(self, deadline: rpc.Deadline | None, *, steps: int) -> None:
        self._deadline = deadline or rpc.Deadline.after(_DEFAULT)
        total = self._deadline.seconds()
        self._reserve = min(_RESERVE.total_seconds(), _RESERVE_SHARE * total)
        self._steps = steps

    def next_share(self, parts: int | None = None) -> timedelta:
        """The share of the next step: what is left, without the reserve, by the steps to come. 0: nothing is left.

        Args:
            parts: by that instead, where there are more steps to come.
        """
        steps = max(1, self._steps)
        share = self.for_steps() / min(steps, parts or steps)
        self._steps -= 1
        return share

    def for_steps(self) -> timedelta:
        """What all steps to come may take together."""
        return timedelta(seconds=max(0.0, self._deadline.seconds() - self._reserve))

    def for_ticket(self) -> timedelta:
        """What the ticket may take."""
        return self._left_but(_ANSWERING * self._reserve)

    def for_conversation(self) -> timedelta:
        """What storing the conversation may take."""
        return self._left_but(_ANSWERING / 2 * self._reserve)

    def _left_but(self, kept: float) -> timedelta:
        return timedelta(seconds=max(0.0, self._deadline.seconds() - kept))
