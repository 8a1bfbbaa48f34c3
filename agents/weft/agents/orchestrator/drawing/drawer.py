"""Draws what is asked for: a workflow as it is given or stored, or a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from weft import rpc
from weft.agents.orchestrator.asked import Asker, required, version_of
from weft.agents.orchestrator.drawing import mermaid, svg
from weft.agents.orchestrator.drawing.picture import Picture, picture_of
from weft.agents.orchestrator.engine.plans import Plans
from weft.agents.orchestrator.runs import Runs
from weft.agents.orchestrator.shown import Shown
from weft.agents.orchestrator.workflows import Workflows
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import WorkflowSpec

_MOST_NODES: Final = 200
_MOST_EDGES: Final = 1_000


class Drawer:
    """Draws workflows and runs of the caller's tenant.

    Args:
        runs: those that are stored.
        workflows: theirs.
        plans: compiled workflows.
    """

    def __init__(self, runs: Runs, workflows: Workflows, plans: Plans) -> None:
        self._runs = runs
        self._workflows = workflows
        self._shown = Shown(plans)

    async def draw(self, asker: Asker, request: pb.DrawRequest) -> pb.DrawResponse:
        """Draws what is asked for.

        Raises:
            InvalidArgument: nothing is asked for, or it is too large.
            WorkflowNotFound, RunNotFound: see there.
        """
        if request.format not in pb.DrawingFormat.values():
            raise rpc.InvalidArgument("is not a format", field="format")
        picture = await self._picture(asker, request)
        if request.format == pb.DRAWING_FORMAT_MERMAID:
            return pb.DrawResponse(
                drawing=mermaid.to_mermaid(picture), media_type=mermaid.MEDIA_TYPE
            )
        return pb.DrawResponse(drawing=svg.to_svg(picture), media_type=svg.MEDIA_TYPE)

    async def _picture(self, asker: Asker, request: pb.DrawRequest) -> Picture:
        match request.WhichOneof("subject"):
            case "spec":
                return picture_of(_drawable(request.spec))
            case "workflow":
                name, version = version_of(required(request.workflow, "workflow"), "workflow")
                workflow = await self._workflows.get(asker, name, version)
                return picture_of(workflow.spec)
            case "run":
                run = await self._runs.get(asker, required(request.run, "run"))
                spec = await self._workflows.by_number(run.workflow)
                events = await self._runs.events(run)
                shown = await self._shown.run_with_steps(run, events, outputs=False, binary=False)
                return picture_of(spec, shown, now=datetime.now(UTC))
            case _:
                raise rpc.InvalidArgument("is required", field="workflow")


def _drawable(spec: WorkflowSpec) -> WorkflowSpec:
    if len(spec.nodes) > _MOST_NODES or len(spec.edges) > _MOST_EDGES:
        wrong = f"has more than {_MOST_NODES} nodes or {_MOST_EDGES} edges"
        raise rpc.InvalidArgument(wrong, field="spec")
    ids = [node.id for node in spec.nodes]
    if len(set(ids)) != len(ids):
        raise rpc.InvalidArgument("has two nodes of one id", field="spec.nodes")
    return spec
