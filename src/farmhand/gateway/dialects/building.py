"""The conversation of a Chat request, as the templates of local models take it.

Many of them raise on a system message that is not the first, and on two turns of the user in a row. So leading system
texts are one message, later ones can become part of the user's turn, and consecutive turns of one side are joined, as
the Messages API joins them. What is written for a message never depends on a later one, but that they are joined: so
the prefix that a server has cached stays the same.
"""

from __future__ import annotations

from typing import Any, Literal

_BETWEEN = "\n\n"


class Conversation:
    """The messages, in the order in which they are added."""

    def __init__(self, mid_system: Literal["merge", "system"]) -> None:
        self._mid_system = mid_system
        self._messages: list[dict[str, Any]] = []
        #: Images of tool results. A tool's message has text only, so they follow the last of its row.
        self._images: list[dict[str, Any]] = []

    def system(self, text: str) -> None:
        """Add a system text."""
        self._show_images()
        if not self._messages or (self._messages[-1]["role"] == "system" and len(self._messages) == 1):
            self._join("system", [_part(text)])
        elif self._mid_system == "merge":
            self._join("user", [_part(f"<system-reminder>\n{text}\n</system-reminder>")])
        else:
            self._messages.append({"role": "system", "content": [_part(text)]})

    def user(self, parts: list[dict[str, Any]]) -> None:
        """Add texts and images of the user, in their order."""
        self._show_images()
        self._join("user", parts)

    def assistant(self, text: str, calls: list[dict[str, Any]]) -> None:
        """Add an answer's text and its tool calls. One of nothing but thinking is none: servers refuse it."""
        self._show_images()
        if not text and not calls:
            return
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append({"role": "assistant", "content": ""})
        last = self._messages[-1]
        last["content"] += text
        if calls:
            last.setdefault("tool_calls", []).extend(calls)

    def result(self, call: str, parts: list[dict[str, Any]], *, failed: bool = False) -> None:
        """Add the result of a tool call: its texts here, its images after the results that follow it.

        One that comes late, after words of the user, goes behind its call: templates raise where it is elsewhere.
        """
        texts = [part["text"] for part in parts if part["type"] == "text"]
        images = [part for part in parts if part["type"] != "text"]
        if images and not texts:
            texts.append("The result is an image; it follows.")
        text = ("ERROR: " if failed else "") + "\n".join(texts)
        self._messages.insert(self._behind(call), {"role": "tool", "tool_call_id": call, "content": text})
        self._images += images

    def _behind(self, call: str) -> int:
        """Return the place behind a call, and behind the results that are there; the end if there is no such call."""
        for at in range(len(self._messages) - 1, -1, -1):
            if any(one["id"] == call for one in self._messages[at].get("tool_calls", ())):
                at += 1
                while at < len(self._messages) and self._messages[at]["role"] == "tool":
                    at += 1
                return at
        return len(self._messages)

    def finish(self) -> list[dict[str, Any]]:
        """Return the messages. Content without an image is one text."""
        self._show_images()
        for message in self._messages:
            parts = message["content"]
            if isinstance(parts, list) and all(part["type"] == "text" for part in parts):
                message["content"] = _BETWEEN.join(part["text"] for part in parts)
        return self._messages

    def _show_images(self) -> None:
        images, self._images = self._images, []
        if images:
            self._join("user", images)

    def _join(self, role: str, parts: list[dict[str, Any]]) -> None:
        if self._messages and self._messages[-1]["role"] == role:
            self._messages[-1]["content"] += parts
        else:
            self._messages.append({"role": role, "content": list(parts)})


def _part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def call(ident: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call of an answer."""
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def offer(name: str, description: Any, parameters: Any, strict: Any) -> dict[str, Any]:
    """Return the offer of a tool. What the client left out stays out."""
    function = {"name": name, "description": description, "parameters": parameters, "strict": strict}
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}
