"""The production worker library, driven in this process: it indexes the app and runs its functions.

One app per process: the library and the app keep their state in modules.
Source: azure-functions-runtime 1.3.0, handle_event.py and native_invocation.py (the entry without protobuf).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import azure_functions_runtime
from azure_functions_runtime import native_invocation
from azure_functions_runtime.bindings.datumdef import Datum

from local.host.errors import HostError

__all__ = ["Attempt", "Datum", "Function", "Result", "Retry", "Worker"]

type Binding = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Retry:
    """A function's retry policy; `most` is -1 for ever, `longest` is None where the delay is fixed."""

    most: int
    shortest: timedelta
    longest: timedelta | None

    def delay(self, attempt: int) -> timedelta:
        """Return how long to wait before the given attempt, 1 being the first retry."""
        if self.longest is None:
            return self.shortest
        doublings = min(attempt - 1, 31)  # beyond that every policy has reached its longest delay
        doubled: timedelta = self.shortest * 2**doublings
        return min(self.longest, doubled)


@dataclass(frozen=True, slots=True)
class Function:
    """One indexed function: its trigger, what it sends, and how often it may be tried again."""

    name: str
    id: str
    trigger: Binding
    outputs: Mapping[str, Binding]
    retry: Retry | None

    @property
    def kind(self) -> str:
        """The trigger's type, such as `queueTrigger`."""
        return str(self.trigger["type"])

    @property
    def parameter(self) -> str:
        """The name of the parameter that takes the trigger's payload."""
        return str(self.trigger["name"])


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which try of an invocation this is: 0 of `most` at first."""

    number: int = 0
    most: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What an invocation came to; `error` is None if it succeeded."""

    value: Datum | None = None
    outputs: Sequence[tuple[str, Datum]] = field(default_factory=tuple)
    error: str | None = None


def _record(name: str, **constants: Any) -> type:
    """Return a class that keeps its keyword arguments, as the generated protobuf classes do."""

    def keep(self: Any, **fields: Any) -> None:
        vars(self).update(fields)

    return type(name, (), {"__init__": keep, **constants})


_PROTOS = SimpleNamespace(
    StatusResult=_record("StatusResult", Failure=0, Success=1, Cancelled=2),
    RpcException=_record("RpcException"),
    WorkerMetadata=_record("WorkerMetadata", custom_properties={}),
    WorkerInitResponse=_record("WorkerInitResponse"),
    FunctionMetadataResponse=_record("FunctionMetadataResponse"),
    FunctionLoadResponse=_record("FunctionLoadResponse"),
    BindingInfo=_record("BindingInfo", out=1, inout=2, undefined=0, string=1, binary=2, stream=3),
    RpcRetryOptions=_record("RpcRetryOptions"),
    RpcFunctionMetadata=_record("RpcFunctionMetadata"),
)


class Worker:
    """The functions of one app, ready to be invoked."""

    def __init__(self, functions: Sequence[Function]) -> None:
        """Take indexed functions; `Worker.load` is the usual way."""
        self.functions = tuple(functions)

    @classmethod
    async def load(cls, app: Path) -> Self:
        """Index the app in directory `app`. HostError with the worker's own text if it refuses, or finds nothing."""
        sys.path.insert(0, str(app))
        os.chdir(app)  # as in production, where the app's own directory is the working directory
        azure_functions_runtime.start_threadpool_executor()
        loaded = await azure_functions_runtime.worker_init_request(_init_request(app))
        if loaded.result.status != _PROTOS.StatusResult.Success:
            raise HostError(f"the worker refused the app, so none of its functions runs:\n{_told(loaded.result)}")
        answer = await azure_functions_runtime.functions_metadata_request(SimpleNamespace())
        if not answer.function_metadata_results:
            raise HostError(f"there are no functions in {app}")
        return cls([_function(metadata) for metadata in answer.function_metadata_results])

    async def invoke(
        self,
        function: Function,
        payload: Datum,
        metadata: Mapping[str, Datum],
        *,
        invocation_id: str,
        attempt: Attempt,
    ) -> Result:
        """Run `function` once, in a task of its own: the library sets the invocation id in the task's context."""
        succeeded, value, outputs, error, _ = await native_invocation.invocation_request_native(
            invocation_id,
            function.id,
            [(function.parameter, payload)],
            dict(metadata),
            retry_count=attempt.number,
            max_retry_count=attempt.most,
            retry_exception=attempt.error,
        )
        if not succeeded:
            return Result(error=error or "the function failed without a word")
        return Result(value=value, outputs=tuple(outputs))

    def close(self) -> None:
        """Wait for running synchronous functions and end their threads."""
        azure_functions_runtime.stop_threadpool_executor()


def _init_request(app: Path) -> SimpleNamespace:
    init = SimpleNamespace(capabilities={}, function_app_directory=str(app))
    return SimpleNamespace(
        request=SimpleNamespace(worker_init_request=init),
        properties={"protos": _PROTOS, "host": "127.0.0.1"},
    )


def _told(result: Any) -> str:
    """Return the refusal with its traceback, which names the line of the app."""
    exception = result.exception
    return f"{exception.message}\n{exception.stack_trace}".rstrip()


def _function(metadata: Any) -> Function:
    bindings = [json.loads(each) for each in metadata.raw_bindings]
    trigger = next(each for each in bindings if each["type"].endswith("Trigger"))
    # A direction is spelled "OUT" or, for some bindings, as the enum's number.
    outputs = {each["name"]: each for each in bindings if str(each.get("direction")).upper() in {"OUT", "1"}}
    return Function(
        name=metadata.name,
        id=metadata.function_id,
        trigger=trigger,
        outputs=outputs,
        retry=_retry(metadata.retry_options),
    )


def _retry(options: Any) -> Retry | None:
    if options is None:
        return None
    if options.retry_strategy == "fixed_delay":
        return Retry(most=options.max_retry_count, shortest=options.delay_interval, longest=None)
    return Retry(most=options.max_retry_count, shortest=options.minimum_interval, longest=options.maximum_interval)
