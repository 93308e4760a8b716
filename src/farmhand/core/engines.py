"""The table of engines: the ways in which a task reaches the model. `farmhand.agent.engines` has one file for each."""

from __future__ import annotations

from typing import NamedTuple


class EngineKind(NamedTuple):
    """The properties of an engine.

    `slots`: the agent's setting `slots_<engine>` limits how many of its tasks run at once; otherwise the provider
    decides. `tools`: its tasks may have tools. `lean`: it sends the prompt without the claude CLI's additions.
    """

    slots: bool
    tools: bool
    lean: bool


ENGINES = {
    "api": EngineKind(slots=True, tools=False, lean=True),
    "cli": EngineKind(slots=True, tools=True, lean=False),
    "economy": EngineKind(slots=False, tools=False, lean=True),
}
#: The engines whose tasks occupy a slot of the farm host.
SLOTTED = tuple(name for name, kind in ENGINES.items() if kind.slots)
