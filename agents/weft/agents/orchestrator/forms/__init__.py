"""Workflows as people write them: YAML, JSON, and Python.

flow = Workflow("refund", input=HandleRequest)
triage = flow.call("triage", TriageServiceServicer.Classify, text="input.text")
"""

from weft.agents.orchestrator.forms.building import Options, Workflow
from weft.agents.orchestrator.forms.parts import compute, participant, retry, skill
from weft.agents.orchestrator.forms.reading import FormFault, ReadSpec, SpecUnreadable, read_spec
from weft.agents.orchestrator.forms.steps import Step, Steps, Way
from weft.agents.orchestrator.forms.writing import to_json, to_yaml

__all__ = [
    "FormFault",
    "Options",
    "ReadSpec",
    "SpecUnreadable",
    "Step",
    "Steps",
    "Way",
    "Workflow",
    "compute",
    "participant",
    "read_spec",
    "retry",
    "skill",
    "to_json",
    "to_yaml",
]
