"""A local host in a process of its own, for tests and the demo."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from local.processes import Child, clean_environment, scratch, wait_until

_READY = re.compile(r"^listening on (http://\S+)$", re.MULTILINE)
_START = timedelta(seconds=60)
_CALL_SECONDS = 60
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as a JSON document."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class HostProcess:
    """A running `python -m local.host` with keys of its own."""

    child: Child
    url: str
    function_key: str
    master_key: str
    eventgrid_key: str

    @classmethod
    def start(
        cls,
        app_dir: Path,
        *,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        port: int = 0,
        log_json: bool = False,
    ) -> Self:
        """Start a host for the app in `app_dir` and return once its triggers run.

        `settings` are the app's; `environment` is the process's own (proxy, certificates, identity). ProcessError with
        the host's words if it does not come up.
        """
        keys = {kind: secrets.token_urlsafe(24) for kind in ("FUNCTION", "MASTER", "EVENTGRID")}
        # Names in `environment` win, so that a host can be started again under the same keys.
        variables = {f"LOCAL_HOST_{kind}_KEY": key for kind, key in keys.items()}
        variables = clean_environment() | variables | dict(environment)
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "local.host",
            "--app",
            app_dir.resolve(),
            "--port",
            str(port),
        ]
        command += ["--settings", _settings_file(settings)]
        if log_json:
            command.append("--log-json")
        child = Child.start(command, name="host", environment=variables, directory=_REPOSITORY)
        ready = child.wait_until_ready(lambda: _READY.search(child.log()), within=_START)
        return cls(
            child=child,
            url=ready.group(1),
            function_key=variables["LOCAL_HOST_FUNCTION_KEY"],
            master_key=variables["LOCAL_HOST_MASTER_KEY"],
            eventgrid_key=variables["LOCAL_HOST_EVENTGRID_KEY"],
        )

    def __enter__(self) -> Self:
        """Return the host; leaving the block stops it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the host."""
        self.stop()

    def webhook(self, function_name: str) -> str:
        """Return the address that Event Grid would be given for a function, key included."""
        query = urlencode({"functionName": function_name, "code": self.eventgrid_key})
        return f"{self.url}/runtime/webhooks/eventgrid?{query}"

    def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call the host at `path` (with its query, if any); a `body` that is not bytes is sent as JSON."""
        sent = dict(headers or {})
        if key is not None:
            sent["x-functions-key"] = key
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_CALL_SECONDS)
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def notify(self, function_name: str, body: Any) -> Answer:
        """Deliver an event, or an array of events, to a function as Event Grid does."""
        address = urlsplit(self.webhook(function_name))
        path = f"{address.path}?{address.query}"
        return self.call("POST", path, body=body, headers={"aeg-event-type": "Notification"})

    def invoke(self, function_name: str, input: Any = None) -> None:
        """Run a function that is not called by HTTP; it runs in the background."""
        body = {} if input is None else {"input": input}
        self._admin("POST", f"/admin/functions/{function_name}", body)

    def advance(self, by: timedelta) -> None:
        """Move the wall clock of the host's process on."""
        self._admin("POST", "/admin/host/clock", {"advance": by.total_seconds()})

    def status(self) -> dict[str, Any]:
        """Return `{"running": n, "functions": {name: {"started", "succeeded", "failed"}}}`."""
        document: dict[str, Any] = self._admin("GET", "/admin/host/status").json()
        return document

    def count(self, function_name: str, what: str = "succeeded") -> int:
        """Return how often a function `started`, `succeeded` or `failed` in this process."""
        return int(self.status()["functions"].get(function_name, {}).get(what, 0))

    def wait_for(
        self, function_name: str, what: str = "succeeded", *, times: int = 1, within: timedelta = timedelta(seconds=60)
    ) -> None:
        """Wait until a function has `started`, `succeeded` or `failed` so often; TimeoutError with the log's tail."""
        try:
            wait_until(
                lambda: self.count(function_name, what) >= times,
                within=within,
                what=f"{function_name} to have {what} {times} times",
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the host's last lines:\n{self.child.tail()}") from error

    def kill(self) -> None:
        """End the host at once, as a crash would."""
        self.child.kill()

    def stop(self) -> int:
        """Ask the host to end, and return its exit code."""
        return self.child.stop()

    def log(self) -> str:
        """Return all that the host and the app have written."""
        return self.child.log()

    def _admin(self, method: str, path: str, body: Any = None) -> Answer:
        answer = self.call(method, path, key=self.master_key, body=body)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.body.decode()}")
        return answer


def _settings_file(settings: Mapping[str, str]) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="settings-", dir=scratch()))
    file = directory / "local.settings.json"
    file.write_text(json.dumps({"IsEncrypted": False, "Values": dict(settings)}), encoding="utf-8")
    return file
