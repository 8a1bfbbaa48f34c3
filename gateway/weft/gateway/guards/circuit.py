"""The one adapter around pybreaker: the circuit breaker of one method of one agent.

pybreaker is the state machine: closed, open, half-open, the moves between them and their listeners. What
it decides wrongly for asyncio is decided here, and it is told only the verdict:

- it never sees a coroutine (its decorator counts an un-awaited one as a success): a call takes a
  `Permit`, and the permit's vote is what reaches it;
- it trips on consecutive failures: here an error rate over a sliding window is one failure to it;
- it lets every caller through when half-open: here at most `trials` permits are out or have succeeded;
- it counts a cancelled caller as a failure and replaces CancelledError: here that is no vote;
- it counts results of calls begun before it changed state: here a permit of an older generation is void;
- it measures the open time on the wall clock, equally in every process: here monotonic, and jittered.

For one event loop; not thread-safe.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, NoReturn, Self

import grpc
import pybreaker

from weft import rpc
from weft.gateway.guards.window import Window

CLOSED: Final = pybreaker.STATE_CLOSED
OPEN: Final = pybreaker.STATE_OPEN
HALF_OPEN: Final = pybreaker.STATE_HALF_OPEN

# Codes by which an agent, or the way to it, says that it is unwell. Any other answer is an answer.
# DEADLINE_EXCEEDED is one only where the caller was willing to wait: `BreakerSettings.deadline_floor`.
# A tuple: to look one of these up in a set is to hash an Enum, in Python code.
FAILURES: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
_TIMEOUT: Final = grpc.StatusCode.DEADLINE_EXCEEDED

_HISTORY = 16  # transitions kept of a circuit
_HELD = 5.0  # seconds a caller waits whom a held circuit refuses
_NO_TRIAL_FREE = 1.0  # seconds a refused caller waits while the trials of others run


class CircuitOpen(rpc.Unavailable):
    """The agent fails too often; calls to it are refused for a while."""

    reason = "CIRCUIT_OPEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a circuit opens, and how it closes again.

    Raises:
        ValueError: a value is out of its range.
    """

    window: timedelta = timedelta(seconds=10)
    """Span over which the error rate is taken."""
    failure_rate: float = 0.5
    """Share of failures that opens the circuit, above 0 and at most 1."""
    minimum_calls: int = 20
    """Calls in the window below which the rate says nothing."""
    open_for: timedelta = timedelta(seconds=5)
    """Time an open circuit refuses calls before it tries again."""
    jitter: float = 0.2
    """Share by which each open time is varied up or down, so that gateways do not try in step."""
    trials: int = 3
    """Calls let through when half-open, in all; every one must succeed to close the circuit."""
    trial_wait: timedelta = timedelta(seconds=10)
    """Time after which trials that did not report are given up and new ones let through."""
    deadline_floor: timedelta = timedelta(seconds=1)
    """A caller that gave the agent less than this and ran out of time says nothing about the agent."""
    capacity: int = 4096
    """Circuits kept; the least recently used closed one goes first."""

    def __post_init__(self) -> None:
        spans = (self.window, self.open_for, self.trial_wait)
        if min(spans) <= timedelta(0) or self.deadline_floor < timedelta(0):
            msg = "window, open_for and trial_wait must be positive, deadline_floor not negative"
            raise ValueError(msg)
        if not 0 < self.failure_rate <= 1 or not 0 <= self.jitter < 1:
            msg = "failure_rate must be in (0, 1] and jitter in [0, 1)"
            raise ValueError(msg)
        if min(self.minimum_calls, self.trials, self.capacity) < 1:
            msg = "minimum_calls, trials and capacity must be at least 1"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitState:
    """What a circuit looked like at one moment."""

    agent: str
    method: str
    state: str
    """closed, open or half-open."""
    calls: int
    """Calls counted in the window."""
    failures: int
    """How many of them failed."""
    retry_after: timedelta
    """Time until an open circuit lets a trial through; 0 in the other states."""
    held: bool = False
    """Whether an operator holds it as it is."""
    history: tuple[Transition, ...] = ()
    """Its last changes, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A circuit went from one state to another."""

    agent: str
    method: str
    previous: str
    state: str
    calls: int
    """Calls in the window that led here."""
    failures: int
    open_for: timedelta
    """Time the circuit stays open; 0 when it did not open, or is held open."""
    held: bool = False
    """Whether an operator did it."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Permit:
    """Leave to make one call; give its outcome exactly once. What comes after the first is ignored.

    As a context manager it reads the outcome from what leaves the block: nothing is OK, an RPC error is
    its code, a cancellation or any other exception (a fault of our own) is no vote.
    """

    __slots__ = ("_circuit", "_generation", "_patient")

    def __init__(self, circuit: Circuit, generation: int, *, patient: bool) -> None:
        self._circuit: Circuit | None = circuit
        self._generation = generation
        self._patient = patient

    def done(self, code: grpc.StatusCode) -> None:
        """The call ended with `code`."""
        circuit = self._circuit
        if circuit is None:
            return
        self._circuit = None
        if circuit.generation != self._generation:
            return
        if code is grpc.StatusCode.OK:
            circuit.vote(0)
        elif code is grpc.StatusCode.CANCELLED or (code is _TIMEOUT and not self._patient):
            circuit.give_back()
        else:
            circuit.vote(1 if code in FAILURES else 0)

    def cancelled(self) -> None:
        """The caller went away, or the call was never made: no vote, and the permit is free again."""
        self.done(grpc.StatusCode.CANCELLED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failed: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if failed is None:
            self.done(grpc.StatusCode.OK)
        elif isinstance(failed, rpc.Error):
            self.done(failed.code)
        elif isinstance(failed, grpc.aio.AioRpcError):
            self.done(failed.code())
        elif isinstance(failed, TimeoutError):
            self.done(grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            self.cancelled()


class Circuit:
    """The circuit of one method of one agent.

    Args:
        announce: told of each transition; must not raise.
        clock: seconds, monotonic.
        spread: a number in [0, 1) for the jitter of the open time.
    """

    def __init__(
        self,
        agent: str,
        method: str,
        settings: BreakerSettings,
        *,
        announce: Callable[[Transition], None],
        clock: Callable[[], float],
        spread: Callable[[], float],
    ) -> None:
        self.state: str = CLOSED
        self.generation = 0
        self._agent = agent
        self._method = method
        self._settings = settings
        self._announce = announce
        self._clock = clock
        self._spread = spread
        self._window = Window(settings.window)
        self._minimum = settings.minimum_calls
        self._rate = settings.failure_rate
        self._floor = settings.deadline_floor.total_seconds()
        self._until = 0.0  # open: when a trial may pass; half-open: when silent trials are given up
        self._free = 0  # trials that may still be let through
        self._held = ""
        self._history: deque[Transition] = deque(maxlen=_HISTORY)
        self._machine = pybreaker.CircuitBreaker(
            fail_max=1,
            success_threshold=settings.trials,
            reset_timeout=settings.open_for.total_seconds(),
            listeners=[_Listener(self)],
        )

    def enter(self, deadline: rpc.Deadline | None) -> Permit:
        """Leave for one call.

        Raises:
            CircuitOpen: not now; `retry_after` says when.
        """
        if self.state is not CLOSED:
            self._take_trial()
        patient = deadline is None or deadline.seconds() >= self._floor
        return Permit(self, self.generation, patient=patient)

    def hold(self, state: str) -> None:
        """Keeps the circuit open or closed, whatever happens; empty: it is on its own again.

        A circuit that was held open tries again at once.
        """
        if state == self._held:
            return
        released, self._held = self._held, state
        if state is OPEN and self.state is not OPEN:
            self._machine.open()
        elif state is CLOSED and self.state is not CLOSED:
            self._machine.close()
        if state is OPEN:
            self._until = math.inf
        elif released is OPEN and self.state is OPEN:
            self._until = self._clock()

    def vote(self, failures: int) -> None:
        """Counts the outcome of a call of this generation: `failures` 0 or 1."""
        if self.state is CLOSED:
            window = self._window
            window.record(self._clock(), failures)
            if (
                window.failures
                and not self._held
                and window.calls >= self._minimum
                and window.failures >= self._rate * window.calls
            ):
                self._tell(failed=True)
        else:
            self._tell(failed=bool(failures))

    def give_back(self) -> None:
        """Takes a permit of this generation back unused."""
        if self.state is HALF_OPEN:
            self._free += 1

    def look(self) -> CircuitState:
        """The state now."""
        now = self._clock()
        self._window.turn(now)
        left = max(0.0, self._until - now) if self.state is OPEN else 0.0
        return CircuitState(
            agent=self._agent,
            method=self._method,
            state=self.state,
            calls=self._window.calls,
            failures=self._window.failures,
            retry_after=timedelta(seconds=_HELD if math.isinf(left) else left),
            held=bool(self._held),
            history=tuple(self._history),
        )

    def moved(self, previous: str, state: str) -> None:
        """The machine went to `state`: a new generation begins, with an empty window."""
        open_for = 0.0
        if state is OPEN:
            vary = 1 + self._settings.jitter * (2 * self._spread() - 1)
            open_for = self._settings.open_for.total_seconds() * vary
            self._until = self._clock() + open_for
        elif state is HALF_OPEN:
            self._free = self._settings.trials
            self._until = self._clock() + self._settings.trial_wait.total_seconds()
        transition = Transition(
            agent=self._agent,
            method=self._method,
            previous=previous,
            state=state,
            calls=self._window.calls,
            failures=self._window.failures,
            open_for=timedelta(seconds=0.0 if self._held else open_for),
            held=bool(self._held),
        )
        self.generation += 1
        self.state = state
        self._window.clear()
        if previous is not state:
            self._history.append(transition)
            self._announce(transition)

    def _take_trial(self) -> None:
        left = self._until - self._clock()
        if left <= 0:
            # Open long enough; or half-open, and the trials of this round hang: begin a round.
            self._machine.half_open()
        elif self.state is OPEN or not self._free:
            self._refuse(left if self.state is OPEN else min(left, _NO_TRIAL_FREE))
        self._free -= 1

    def _refuse(self, seconds: float) -> NoReturn:
        metadata = {"agent": self._agent, "method": self._method}
        text = f"{self._agent} fails too often; calls to {self._method} are refused for a while."
        if self._held:
            text = f"Calls to {self._method} of {self._agent} are stopped by an operator."
            metadata["held"] = "true"
        raise CircuitOpen(
            text, retry_after=timedelta(seconds=min(seconds, _HELD)), metadata=metadata
        )

    def _tell(self, *, failed: bool) -> None:
        # The error is pybreaker's way of saying that this failure opened the circuit.
        with contextlib.suppress(pybreaker.CircuitBreakerError):
            self._machine.call(_fail if failed else _succeed)


class _Listener(pybreaker.CircuitBreakerListener):
    """Passes pybreaker's moves on to the circuit."""

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 the name and place are pybreaker's
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        assert old_state is not None
        self._circuit.moved(old_state.name, new_state.name)


class _CallFailed(Exception):
    """The verdict on a call, or on a window of calls."""


def _fail() -> NoReturn:
    raise _CallFailed


def _succeed() -> None:
    return None
