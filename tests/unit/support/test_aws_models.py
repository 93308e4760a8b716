"""What makes clients of boto3 cheaper in tests changes nothing about them."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from botocore import hooks
from botocore.hooks import HierarchicalEmitter
from botocore.loaders import Loader

from tests.support import aws_models

aws_models.read_once()


class Handler:
    def method(self, name: str, **more: Any) -> str:
        return name

    def __call__(self, **more: Any) -> str:
        return "called"


def test_a_copied_table_of_handlers_is_another_one() -> None:
    said: list[str] = []

    def teller(text: str) -> Any:
        return lambda **_: said.append(text)

    first = HierarchicalEmitter()
    first.register("a.b", teller("both"))
    first.register_last("a.b.*", teller("last"))
    gone = teller("gone")
    first.register_first("a", gone)
    second = copy.copy(first)
    second.register("a.b", teller("second"))
    second.unregister("a", gone)
    first.register("a.c", teller("first"))
    for emitter, event, wanted in (
        (first, "a.b.x", ["last", "both", "gone"]),
        (second, "a.b.x", ["last", "both", "second"]),
        (first, "a.c", ["first", "gone"]),
        (second, "a.c", []),
    ):
        said.clear()
        emitter.emit(event)
        assert said == wanted, event


def test_functions_that_take_anything_are_known_as_before() -> None:
    def takes(first: int, **more: Any) -> None: ...

    def takes_not(first: int, *, more: int = 1) -> None: ...

    for handler in (takes, takes_not, Handler().method, Handler.method, Handler(), dict.get):
        wanted = inspect.getfullargspec(handler)[2] is not None
        assert bool(hooks.accepts_kwargs(handler)) is wanted, handler


def test_what_a_client_of_s3_does_to_its_model_is_its_own() -> None:
    one, other = (Loader().load_service_model("s3", "service-2") for _ in range(2))
    one["operations"]["PutObject"]["http"]["requestUri"] = ""
    assert other["operations"]["PutObject"]["http"]["requestUri"] == "/{Bucket}/{Key+}"
    same = [Loader().load_service_model("sqs", "service-2") for _ in range(2)]
    assert same[0] is same[1]
