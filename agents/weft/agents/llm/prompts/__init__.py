"""Prompts: versioned files beside the agent that uses them.

    prompts = Prompts.beside(__file__)                    # the folder prompts/ beside that module
    question = prompts["answer"].ask(question=text, articles=found)
    reply = await model.generate(question)                # reply.prompt is "answer@3"

A file is NAME.ANYTHING.md:

    ---
    version: "3"
    weight: 1                     # share of conversations, of the sum of all versions; 0: only by its version
    variables: [question]         # trusted: put in as they are
    untrusted: [articles]         # put in between marks that they cannot forge
    max_tokens: 800               # and temperature, effort: before those of the settings
    ---
    ## system
    You answer customers of a bank.
    ## user
    {{articles}}
    {{question}}
"""

from weft.agents.llm.prompts.files import Prompt, PromptError, read
from weft.agents.llm.prompts.shelf import Choice, Prompts

__all__ = ["Choice", "Prompt", "PromptError", "Prompts", "read"]
