"""The shapes of the documents that verbs print with --json and that no struct describes.

A shape is a word of `_WORDS`, a struct's name, a dict of fields, `[shape]` for an array, `{"*": shape}` for an object
with any names, or a tuple of shapes of which one fits. A field whose name ends in `?` may be absent.
"""

from __future__ import annotations

from typing import Any

Shape = Any

_NULL = {"type": "null"}
#: An exact amount in US$.
USD = {"type": "string", "pattern": r"^-?\d+\.\d{2,12}$"}
_WORDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {"type": "object"},
    "any": {},
    "version": {"const": 1},
    "null": _NULL,
    "usd": USD,
    "is text": {"const": "text"},
    "is restart": {"const": "restart"},
    "decimal": {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
}


def schema(shape: Shape, structs: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a shape. `structs` has those of the structs, by name; `&` names one to add to."""
    if isinstance(shape, tuple):
        return {"anyOf": [schema(one, structs) for one in shape]}
    if isinstance(shape, list):
        return {"type": "array", "items": schema(shape[0], structs)}
    if isinstance(shape, str):
        return _WORDS.get(shape, {"$ref": f"#/$defs/{shape}"})
    if [*shape] == ["*"]:
        return {"type": "object", "additionalProperties": schema(shape["*"], structs)}
    base = structs[shape["&"]] if "&" in shape else {"properties": {}}
    fields = {name.removesuffix("?"): schema(one, structs) for name, one in shape.items() if name != "&"}
    needed = [name for name in shape if name != "&" and not name.endswith("?")]
    return {
        "type": "object",
        "properties": base["properties"] | fields,
        "required": sorted({*base.get("required", ()), *needed}),
    }


def document(shape: Shape, structs: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a verb's document, whose version every one has that is no task's result."""
    shapes = shape if isinstance(shape, tuple) else (shape,)
    made = []
    for one in shapes:
        own = {} if "version?" in one else {"version" if "&" not in one else "version?": "version"}
        made.append(schema({**own, **one}, structs))
    return made[0] if len(made) == 1 else {"anyOf": made}


def _all(word: str, *names: str) -> dict[str, Shape]:
    return dict.fromkeys(names, word)


ERROR = {
    "error": {**_all("text", "code", "message", "hint"), "lines?": ["text"]},
    **_all("text", "id?", "state?"),
}
#: A line of --events: a part of the answer, or that the answer begins anew.
EVENT: Shape = ({"type": "is text", "text": "text"}, {"type": "is restart"})
_DONE = {"project_dir": "text", "playbook": "text", "status": "text"}
_ESTIMATE = {
    **_all("decimal", "usd_hour", "usd_month", "network_usd_month", "rest_usd_month", "task_usd_5_min"),
    "rest": {"*": "decimal"},
    **_all("text", "prices_as_of", "prices_region"),
}
_NETWORK = {
    **_all("text", "mode", "since", "known_since"),
    "until": ("text", "null"),
    **_all("whole", "hours", "unused_hours"),
    **_all("usd", "usd_hour", "usd_so_far", "unused_usd"),
    "unused": [_all("text", "from", "to")],
}
_NONE: Shape = {}
_STORED = {
    **_all("text", "kind", "place", "version_id", "fingerprint"),
    "expires_at": ("text", "null"),
    "changed": "bool",
}
_CREDENTIAL = {
    **_all("text", "kind", "place", "fingerprint", "version", "trouble", "weaker"),
    "previous": "bool",
    "expires_at": ("text", "null"),
    "days_left": ("number", "null"),
}
_ROTATION = {
    **_all("text", "current", "step", "old?", "new?", "why?"),
    **_all("number", "age_days", "started_at?", "updated_at?"),
    "hosts?": {"*": "object"},
    "unfinished": "bool",
    "too_old?": "bool",
    "changed?": "bool",
}
_COPIED_HOST = {"copied_at": ("number", "null"), "error": (ERROR["error"], "null")}
_PAST = {
    "host": "text",
    **_all("text", "id", "state"),
    **dict.fromkeys(("batch", "model", "engine", "content", "prompt"), ("text", "null")),
    "labels": ({"*": "text"}, "null"),
    **dict.fromkeys(("cost_usd", "created_at", "finished_at"), ("number", "null")),
}
#: What a task's result has besides, where a container on AWS ran it, or a plan's login paid.
RESULT: Shape = {
    "&": "TaskResult",
    "place?": {
        **_all("text", "name", "id"),
        **dict.fromkeys(("started", "stopped"), ("number", "null")),
        "vcpu": "number",
        "memory_mb": "whole",
        "spot": "bool",
        "usd": ("usd", "null"),
    },
    "residency?": "text",
    "list_usd?": ("number", "text", "null"),
}
_BENT = {**dict.fromkeys(("asked", "used"), dict.fromkeys(("model", "engine"), ("text", "null"))), "why": "text"}
#: A task of its own, which may have gone on at a lower price.
_TASK: Shape = {**RESULT, "bent?": {**_BENT, "way": "text"}}
_CAUSE = {**_all("text", "code", "message", "hint"), "times": "whole", "lines": ["whole"]}
_CONTAINERS = {
    "name": "text",
    "jobs": ["text"],
    **_all("whole", "containers", "attempts"),
    "seconds": "number",
    **_all("usd", "usd", "unsettled_usd"),
    "retries": [{"reason": "text", "times": "whole", "usd": "usd"}],
}
_BATCH = {
    "batch": "text",
    "out": "text",
    **_all("whole", "total", "done", "failed", "cancelled", "left", "unpriced", "uncertain", "twice", "finished_now"),
    **_all("number", "cost_usd", "cost_now_usd", "twice_usd", "seconds", "per_s"),
    "bent?": {"*": "whole"},
    "before": "bool",
    "finished_at": ("number", "null"),
    "failures": [_CAUSE],
    "cut_off": {"times": "whole", "lines": ["whole"]},
    "place?": _CONTAINERS,
    "error?": ERROR["error"],
}
_PLANNED_BATCH = {
    "dry_run": "bool",
    **_all("whole", "tasks", "input_tokens", "counted_tasks", "most_output_tokens", "open_tasks"),
    "uncounted": "text",
    "max_usd": ("number", "null"),
    "prices": [
        {"model": ("text", "null"), "economy": "bool", **dict.fromkeys(("sent_usd", "most_usd"), ("number", "null"))}
    ],
}
_QUEUED = {"id": "text", **dict.fromkeys(("host", "wanted", "hosts_file"), ("text", "null")), "queued_at": "number"}
_RUNNING = {
    **_all("text", "kind", "id", "name", "status", "reason", "batch", "task"),
    "spot": "bool",
    "vcpu": ("number", "text"),
    "memory_mb": "whole",
    "children": ("whole", "object"),
    "made_at": "number",
}
_VERIFIED = _all("text", "name", "about", "verdict", "seen")

#: The document of each verb that is in no struct. `("a", "b")` are two documents of one verb.
SHAPES: dict[str, Shape] = {
    "batch": (_BATCH, _PLANNED_BATCH),
    "cancel": {"tasks": [_all("text", "id", "state")], "unreached": ["text"]},
    "run": _TASK,
    "code": {**RESULT, "repo?": "object", **_all("text", "out?", "transcript?")},
    "again": _TASK,
    "logs": ({"&": "PastTask"}, {"&": "TaskResult"}),
    "wait": {"tasks": [("PastTask", "TaskResult")]},
    "doctor": (
        {"ok": "bool", "checks": [{**_all("text", "name", "host", "state", "detail", "fix"), "ok": ("bool", "null")}]},
        {"command": ["text"], "switch_on": "text"},
    ),
    "down": {**_all("text", "place", "data"), "containers": ["text"]},
    "flush": (
        {
            "results": [{"new": "bool", **_all("text", "id", "host"), "at": "number", "result": "TaskResult"}],
            "waiting": [_QUEUED],
            "problems": ["text"],
        },
        _all("text", "id", "state"),
        {"&": "TaskResult"},
    ),
    "init": {**_all("text", "name", "address"), "written": ["text"], "built": "bool"},
    "list": {"tasks": [_PAST], "more": "bool", "hosts": {"*": _COPIED_HOST}},
    "playbook": ({"playbooks": ["text"]}, _DONE),
    "rotate": _ROTATION,
    "show": {"task": {"&": "PastTask", "host": "text", "copied_at": ("number", "null"), "bent?": _BENT}},
    "up": ({"place": "text", "containers": ["text"], "status": "text"}, _DONE),
    "gateway allow": (
        {"stopped": "bool"},
        {"allowance": {"classes": ["text"], "until": "number", **_all("whole", "limit_pico", "spent_pico")}},
    ),
    "gateway connect": _all("text", "client", "recipe", "token_file"),
    "gateway explain": {
        "id": "text",
        "at": "number",
        "facts": "object",
        "rules": [{"number": "whole", "try": ["text"], "matches": "bool", "why_not": ("text", "null")}],
        "backends": [{**_all("text", "name", "residency"), "refused": ("object", "null"), "state": ("object", "null")}],
        "decision": {
            "backend": ("text", "null"),
            "residency": ("text", "null"),
            "rule": ("whole", "null"),
            "how": "text",
        },
        "used": ["object"],
        "same_again": ("bool", "null", "text"),
    },
    "gateway reload": {"reloaded": "bool"},
    "gateway serve": {"stopped": "bool"},
    "gateway status": {
        **_all("text", "gateway_version", "listen", "terms"),
        "started_at": "number",
        "draining": "bool",
        "open_turns": "whole",
        "states": ["object"],
        "turns": ["object"],
    },
    "gateway token": _all("text", "token", "file"),
    "cloud cancel": {"ended": ["text"], "over": ["text"]},
    "cloud cost": {
        "rows": [
            {
                **_all("text", "id", "kind"),
                "spot": "bool",
                **_all("whole", "containers", "seconds", "unknown"),
                **_all("usd", "compute_usd", "uncertain_usd"),
                "model_usd": ("usd", "null"),
            }
        ],
        "total": _all("usd", "compute_usd", "model_usd", "all_usd", "uncertain_usd"),
        "network": (_NONE, _NETWORK),
        "removed_networks": [_NETWORK],
        "idle": (_NONE, _ESTIMATE),
    },
    "cloud credential check": (
        {"credentials": [_CREDENTIAL], "renewed": [_STORED], "trouble": ["text"]},
        _all("text", "schedule", "text"),
    ),
    "cloud credential put": (
        _STORED,
        {**_all("text", "kind", "place", "rule", "organization", "service_account", "workspace"), "changed": "bool"},
    ),
    "cloud credential remove": _STORED,
    "cloud credential rotate": _ROTATION,
    "cloud credential status": {"credentials": [_CREDENTIAL]},
    "cloud down": {**_all("text", "environment", "account"), "removed": ["text"], "kept": ["text"]},
    "cloud logs": {"version?": "version", "at": "number", "stream": "text", "text": "text"},
    "cloud push": {"uri": "text", "tag": "text", "digest": "text", "changed": "bool"},
    "cloud status": {
        **_all("text", "environment", "account", "region"),
        "stacks": {"*": _all("text", "status", "trouble")},
        "network": (_NONE, _NETWORK),
        "running": [_RUNNING],
        "baked_images": ["text"],
    },
    "cloud up": {
        **_all("text", "environment", "account", "region", "network", "status"),
        "stacks": ["text"],
        "outputs": {"*": "text"},
        "estimate": _ESTIMATE,
    },
    "cloud verify": (
        {"rows": [_VERIFIED], "checks": {"*": "text"}, "most_usd": "decimal", "status": "text"},
        {
            "rows": [_VERIFIED],
            "most_usd": "decimal",
            **_all("text", "status", "farmhand", "region", "image", "id"),
            **_all("whole", "at", "seconds"),
        },
    ),
}
