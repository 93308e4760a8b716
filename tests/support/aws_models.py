"""The models of AWS's services, read once by a process that has many sessions of boto3; its events' names as well.

botocore keeps them for each session, and every test has sessions of its own. To read one takes longer than most tests.
Clients of a session share them already, so nothing changes them but S3's. Source: botocore/loaders.py, handlers.py.

Of the rest of a new client's time a third goes into its table of event handlers: whether each function takes **kwargs,
which is inspected each time, and a copy that goes by copy.copy. Source: botocore/hooks.py.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from inspect import CO_VARKEYWORDS
from typing import Any

from botocore import hooks
from botocore.hooks import EVENT_ALIASES, EventAliaser, NodeList
from botocore.loaders import JSONFileLoader, Loader


def read_once() -> None:
    """Make this process keep what it has read of botocore's data; call it as often as you like."""
    if getattr(JSONFileLoader, "reads_once", False):
        return
    listed = Loader.list_available_services

    def read(path: str) -> Any:
        for name, opened in ((f"{path}.json", open), (f"{path}.json.gz", gzip.open)):
            if os.path.isfile(name):
                with opened(name, "rb") as text:
                    # Without botocore's OrderedDict, which takes four times as long: a dict has its order, too.
                    return json.load(text)
        return None

    kept = cache(read)

    def file(path: str) -> Any:
        # botocore takes the bucket out of the addresses in a client's model of S3, and moto reads them in its own.
        return (read if f"{os.sep}s3{os.sep}" in path else kept)(path)

    names: dict[tuple[str, ...], Any] = {}

    def services(self: Loader, type_name: str) -> Any:
        places = (type_name, *self.search_paths)
        if places not in names:
            names[places] = listed(self, type_name)
        return names[places]

    begin = EventAliaser.__init__
    aliases: dict[str, str] = {}

    def with_known_names(self: EventAliaser, *given: Any) -> None:
        begin(self, *given)
        if self._event_aliases == EVENT_ALIASES:
            self._alias_name_cache = aliases

    EventAliaser.__init__ = with_known_names
    JSONFileLoader.load_file = lambda _self, path: file(path)
    Loader.list_available_services = services
    inspected = hooks.accepts_kwargs

    def takes_any(handler: Any) -> Any:
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        return inspected(handler) if code is None else code.co_flags & CO_VARKEYWORDS

    hooks.accepts_kwargs = takes_any
    hooks._PrefixTrie._recursive_copy = lambda _self, node: _copied(node)
    JSONFileLoader.reads_once = True


def _copied(node: dict[str, Any]) -> dict[str, Any]:
    copied = node.copy()
    for key, value in node.items():
        if type(value) is dict:
            copied[key] = _copied(value)
        elif type(value) is NodeList:
            copied[key] = NodeList(*[part.copy() for part in value])
    return copied
