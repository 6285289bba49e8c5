"""The environment, read once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from shared.policy import SecondRole
from shared.settings import BadSettings, Settings
from tests.builders import OTHER_SUBSCRIPTION, SUBSCRIPTION

TABLES = "https://account.table.core.windows.net"
QUEUES = "https://account.queue.core.windows.net"
TOPIC = "https://topic.westeurope-1.eventgrid.azure.net/api/events"
WORKSPACE = "00000000-0000-0000-0000-0000000000e1"
OTHER_WORKSPACE = "00000000-0000-0000-0000-0000000000e2"
SMALLEST = {
    "AzureWebJobsStorage__tableServiceUri": TABLES,
    "AzureWebJobsStorage__queueServiceUri": QUEUES,
}


def test_the_addresses_of_storage_are_enough() -> None:
    settings = Settings.read(SMALLEST)

    assert settings == Settings(
        tables=TABLES,
        queues=QUEUES,
        client_id=None,
        subscriptions=(),
        policy_file=Path("kms-policy.yaml"),
        look_again=timedelta(seconds=60),
        custom_features="",
        notices_topic=None,
        run_command=False,
        second_role=SecondRole.READER,
        log_workspaces=(),
    )


def test_every_setting_is_read() -> None:
    settings = Settings.read(
        SMALLEST
        | {
            "AZURE_CLIENT_ID": "00000000-0000-0000-0000-00000000000a",
            "SUBSCRIPTIONS": f"{SUBSCRIPTION}, {OTHER_SUBSCRIPTION} ,",
            "POLICY_FILE": "other.yaml",
            "LOOK_AGAIN_SECONDS": "1",
            "AKS_CUSTOM_FEATURES": "Microsoft.ContainerService/KMSPMKPreview",
            "NOTICES_TOPIC": TOPIC,
            "SECOND_ROLE": "contributor",
            "LOG_WORKSPACES": f"{WORKSPACE.upper()} ,{OTHER_WORKSPACE},{WORKSPACE}",
            "RUN_COMMAND": "on",
        }
    )

    assert settings.client_id == "00000000-0000-0000-0000-00000000000a"
    assert settings.subscriptions == (SUBSCRIPTION, OTHER_SUBSCRIPTION)
    assert settings.policy_file == Path("other.yaml")
    assert settings.look_again == timedelta(seconds=1)
    assert settings.custom_features == "Microsoft.ContainerService/KMSPMKPreview"
    assert settings.notices_topic == TOPIC
    assert settings.second_role is SecondRole.CONTRIBUTOR
    assert settings.log_workspaces == (WORKSPACE, OTHER_WORKSPACE)
    assert settings.run_command


def test_empty_settings_are_as_good_as_none() -> None:
    optional = [
        "AZURE_CLIENT_ID",
        "SUBSCRIPTIONS",
        "POLICY_FILE",
        "LOOK_AGAIN_SECONDS",
        "SECOND_ROLE",
        "LOG_WORKSPACES",
        "RUN_COMMAND",
    ]
    empty = dict.fromkeys([*optional, "AKS_CUSTOM_FEATURES", "NOTICES_TOPIC"], "")

    assert Settings.read(SMALLEST | empty) == Settings.read(SMALLEST)


def test_a_subscription_that_is_named_twice_is_swept_once() -> None:
    """A run is done when as many shards are done as it has: a shard has one row, however often it is named."""
    twice = f"{SUBSCRIPTION},{SUBSCRIPTION.upper()}"

    assert Settings.read(SMALLEST | {"SUBSCRIPTIONS": twice}).subscriptions == (SUBSCRIPTION,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("AzureWebJobsStorage__tableServiceUri", "", id="no-tables"),
        pytest.param("AzureWebJobsStorage__tableServiceUri", "http://account.table.core.windows.net", id="no-tls"),
        pytest.param("AzureWebJobsStorage__queueServiceUri", "UseDevelopmentStorage=true", id="a-connection-string"),
        pytest.param("SUBSCRIPTIONS", "production", id="a-subscription-by-its-name"),
        pytest.param("SUBSCRIPTIONS", f"{SUBSCRIPTION};{OTHER_SUBSCRIPTION}", id="another-separator"),
        pytest.param("NOTICES_TOPIC", "topic.westeurope-1.eventgrid.azure.net", id="a-topic-by-its-host"),
        pytest.param("NOTICES_TOPIC", TOPIC.replace("https", "http"), id="a-topic-without-tls"),
        pytest.param("SECOND_ROLE", "Key Vault Reader", id="a-role-by-its-name"),
        pytest.param("LOG_WORKSPACES", "log-kms", id="a-workspace-by-its-name"),
        pytest.param("LOG_WORKSPACES", f"{WORKSPACE};{OTHER_WORKSPACE}", id="workspaces-with-another-separator"),
        pytest.param("RUN_COMMAND", "yes", id="neither-on-nor-off"),
        pytest.param("LOOK_AGAIN_SECONDS", "0", id="just-below"),
        pytest.param("LOOK_AGAIN_SECONDS", "3601", id="just-above"),
        pytest.param("LOOK_AGAIN_SECONDS", "-1", id="negative"),
        pytest.param("LOOK_AGAIN_SECONDS", "1.5", id="a-fraction"),
        pytest.param("LOOK_AGAIN_SECONDS", "a minute", id="text"),
        pytest.param("LOOK_AGAIN_SECONDS", "1" * 5000, id="more-digits-than-python-reads"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=name):
        Settings.read(SMALLEST | {name: value})


@pytest.mark.parametrize("seconds", [1, 3600])
def test_the_shortest_and_the_longest_wait_are_allowed(seconds: int) -> None:
    settings = Settings.read(SMALLEST | {"LOOK_AGAIN_SECONDS": str(seconds)})

    assert settings.look_again == timedelta(seconds=seconds)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(BadSettings) as raised:
        Settings.read({"SUBSCRIPTIONS": "x", "LOOK_AGAIN_SECONDS": "x", "NOTICES_TOPIC": "x"})

    assert str(raised.value).count(";") == 4
