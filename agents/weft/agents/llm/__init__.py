"""Models: an agent asks, streams, fills messages and uses tools; what it costs is counted, and stops where the budget does.

    async with llm.models_of(settings) as models: ...     # at the edge of the process
    model = models["support-solution"]
    reply = await model.generate("Why was my card declined?")
    filled = await model.fill(Triage, question)           # filled.message is valid, or an error is raised
    async with model.stream(question) as stream:
        async for delta in stream: ...

The SDK is imported at the first request, not with this module (extra `weft[llm]`).
"""

from weft.agents.llm.asking import Candidate
from weft.agents.llm.endpoints import PRESETS, Endpoint, preset
from weft.agents.llm.errors import (
    AnswerCutOff,
    AnswerMalformed,
    BudgetSpent,
    CircuitOpen,
    ModelCredentials,
    ModelOverloaded,
    ModelRateLimited,
    ModelRefused,
    ModelRejected,
    ModelStalled,
    ModelTooSlow,
    ModelUnavailable,
    ModelUnknown,
    NotFilled,
    StreamBroken,
    TooManySteps,
)
from weft.agents.llm.model import Model, Stream, Worked
from weft.agents.llm.models import ModelEntry, Models
from weft.agents.llm.money import Books, Limit, MemoryLedger, Meter, metered
from weft.agents.llm.prices import Prices
from weft.agents.llm.prompts import Prompt, PromptError, Prompts
from weft.agents.llm.replies import Delta, Filled, Question, Reply, ToolUse
from weft.agents.llm.setup import models_of
from weft.agents.llm.tools import Tool, ToolCall, ToolResult
from weft.agents.llm.usage import Usage
from weft.agents.llm.way import ModelSettings

__all__ = [
    "PRESETS",
    "AnswerCutOff",
    "AnswerMalformed",
    "Books",
    "BudgetSpent",
    "Candidate",
    "CircuitOpen",
    "Delta",
    "Endpoint",
    "Filled",
    "Limit",
    "MemoryLedger",
    "Meter",
    "Model",
    "ModelCredentials",
    "ModelEntry",
    "ModelOverloaded",
    "ModelRateLimited",
    "ModelRefused",
    "ModelRejected",
    "ModelSettings",
    "ModelStalled",
    "ModelTooSlow",
    "ModelUnavailable",
    "ModelUnknown",
    "Models",
    "NotFilled",
    "Prices",
    "Prompt",
    "PromptError",
    "Prompts",
    "Question",
    "Reply",
    "Stream",
    "StreamBroken",
    "TooManySteps",
    "Tool",
    "ToolCall",
    "ToolResult",
    "ToolUse",
    "Usage",
    "Worked",
    "metered",
    "models_of",
    "preset",
]
