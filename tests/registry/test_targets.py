"""Where Prometheus finds agents."""

from __future__ import annotations

from weft.registry.index import Index
from weft.registry.targets import targets
from weft.v1 import agent_pb2


def instance(number: int, agent: str, **labels: str) -> agent_pb2.Instance:
    return agent_pb2.Instance(
        instance_id=f"i{number}",
        agent=agent,
        address=f"10.0.0.{number}:9000",
        zone="a",
        labels=labels,
        services=[agent_pb2.ServiceRef(name=f"weft.{agent}.v1.S")],
        state=agent_pb2.INSTANCE_STATE_SERVING,
    )


async def test_a_process_is_one_target_however_many_agents_it_serves():
    index = Index()
    index.register(
        [
            instance(1, "echo", metrics="10.0.0.1:7000"),
            instance(2, "greeter", metrics="10.0.0.1:7000"),
            instance(3, "echo", metrics="10.0.0.3:7000"),
            instance(4, "quiet"),  # shows no metrics
        ],
        {},
    )
    assert targets(index) == [
        {
            "targets": ["10.0.0.1:7000"],
            "labels": {"__meta_weft_agents": "echo,greeter", "__meta_weft_zone": "a"},
        },
        {
            "targets": ["10.0.0.3:7000"],
            "labels": {"__meta_weft_agents": "echo", "__meta_weft_zone": "a"},
        },
    ]
    index.remove(["i1", "i2"])
    assert [each["targets"] for each in targets(index)] == [["10.0.0.3:7000"]]
