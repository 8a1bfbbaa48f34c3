from __future__ import annotations

from datetime import timedelta

from weft import rpc
from weft.agents.orchestrator.engine.calls import Caller, Calls


def test_calls_of_a_run_carry_it_on() -> None:
    calls = Calls(lambda agent: None, lambda action: None)
    caller = Caller(identity=b"", traceparent="", run="run-7")
    served = calls._served(caller, "/a/B", rpc.Deadline.after(timedelta(seconds=1)))
    assert served.run == "run-7"
    assert ("weft-run", "run-7") in served.forwarded
