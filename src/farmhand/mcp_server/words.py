"""Texts for the command line, in the words of a session: its tools, or what only the operator can do."""

from __future__ import annotations

import re

#: What the command line says, and what a session is told. `{id}` is the job's.
_SAID = [
    (re.compile(pattern), text)
    for pattern, text in (
        (
            r"raise --max-usd, or the host's budget, and give the same command",
            "farm_cancel {id} frees what it holds; then give what has no answer to farm_batch with a larger max_usd; "
            "a host's budget is the operator's",
        ),
        (
            r"put that right and give the same command",
            "the operator has to put that right, then farm_result {id} goes on",
        ),
        (r"the same command with --retry-failed runs them again", "give those to farm_batch again"),
        (
            r"(?:give )?the same command(?: again)?(?: with --id \S+)?"
            r"(?:: it goes on from here| goes on(?: from (?:t?here))?| takes it up again)?",
            "farm_result {id} lets it go on",
        ),
        (
            r'name another --pot, or set when_spent = "next"',
            'farm_result {id} has the answer once the pot is filled; the operator can set when_spent = "next"',
        ),
        (r"--yes answers yes", "fewer tasks at once may need no question; the limit is the operator's confirm_usd"),
        (r"raise --max-tokens", "call it again with a larger max_tokens"),
        (r"raise --timeout, or make the task smaller", "make the task smaller; its time is the operator's timeout_s"),
        (r"--drop (\S+) leaves it out", r"take \1 out of the file"),
        (r"farmhand flush (\S+) gives", r"farm_result \1 gives"),
        (r"farmhand (?:wait|show|logs) (\S+)", r"farm_result \1"),
        (r"farmhand cancel (\S+)", r"farm_cancel \1"),
        (r"farmhand list shows them", "farm_status lists them"),
        (r"farmhand status says", "farm_status says"),
        (r"--max-(tokens|usd)\b", r"max_\1"),
        (r"--(model|system|schema|since)\b", r"\1"),
    )
]
#: What of the rest only the operator can do.
_OPERATORS = re.compile(
    r"(?<![\w-])--[a-z]|\bfarmhand [a-z]|\bclaude-cheap\b|\bCtrl-C\b|\bansible|\.yml\b|\.toml\b|\bhosts\.json\b|\bjada_"
)


def message(text: str, job_id: str = "") -> str:
    """Return what happened, with the names of the tools' arguments. `job_id`: the id with which a job goes on."""
    for pattern, said in _SAID:
        text = pattern.sub(said.replace("{id}", job_id) if job_id else said.replace(" {id}", ""), text)
    return text


def hint(text: str, job_id: str = "") -> str:
    """Return what there is to do: by the session, with its tools; what it cannot is said to be the operator's."""
    found = message(text, job_id)
    return f"for the operator: {found}" if _OPERATORS.search(found) and "operator" not in found else found
