"""Validation of tasks' JSON Schemas, and of answers against them, in separate processes that can be killed.

A pattern, or a keyword that compares every item with every other, can run without end, and nothing inside a Python
process can stop it. The processes never have a key in memory.
"""

from farmhand.core.schemas.pool import MAX_ANSWER, POOL, CheckResult, Pool, Unchecked, problem, too_large

__all__ = ["MAX_ANSWER", "POOL", "CheckResult", "Pool", "Unchecked", "problem", "too_large"]
