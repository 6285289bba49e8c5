"""How patient the adapters are, and what a service's errors become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ODataV4Format,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest

from local.simulator import SUBSCRIPTION
from shared.access import Roles
from shared.aks import Aks
from shared.announcements import Announcements
from shared.calls import (
    PATIENCE,
    ImpatientRetry,
    OnlyArm,
    ahead,
    read_json,
    read_pages,
    some_at_once,
    translated,
)
from shared.errors import (
    TEXT_LIMIT,
    Conflict,
    EnforcerError,
    Missing,
    Refused,
    ServiceError,
    Throttled,
    Transient,
    Unavailable,
    Unreadable,
)
from shared.identities import Identities
from shared.keyvault import KeyVault


@dataclass
class Answer:
    """As much of an HTTP response as azure-core looks at."""

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = "because"

    def text(self) -> str:
        return "{}"


def raised(
    status: int, *, code: str = "SomeCode", headers: Mapping[str, str] | None = None, writing: bool = False
) -> ServiceError:
    """Our error for a service's answer."""
    error = HttpResponseError("text", response=cast("Any", Answer(status, headers or {})))
    error.error = ODataV4Format({"code": code, "message": "text"})
    with pytest.raises(ServiceError) as caught, translated(writing=writing):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    ("status", "headers", "reading", "writing"),
    [
        pytest.param(400, {}, Unreadable, Refused, id="400"),
        pytest.param(401, {}, Unreadable, Refused, id="401"),
        pytest.param(403, {}, Unreadable, Refused, id="403"),
        pytest.param(404, {}, Unreadable, Refused, id="404"),
        pytest.param(408, {}, Unavailable, Unavailable, id="408"),
        pytest.param(409, {}, Unreadable, Conflict, id="409"),
        pytest.param(412, {}, Unreadable, Conflict, id="412"),
        pytest.param(429, {}, Throttled, Throttled, id="429"),
        pytest.param(429, {"Retry-After": "600"}, Throttled, Throttled, id="429-with-a-time"),
        pytest.param(500, {}, Unavailable, Unavailable, id="500"),
        pytest.param(500, {"Retry-After": "600"}, Unavailable, Unavailable, id="500-with-a-time"),
        pytest.param(502, {}, Unavailable, Unavailable, id="502"),
        pytest.param(503, {}, Unavailable, Unavailable, id="503"),
        pytest.param(503, {"Retry-After": "600"}, Throttled, Throttled, id="503-with-a-time"),
        pytest.param(504, {}, Unavailable, Unavailable, id="504"),
    ],
)
def test_an_answer_becomes_one_of_our_errors(
    status: int, headers: dict[str, str], reading: type[ServiceError], writing: type[ServiceError]
) -> None:
    assert type(raised(status, headers=headers)) is reading
    assert type(raised(status, headers=headers, writing=True)) is writing


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        pytest.param(404, "ResourceNotFound", Missing, id="a-resource"),
        pytest.param(404, "ResourceGroupNotFound", Missing, id="its-group"),
        pytest.param(404, "NotFound", Missing, id="a-resource-as-its-provider-says"),
        pytest.param(404, "VaultNotFound", Missing, id="a-vault"),
        pytest.param(404, "KeyNotFound", Missing, id="a-key"),
        pytest.param(404, "SubscriptionNotFound", Unreadable, id="a-subscription-may-be-out-of-sight"),
        pytest.param(404, "InvalidResourceType", Unreadable, id="a-question-that-is-wrong"),
        pytest.param(404, "", Unreadable, id="no-code"),
        pytest.param(403, "ResourceNotFound", Unreadable, id="another-status"),
        pytest.param(410, "ResourceNotFound", Unreadable, id="gone-is-no-status-of-these-services"),
    ],
)
def test_only_an_answer_that_says_so_means_that_a_thing_does_not_exist(
    status: int, code: str, expected: type[ServiceError]
) -> None:
    assert type(raised(status, code=code)) is expected


def test_what_does_not_exist_can_not_be_written_to() -> None:
    assert type(raised(404, code="ResourceNotFound", writing=True)) is Refused


def test_whoever_cares_only_for_what_can_be_read_need_not_know_what_exists() -> None:
    assert issubclass(Missing, Unreadable)


