"""The models of AWS's services, read once by a process that has many sessions of boto3; its events' names as well.

botocore keeps them for each session, and every test has sessions of its own. To read one takes longer than most tests.
Clients of a session share them already, so nothing changes them. Source: botocore/loaders.py.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from typing import Any

from botocore.hooks import EVENT_ALIASES, EventAliaser
from botocore.loaders import JSONFileLoader, Loader


def read_once() -> None:
    """Make this process keep what it has read of botocore's data; call it as often as you like."""
    if getattr(JSONFileLoader, "reads_once", False):
        return
    listed = Loader.list_available_services

    @cache
    def file(path: str) -> Any:
        for name, opened in ((f"{path}.json", open), (f"{path}.json.gz", gzip.open)):
            if os.path.isfile(name):
                with opened(name, "rb") as text:
                    # Without botocore's OrderedDict, which takes four times as long: a dict has its order, too.
                    return json.load(text)
        return None

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
    JSONFileLoader.reads_once = True
