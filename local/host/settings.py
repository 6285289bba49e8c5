"""What the app asks of its host: host.json, local.settings.json and the environment.

Source: Functions docs, functions-host-json, functions-bindings-storage-queue, functions-app-settings.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from local.host.errors import HostError

MAX_BATCH = 32
_OVERRIDE_PREFIX = "azurefunctionsjobhost__"
_TIME_SPAN = re.compile(r"(?:(?P<days>\d+)\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{2}):(?P<seconds>\d{2}(?:\.\d+)?)")
_SETTING = re.compile(r"%([^%]+)%")


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """How queue triggers are served; times are real ones, the defaults are those of the Functions host."""

    batch_size: int = 16
    new_batch_threshold: int = 8
    max_dequeue_count: int = 5
    retry_delay: timedelta = timedelta(0)
    max_polling_interval: timedelta = timedelta(minutes=1)
    base64: bool = True
    invisibility: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that open the host; an empty one admits nobody."""

    master: str = field(default="", repr=False)
    function: str = field(default="", repr=False)
    eventgrid: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """All that the host reads before it starts; `function_timeout` is None where host.json says -1."""

    keys: Keys = field(default_factory=Keys)
    queues: QueueSettings = field(default_factory=QueueSettings)
    route_prefix: str = "api"
    function_timeout: timedelta | None = timedelta(minutes=10)
    clock_offset: timedelta = timedelta(0)


def load_app_settings(file: Path, environment: MutableMapping[str, str]) -> None:
    """Put the `Values` of a local.settings.json into `environment`; what is there already wins."""
    document = _read_json(file)
    if document.get("IsEncrypted") is True:
        raise HostError(f"{file} is encrypted; write it with IsEncrypted false")
    values = document.get("Values", {})
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise HostError(f"{file}: Values is an object whose values are strings")
    for name, value in values.items():
        environment.setdefault(name, value)


def read_settings(app: Path, environment: Mapping[str, str]) -> HostSettings:
    """Read host.json with the overrides of the environment (AzureFunctionsJobHost__a__b). HostError names a fault."""
    document = _overridden(_read_json(app / "host.json"), environment)
    http = _section(document, "extensions", "http")
    timeout = document.get("functionTimeout", "00:10:00")
    return HostSettings(
        keys=Keys(
            master=environment.get("LOCAL_HOST_MASTER_KEY", ""),
            function=environment.get("LOCAL_HOST_FUNCTION_KEY", ""),
            eventgrid=environment.get("LOCAL_HOST_EVENTGRID_KEY", ""),
        ),
        queues=_queue_settings(_section(document, "extensions", "queues"), environment),
        route_prefix=str(http.get("routePrefix", "api")).strip("/"),
        function_timeout=None if str(timeout) in {"-1", "-1.00:00:00"} else time_span(timeout, "functionTimeout"),
        clock_offset=timedelta(seconds=float(environment.get("LOCAL_HOST_CLOCK_OFFSET_SECONDS", "0"))),
    )


def resolve(text: str, *, of: str) -> str:
    """Replace each %NAME% by the app setting of that name. HostError if there is none."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise HostError(f"{of} names %{name}%, but there is no app setting {name}")
        return os.environ[name]

    return _SETTING.sub(value, text)


def time_span(value: Any, name: str) -> timedelta:
    """Read "hh:mm:ss", "hh:mm:ss.fff" or "d.hh:mm:ss". HostError names `name`."""
    match = _TIME_SPAN.fullmatch(str(value))
    if match is None:
        raise HostError(f"host.json: {name} is hh:mm:ss, not {value!r}")
    parts = match.groupdict(default="0")
    return timedelta(**{unit: float(amount) for unit, amount in parts.items()})


def _queue_settings(section: Mapping[str, Any], environment: Mapping[str, str]) -> QueueSettings:
    batch_size = _whole_number(section, "batchSize", 16, most=MAX_BATCH)
    default_threshold = batch_size // 2 * (os.cpu_count() or 1)
    encoding = str(section.get("messageEncoding", "base64")).lower()
    if encoding not in {"base64", "none"}:
        raise HostError(f"host.json: messageEncoding is base64 or none, not {encoding!r}")
    return QueueSettings(
        batch_size=batch_size,
        new_batch_threshold=_whole_number(section, "newBatchThreshold", default_threshold, least=0),
        max_dequeue_count=_whole_number(section, "maxDequeueCount", 5),
        retry_delay=_whole_seconds(time_span(section.get("visibilityTimeout", "00:00:00"), "visibilityTimeout")),
        max_polling_interval=time_span(section.get("maxPollingInterval", "00:01:00"), "maxPollingInterval"),
        base64=encoding == "base64",
        invisibility=timedelta(seconds=max(1, int(environment.get("LOCAL_HOST_INVISIBILITY_SECONDS", "600")))),
    )


def _whole_number(
    section: Mapping[str, Any], name: str, default: int, *, least: int = 1, most: int | None = None
) -> int:
    try:
        number = int(section.get(name, default))
    except (TypeError, ValueError):
        raise HostError(f"host.json: {name} is a whole number, not {section[name]!r}") from None
    if number < least or (most is not None and number > most):
        raise HostError(f"host.json: {name} is at least {least}" + (f" and at most {most}" if most else ""))
    return number


def _whole_seconds(span: timedelta) -> timedelta:
    """Storage queues count whole seconds: round up."""
    return timedelta(seconds=math.ceil(span.total_seconds()))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HostError(f"{file} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise HostError(f"{file} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise HostError(f"{file} is not a JSON object")
    return document


def _section(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the object at `path`; names match whatever their case, as in .NET configuration."""
    here: Any = document
    for name in path:
        here = next((value for key, value in here.items() if key.lower() == name.lower()), {})
        if not isinstance(here, dict):
            raise HostError(f"host.json: {'.'.join(path)} is an object")
    return dict(here)


def _overridden(document: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    for name, value in environment.items():
        if name.lower().startswith(_OVERRIDE_PREFIX):
            _set(document, name[len(_OVERRIDE_PREFIX) :].split("__"), value)
    return document


def _set(document: dict[str, Any], path: list[str], value: str) -> None:
    here = document
    for name in path[:-1]:
        here = here.setdefault(_spelled(here, name), {})
        if not isinstance(here, dict):
            raise HostError(f"host.json: {name} is not an object, so {'__'.join(path)} can't be set in it")
    here[_spelled(here, path[-1])] = value


def _spelled(section: Mapping[str, Any], name: str) -> str:
    """Return the section's own spelling of `name`."""
    return next((key for key in section if key.lower() == name.lower()), name)