def test_a_lock_is_no_conflict_that_passes() -> None:
    assert type(raised(HTTPStatus.CONFLICT, code="ScopeLocked", writing=True)) is Refused


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("600", timedelta(minutes=10), id="seconds"),
        pytest.param("0", timedelta(), id="at-once"),
        pytest.param("-5", timedelta(), id="never-negative"),
        pytest.param("1.5", timedelta(seconds=1.5), id="a-fraction"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 GMT", timedelta(), id="a-date-that-is-over"),
        pytest.param("soon", timedelta(seconds=60), id="text"),
        pytest.param("inf", timedelta(seconds=60), id="for-ever"),
        pytest.param(None, timedelta(seconds=60), id="absent"),
    ],
)
def test_a_throttled_call_says_when_to_come_back(header: str | None, expected: timedelta) -> None:
    error = raised(429, headers={} if header is None else {"Retry-After": header})

    assert isinstance(error, Throttled)
    assert error.retry_after == expected


def test_an_error_keeps_the_services_code_and_cuts_its_text_short() -> None:
    error = raised(403, code="AuthorizationFailed")

    assert error.code == "AuthorizationFailed"
    assert len(Unreadable("x", "y" * 100_000).text) == TEXT_LIMIT


def test_an_answer_without_a_code_is_known_by_its_status() -> None:
    with pytest.raises(ServiceError) as caught, translated():
        raise HttpResponseError("text", response=cast("Any", Answer(403)))

    assert caught.value.code == "HTTP 403"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ServiceRequestError("no connection"), id="not-sent"),
        pytest.param(ServiceResponseError("no answer"), id="no-answer"),
        pytest.param(AzureError("something"), id="anything-else"),
        pytest.param(HttpResponseError("no response"), id="an-answer-without-a-status"),
        pytest.param(ClientAuthenticationError("no token"), id="no-token"),
    ],
)
@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
def test_no_clear_answer_is_unavailable(error: AzureError, writing: bool) -> None:
    with pytest.raises(Unavailable), translated(writing=writing):
        raise error


def test_the_class_of_an_sdk_error_does_not_count_its_status_does() -> None:
    error = ResourceExistsError("text", response=cast("Any", Answer(409)))

    with pytest.raises(Conflict), translated(writing=True):
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), EnforcerError("ours")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated():
        raise error

    assert caught.value is error


def test_a_call_that_works_raises_nothing() -> None:
    with translated(writing=True):
        answer = 1

    assert answer == 1


def test_what_passes_by_itself_is_told_from_what_does_not() -> None:
    assert {
        kind for kind in (Throttled, Unavailable, Conflict, Refused, Unreadable) if issubclass(kind, Transient)
    } == {
        Throttled,
        Unavailable,
    }


# retries


def answered(status: int, headers: Mapping[str, str]) -> PipelineResponse[Any, Any]:
    request = HttpRequest("GET", "https://management.azure.com/")
    return PipelineResponse(request, cast("Any", Answer(status, headers)), cast("Any", None))


@pytest.mark.parametrize(
    ("headers", "again"),
    [
        pytest.param({}, True, id="no-time-asked"),
        pytest.param({"Retry-After": "1"}, True, id="a-moment"),
        pytest.param({"Retry-After": "5"}, True, id="exactly-at"),
        pytest.param({"Retry-After": "5.1"}, False, id="just-after"),
        pytest.param({"retry-after": "600"}, False, id="long"),
        pytest.param({"Retry-After": "inf"}, False, id="for-ever"),
        pytest.param({"retry-after-ms": "6000"}, False, id="in-milliseconds"),
        pytest.param({"x-ms-retry-after-ms": "6000"}, False, id="in-milliseconds-as-azure-writes-it"),
        pytest.param({"Retry-After": "soon"}, False, id="text"),
    ],
)
def test_no_worker_sleeps_through_a_long_wait(headers: dict[str, str], again: bool) -> None:
    retry = ImpatientRetry()

    assert PATIENCE == timedelta(seconds=5)  # noqa: SIM300  the constant is what is tested
    assert retry.increment(retry.configure_retries({}), response=answered(429, headers)) is again


def test_attempts_end() -> None:
    retry = ImpatientRetry(retry_total=2)
    settings = retry.configure_retries({})

    answers = [retry.increment(settings, response=answered(503, {})) for _ in range(3)]

    assert answers == [True, True, False]


def test_a_broken_connection_is_tried_again() -> None:
    retry = ImpatientRetry()
    sent: PipelineRequest[Any] = PipelineRequest(HttpRequest("GET", "https://management.azure.com/"), cast("Any", None))

    assert retry.increment(retry.configure_retries({}), response=sent, error=ServiceRequestError("no connection"))


# many calls


async def test_so_many_are_asked_at_the_same_time_and_answered_in_order() -> None:
    asked: list[int] = []
    under_way: list[int] = []

    async def ask(item: int) -> int:
        asked.append(item)
        under_way.append(len(asked))
        await asyncio.sleep(0)
        asked.remove(item)
        return item * 10

    answers = await some_at_once(ask, range(10), 3)

    assert answers == [item * 10 for item in range(10)]
    assert max(under_way) == 3


