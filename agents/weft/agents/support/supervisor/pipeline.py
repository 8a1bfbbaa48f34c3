"""The pipeline as it ships: the workflow `support-handle`, read from pipeline.yaml and compiled against the fleet's contracts."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

from weft.agents.contract import agent_name, contract_for
from weft.agents.orchestrator.forms import read_spec
from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.model import Plan
from weft.agents.orchestrator.plan.world import DescriptorWorld
from weft.agents.orchestrator.workflows import WorkflowContract
from weft.support.v1 import (
    escalation_pb2,
    quality_pb2,
    research_pb2,
    solution_pb2,
    supervisor_pb2,
    triage_pb2,
)
from weft.v1 import agent_pb2
from weft.v1.workflow_pb2 import WorkflowSpec

NAME: Final = "support-handle"
"""What the workflow is called, in every version."""
INPUT_TYPE: Final = supervisor_pb2.HandleRequest.DESCRIPTOR.full_name
OUTPUT_TYPE: Final = supervisor_pb2.HandleResponse.DESCRIPTOR.full_name
CONTRACT: Final = WorkflowContract(input_type=INPUT_TYPE, output_type=OUTPUT_TYPE)
"""What every version keeps."""

_FILES = (
    triage_pb2,
    research_pb2,
    solution_pb2,
    quality_pb2,
    escalation_pb2,
    supervisor_pb2,
)


@functools.cache
def shipped() -> WorkflowSpec:
    """The workflow. Not to be changed: it is one message for all."""
    file = resources.files("weft.agents.support.supervisor").joinpath("pipeline.yaml")
    return read_spec(file.read_text(encoding="utf-8")).spec


@functools.cache
def compiled() -> Plan:
    """The plan of the workflow, for a process without an orchestrator."""
    agents, sets = [], {}
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            contract = contract_for(service, _nobody)
            sets[contract.digest] = contract.descriptors
            ref = agent_pb2.ServiceRef(name=service.full_name, descriptor_digest=contract.digest)
            agents.append(agent_pb2.Agent(name=agent_name(service), services=[ref]))
    return compile_workflow(shipped(), DescriptorWorld(agents, sets))


def _nobody(servicer: object, server: object) -> None:
    """Nothing is served here."""
