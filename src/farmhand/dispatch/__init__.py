"""Reaching farm hosts: which there are, the wire's errors in the package's terms, and tasks through ansible-runner."""

from __future__ import annotations

TYPE_CHECKING = False  # as in farmhand.wire.http1
if TYPE_CHECKING:
    from typing import Any

    from farmhand.dispatch.runner import Outcome, run_task, run_tasks

__all__ = ["Outcome", "run_task", "run_tasks"]


def __getattr__(name: str) -> Any:
    """ansible-runner is imported when it is used: claude-cheap and the action plugin do without."""
    if name in __all__:
        from farmhand.dispatch import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
