"""A stand-in for what Farmhand uses of Lightsail's API, which moto does not have.

Requests and answers are checked by botocore's own model of the service: unknown or missing parameters, wrong types,
names and enumerations are refused. What an instance does comes from the API's reference: it is pending first, its ports
22 and 80 are open to all, its ports and address can be set once it runs, an attached address cannot be released.
"""

# ruff: noqa: N802, N803 - the API's own names
from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from tests.support.serving import serving

_MODEL = botocore.session.get_session().get_service_model("lightsail")
_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/lightsail/")
ACCOUNT = "123456789012"
BUNDLES = [("nano_3_0", 5.0, 298), ("medium_3_0", 24.0, 2000), ("large_3_0", 44.0, 3000)]
BLUEPRINTS = [("debian_12", True, 0), ("ubuntu_24_04", True, 0), ("debian_9", False, 0), ("big_1", True, 2500)]


class Refusal(Exception):
    """An error of the API: its code and its message."""


@dataclass
class FakeLightsail:
    """The API's state in one account, by region. `pending` is how many looks an instance needs to get on."""

    pending: int = 1
    blind: int = 1  # how many calls are answered without host keys
    host_keys: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    created: Callable[[str], object] = lambda _user_data: None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fail: dict[str, list[Refusal]] = field(default_factory=dict)
    things: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    endpoint: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _serial: Any = field(default_factory=lambda: itertools.count(10))

    def start(self) -> None:
        """Serve on a loopback port."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                action = self.headers["X-Amz-Target"].partition(".")[2]
                scope = _SCOPE.search(self.headers.get("Authorization", ""))
                status, answer = outer.answer(action, json.loads(body), scope[1] if scope else "")
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._open = ExitStack()
        self._open.enter_context(serving(self._server))

    def stop(self) -> None:
        """End it."""
        self._open.close()

    def answer(self, action: str, given: dict[str, Any], region: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of one call."""
        with self._lock:
            try:
                operation = _MODEL.operation_model(action)
                _check(given, operation.input_shape)
                self.calls.append((action, given))
                if self.fail.get(action):
                    raise self.fail[action].pop(0)
                answer: dict[str, Any] = getattr(self, f"_{action}")(region, **given)
            except Refusal as error:
                return 400, {"__type": error.args[0], "message": error.args[1]}
            _check(answer, operation.output_shape)
            return 200, answer

    def names(self) -> list[str]:
        """What there is: kind and name, whatever the region."""
        return sorted(f"{kind} {name}" for _, kind, name in self.things)

    def changes(self) -> list[str]:
        """The calls that were not just looks."""
        return [action for action, _ in self.calls if not action.startswith("Get")]

    def instance(self, name: str, region: str = "us-east-1") -> dict[str, Any]:
        """An instance, to be read or tampered with."""
        return self.things[region, "Instance", name]

    # The calls

    def _GetRegions(self, region: str, **_: Any) -> dict[str, Any]:
        zones = [{"zoneName": f"{region}{letter}", "state": "available"} for letter in "ab"]
        return {"regions": [{"name": region, "availabilityZones": zones}]}

    def _GetBundles(self, region: str, **_: Any) -> dict[str, Any]:
        common = {"isActive": True, "supportedPlatforms": ["LINUX_UNIX"], "publicIpv4AddressCount": 1}
        no_ipv4 = {"bundleId": "nano_ipv6_3_0", "price": 3.5, "power": 298} | common | {"publicIpv4AddressCount": 0}
        return {
            "bundles": [{"bundleId": n, "price": usd, "power": power} | common for n, usd, power in BUNDLES] + [no_ipv4]
        }

    def _GetBlueprints(self, region: str, **_: Any) -> dict[str, Any]:
        rows = [{"blueprintId": n, "isActive": on, "minPower": least, "type": "os"} for n, on, least in BLUEPRINTS]
        return {"blueprints": rows}

    def _GetInstance(self, region: str, instanceName: str) -> dict[str, Any]:
        found = self._find(region, "Instance", instanceName)
        state = found["state"]
        if state["name"] in ("pending", "stopping") and found["_looks"] is not None:
            found["_looks"] -= 1
            if found["_looks"] < 0:
                state["name"] = {"pending": "running", "stopping": "stopped"}[state["name"]]
        return {"instance": {key: value for key, value in found.items() if key[0] != "_"}}

    def _CreateInstances(
        self,
        region: str,
        instanceNames: list[str],
        availabilityZone: str,
        blueprintId: str,
        bundleId: str,
        **more: Any,
    ) -> dict[str, Any]:
        (name,) = instanceNames
        if (region, "Instance", name) in self.things:
            raise Refusal("InvalidInputException", f"Some names are already in use: {name}")
        if bundleId not in [each[0] for each in BUNDLES] or availabilityZone[:-1] != region:
            raise Refusal("InvalidInputException", "wrong bundle or zone")
        ports = [{"fromPort": port, "toPort": port, "protocol": "tcp", "cidrs": ["0.0.0.0/0"]} for port in (22, 80)]
        self.things[region, "Instance", name] = {
            "name": name,
            "arn": f"arn:aws:lightsail:{region}:{ACCOUNT}:Instance/{next(self._serial):08d}",
            "blueprintId": blueprintId,
            "bundleId": bundleId,
            "location": {"availabilityZone": availabilityZone, "regionName": region},
            "state": {"code": 0, "name": "pending"},
            "tags": more.get("tags", []),
            "username": "ubuntu" if blueprintId.startswith("ubuntu") else "admin",
            "publicIpAddress": "192.0.2.1",
            "_looks": self.pending,
            "_ports": [each | {"state": "open"} for each in ports],
        }
        self.created(more.get("userData", ""))
        return {"operations": [self._operation(name)]}

    def _StartInstance(self, region: str, instanceName: str) -> dict[str, Any]:
        self._find(region, "Instance", instanceName)["state"]["name"] = "pending"
        return {"operations": []}

    def _DeleteInstance(self, region: str, instanceName: str) -> dict[str, Any]:
        self._running(region, instanceName)
        for (where, kind, _), thing in self.things.items():
            if (where, kind) == (region, "StaticIp") and thing.get("attachedTo") == instanceName:
                _detach(thing)
        del self.things[region, "Instance", instanceName]
        return {"operations": []}

    def _GetInstancePortStates(self, region: str, instanceName: str) -> dict[str, Any]:
        return {"portStates": self._find(region, "Instance", instanceName)["_ports"]}

    def _PutInstancePublicPorts(self, region: str, instanceName: str, portInfos: Any) -> dict[str, Any]:
        self._running(region, instanceName)["_ports"] = [each | {"state": "open"} for each in portInfos]
        return {"operation": self._operation(instanceName)}

    def _GetStaticIp(self, region: str, staticIpName: str) -> dict[str, Any]:
        return {"staticIp": self._find(region, "StaticIp", staticIpName)}

    def _AllocateStaticIp(self, region: str, staticIpName: str) -> dict[str, Any]:
        if (region, "StaticIp", staticIpName) in self.things:
            raise Refusal("InvalidInputException", f"Some names are already in use: {staticIpName}")
        address = self.addresses.pop(0) if self.addresses else f"198.51.100.{next(self._serial)}"
        self.things[region, "StaticIp", staticIpName] = {
            "name": staticIpName,
            "ipAddress": address,
            "isAttached": False,
        }
        return {"operations": []}

    def _AttachStaticIp(self, region: str, staticIpName: str, instanceName: str) -> dict[str, Any]:
        self._running(region, instanceName)
        self._find(region, "StaticIp", staticIpName).update(isAttached=True, attachedTo=instanceName)
        return {"operations": []}

    def _DetachStaticIp(self, region: str, staticIpName: str) -> dict[str, Any]:
        _detach(self._find(region, "StaticIp", staticIpName))
        return {"operations": []}

    def _ReleaseStaticIp(self, region: str, staticIpName: str) -> dict[str, Any]:
        if self._find(region, "StaticIp", staticIpName)["isAttached"]:
            raise Refusal("InvalidInputException", f"{staticIpName} is attached")
        del self.things[region, "StaticIp", staticIpName]
        return {"operations": []}

    def _GetInstanceAccessDetails(self, region: str, instanceName: str, protocol: str) -> dict[str, Any]:
        self._find(region, "Instance", instanceName)
        self.blind -= 1
        keys = [] if self.blind >= 0 else [line.split() for line in self.host_keys]
        found = [{"algorithm": kind, "publicKey": blob, "witnessedAt": 1.0} for kind, blob in keys]
        details = {
            "protocol": protocol,
            "privateKey": "a login that is not ours",
            "certKey": "a login",
            "hostKeys": found,
        }
        return {"accessDetails": details}

    def _find(self, region: str, kind: str, name: str) -> dict[str, Any]:
        try:
            return self.things[region, kind, name]
        except KeyError:
            raise Refusal("NotFoundException", f"The {kind} does not exist: {name}") from None

    def _running(self, region: str, name: str) -> dict[str, Any]:
        found = self._find(region, "Instance", name)
        if found["state"]["name"] not in ("running", "stopped"):
            raise Refusal("OperationFailureException", f"{name} is in a transitional state")
        return found

    def _operation(self, name: str) -> dict[str, Any]:
        return {"id": "1", "resourceName": name, "resourceType": "Instance", "createdAt": time.time()}


def _detach(address: dict[str, Any]) -> None:
    address["isAttached"] = False
    address.pop("attachedTo", None)


def _check(given: Any, shape: Any) -> None:
    report = ParamValidator().validate(given, shape)
    if report.has_errors():
        raise Refusal("InvalidInputException", report.generate_report())
    _check_words(given, shape)


def _check_words(given: Any, shape: Any) -> None:
    """Check what botocore leaves to the service: patterns and enumerations."""
    if shape.type_name == "structure":
        for name, value in given.items():
            _check_words(value, shape.members[name])
    elif shape.type_name == "list":
        for value in given:
            _check_words(value, shape.member)
    elif shape.type_name == "string":
        if shape.enum and given not in shape.enum:
            raise Refusal("InvalidInputException", f"{given!r} is not one of {shape.enum}")
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, given):
            raise Refusal("InvalidInputException", f"{given!r} does not match {pattern}")