async def test_of_many_the_first_failure_is_raised_once_all_have_ended() -> None:
    ended: list[int] = []

    async def ask(item: int) -> None:
        await asyncio.sleep(0)
        ended.append(item)
        if item in {1, 2}:
            raise Unavailable("Busy", str(item))

    with pytest.raises(Unavailable, match="1"):
        await some_at_once(ask, range(5), 2)

    assert sorted(ended) == list(range(5))


# where calls go, and what is no answer


@dataclass
class Speaker:
    """A client that gives one answer."""

    said: object

    async def send_request(self, _request: HttpRequest) -> Speaker:
        return self

    def raise_for_status(self) -> None:
        pass

    def json(self) -> object:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def asking(link: str) -> PipelineRequest[Any]:
    return PipelineRequest(HttpRequest("GET", link), cast("Any", None))


@pytest.mark.parametrize(
    "link",
    [
        "https://management.azure.com/subscriptions?api-version=2022-12-01&$skipToken=x",
        "https://management.azure.com:443/subscriptions",
        "https://WestEurope.Management.Azure.com/subscriptions",
    ],
)
def test_the_next_page_is_asked_of_azure_resource_manager(link: str) -> None:
    request = asking(link)

    OnlyArm().on_request(request)

    assert request.http_request.url == link


@pytest.mark.parametrize(
    "link",
    [
        "https://example.com/subscriptions",
        "https://management.azure.com.example.com/subscriptions",
        "https://notmanagement.azure.com/subscriptions",
        "https://management.azure.com@example.com/subscriptions",
        "https://management.azure.com\\@example.com/subscriptions",
        "https://management.azure.com:8443/subscriptions",
        "https://management.azure.com:none/subscriptions",
        "http://management.azure.com/subscriptions",
        "//example.com/subscriptions",
        "/subscriptions",
        "https://[",
        "",
    ],
)
def test_no_other_host_is_asked_whatever_an_answer_says(link: str) -> None:
    with pytest.raises(Unreadable) as caught:
        OnlyArm().on_request(asking(link))

    assert caught.value.code == "ForeignLink"


@pytest.mark.parametrize("said", [ValueError("no JSON"), [], None, "text"])
async def test_an_answer_that_is_no_json_object_is_no_answer(said: object) -> None:
    with pytest.raises(Unavailable):
        await read_json(Speaker(said), "https://management.azure.com/subscriptions")


@pytest.mark.parametrize("said", [{}, {"value": None}, {"value": {}}, {"values": []}])
async def test_a_page_without_its_rows_is_no_empty_one(said: object) -> None:
    with pytest.raises(Unavailable):
        await anext(read_pages(Speaker(said), "https://management.azure.com/subscriptions"))


async def test_the_next_one_is_asked_for_before_one_is_handed_out() -> None:
    asked: list[int] = []

    async def numbers() -> AsyncGenerator[int]:
        for number in range(3):
            asked.append(number)
            yield number

    seen = [(number, tuple(asked)) async for number in ahead(numbers())]

    assert seen == [(0, (0, 1)), (1, (0, 1, 2)), (2, (0, 1, 2))]


async def test_what_fails_ahead_fails_where_it_would_be_handed_out() -> None:
    async def numbers() -> AsyncGenerator[int]:
        yield 0
        raise Unavailable("Away", "the second one")

    given = ahead(numbers())

    assert await anext(given) == 0
    with pytest.raises(Unavailable):
        await anext(given)


@dataclass
class Wallet:
    """A credential that takes down for what it was asked."""

    asked: list[str] = field(default_factory=list)

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        self.asked += scopes
        raise ClientAuthenticationError("no token")


@pytest.mark.parametrize("adapter", [Aks, Announcements, Identities, KeyVault, Roles])
async def test_no_adapter_gets_a_token_for_another_host(adapter: Any) -> None:
    wallet = Wallet()
    async with AioHttpTransport() as transport:
        client = adapter(wallet, transport)._client
        of_subscription = client(SUBSCRIPTION) if adapter is not Announcements else client
        send = getattr(of_subscription, "send_request", None) or of_subscription._send_request

        with pytest.raises(Unreadable):
            await send(HttpRequest("GET", "https://example.com/next"))
        with pytest.raises(ClientAuthenticationError):
            await send(HttpRequest("GET", "https://management.azure.com/next"))

    assert len(wallet.asked) == 1
