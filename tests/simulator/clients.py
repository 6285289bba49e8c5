"""Raw clients of the simulated Azure: HTTP without an SDK, and an endpoint that Event Grid can call."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import requests

from local.simulator import SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.simulator import Azure

API_VERSION = "2026-08-01"
CLUSTERS = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/managedClusters"
ENABLED = {"kubernetesResourceObjectEncryptionProfile": {"infrastructureEncryption": "Enabled"}}


def cluster_path(name: str, group: str = "rg-apps") -> str:
    return (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}"
        f"/providers/Microsoft.ContainerService/managedClusters/{name}"
    )


class Arm:
    """Plain HTTP to management.azure.com with a token of the app."""

    def __init__(self, azure: Azure) -> None:
        token, _ = azure.identity.token("https://management.azure.com")
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> requests.Response:
        url = path if path.startswith("https://") else f"https://management.azure.com{path}"
        parameters = {} if "api-version=" in url else {"api-version": API_VERSION}
        return self.session.request(
            method, url, params=parameters | dict(query or {}), json=body, headers=dict(headers or {}), timeout=60
        )

    def get(self, path: str, query: Mapping[str, str] | None = None) -> requests.Response:
        return self.call("GET", path, query=query)

    def cluster(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = self.get(cluster_path(name)).json()
        return document

    def put(self, name: str, body: Any, **headers: str) -> requests.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.call("PUT", cluster_path(name), body=body, headers=named)

    def put_profile(self, name: str, profile: dict[str, Any]) -> requests.Response:
        """Read the cluster and put it back with another security profile."""
        document = self.cluster(name)
        document["properties"]["securityProfile"] = profile
        return self.put(name, document, if_match=f'"{document["eTag"]}"')


def refusal(response: requests.Response) -> tuple[int, str, str]:
    """Status, code and text of an ARM error."""
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


@dataclass(frozen=True, slots=True)
class Received:
    """One call to an endpoint."""

    method: str
    headers: Mapping[str, str]
    body: Any


class Endpoint:
    """A subscriber. It shakes hands and answers 200, or what `answers` holds for the notifications to come."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: deque[int] = deque()
        self.shakes_hands = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._responder())
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    @property
    def notifications(self) -> list[Any]:
        """The bodies of the events received, in order."""
        return [call.body for call in self.received if call.headers.get("aeg-event-type") == "Notification"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, call: Received) -> tuple[int, dict[str, str], bytes]:
        self.received.append(call)
        if call.headers.get("aeg-event-type") == "SubscriptionValidation":
            code = call.body[0]["data"]["validationCode"] if self.shakes_hands else "wrong"
            return 200, {}, json.dumps({"validationResponse": code}).encode()
        if call.method == "OPTIONS":
            origin = call.headers["webhook-request-origin"]
            return 200, {"WebHook-Allowed-Origin": origin} if self.shakes_hands else {}, b""
        return self.answers.popleft() if self.answers else 200, {}, b""

    def _responder(endpoint) -> type[BaseHTTPRequestHandler]:
        class Responder(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                call = Received(self.command, headers, json.loads(content) if content else None)
                status, answered, body = endpoint.answer(call)
                self.send_response(status)
                for name, value in {**answered, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_OPTIONS = do_POST

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Responder
