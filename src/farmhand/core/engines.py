"""The engines, a row each: how a task reaches the model. `farmhand.agent.engines` has a file for each."""

from __future__ import annotations

from typing import NamedTuple


class EngineKind(NamedTuple):
    """`slots`: the agent has a setting `slots_<engine>`, how many of its tasks run at once; else the provider decides.

    `tools`: its tasks may have tools. `lean`: it sends the prompt without what the claude CLI would add.
    """

    slots: bool
    tools: bool
    lean: bool


ENGINES = {
    "api": EngineKind(slots=True, tools=False, lean=True),
    "cli": EngineKind(slots=True, tools=True, lean=False),
    "economy": EngineKind(slots=False, tools=False, lean=True),
}
#: The engines whose tasks take a slot of the farm host.
SLOTTED = tuple(name for name, kind in ENGINES.items() if kind.slots)
