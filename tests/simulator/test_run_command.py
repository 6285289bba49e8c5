"""Commands that ARM runs in a simulated cluster: the app's own, and what becomes of the secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.simulator import Azure
from local.simulator.aks.run_command import ENTRA_SERVER, SHAPE, Spoiling
from shared.keys import KeyId
from shared.reencryption import Reencryption, command
from tests.simulator.clients import Arm, cluster_path, refusal

if TYPE_CHECKING:
    import requests

    from local.simulator import Simulator
    from local.simulator.aks import SimulatedCluster

MINUTE = timedelta(minutes=1)
KEY = KeyId("kv-kms", "etcd")
RUN = cluster_path("aks-1") + "/runCommand"


def text(chunk: int, chunks: int) -> str:
    return command(Reencryption(KEY, "0" * 32, chunk, chunks))


@pytest.fixture
def cluster(azure: Azure) -> SimulatedCluster:
    """A legacy cluster with one secret on the first of two versions, which it has left."""
    vault = azure.keyvault.add_vault("kv-kms")
    key = azure.keyvault.add_key(vault, "etcd")
    found = azure.aks.add("aks-1", encryption="legacy", key_id=key.uri_of(key.current.version))
    azure.access.assign(found.principal_id, "Key Vault Crypto User", vault.id)
    version = azure.keyvault.rotate(vault, key)
    kms = {"enabled": True, "keyId": key.uri_of(version), "keyVaultNetworkAccess": "Public"}
    azure.aks.change(
        found.id, lambda document: document["properties"].update(securityProfile={"azureKeyVaultKms": kms})
    )
    return found


def start(arm: Arm, chunk: int = 1, chunks: int = 1, **more: Any) -> requests.Response:
    return arm.call("POST", RUN, body={"command": text(chunk, chunks), **more})


def result(azure: Azure, arm: Arm, started: requests.Response) -> dict[str, Any]:
    azure.clock.advance(MINUTE)
    found = arm.get(started.headers["Location"])
    assert found.status_code == 200
    properties: dict[str, Any] = found.json()["properties"]
    return properties


def versions(azure: Azure, cluster: SimulatedCluster) -> list[str | None]:
    return [one.kek.version if one.kek else None for one in azure.aks.secrets.secrets_of(cluster)]


def current(cluster: SimulatedCluster) -> str:
    key_id: str = cluster.security_profile["azureKeyVaultKms"]["keyId"]
    return key_id.rpartition("/")[2]


def test_a_command_is_accepted_runs_for_a_while_and_then_has_a_result(
    azure: Azure, arm: Arm, cluster: SimulatedCluster
) -> None:
    started = start(arm)

    assert (started.status_code, started.content) == (202, b"")
    running = arm.get(started.headers["Location"])
    assert (running.status_code, running.content) == (202, b"")
    assert versions(azure, cluster) != [current(cluster)]
    ended = result(azure, arm, started)
    assert (ended["provisioningState"], ended["exitCode"]) == ("Succeeded", 0)
    assert ended["logs"] == "kms-rewrite chunk=1/1 listed=1 rewritten=1 conflicts=0 failed=0 end\n"
    assert versions(azure, cluster) == [current(cluster)]


def test_a_count_writes_nothing(azure: Azure, arm: Arm, cluster: SimulatedCluster) -> None:
    azure.aks.write_secret(cluster, "more", namespace="team-a")
    before = azure.aks.secrets.secrets_of(cluster)

    ended = result(azure, arm, start(arm, 0, 0))

    assert ended["logs"] == "kms-rewrite chunk=0/0 listed=2 rewritten=0 conflicts=0 failed=0 end\n"
    assert azure.aks.secrets.secrets_of(cluster) == before


def test_all_chunks_together_rewrite_every_secret_once(azure: Azure, arm: Arm, cluster: SimulatedCluster) -> None:
    for number in range(20):
        azure.aks.write_secret(cluster, "s", namespace=f"team-{number}")

    listed = [
        int(result(azure, arm, start(arm, chunk, 3))["logs"].partition("listed=")[2].partition(" ")[0])
        for chunk in (1, 2, 3)
    ]

    assert sum(listed) == 21
    assert set(versions(azure, cluster)) == {current(cluster)}


@pytest.mark.parametrize(
    ("how", "state", "exit_code", "logs"),
    [
        pytest.param(
            Spoiling.HALF,
            "Succeeded",
            1,
            "kms-rewrite chunk=1/1 listed=1 rewritten=0 conflicts=0 failed=1 end\n",
            id="half",
        ),
        pytest.param(
            Spoiling.CONFLICTS,
            "Succeeded",
            1,
            "kms-rewrite chunk=1/1 listed=1 rewritten=0 conflicts=1 failed=0 end\n",
            id="conflicts",
        ),
        pytest.param(Spoiling.CUT, "Succeeded", 0, "kms-rewrite chunk=1/1 listed=1 rew", id="cut"),
        pytest.param(Spoiling.EXIT, "Succeeded", 3, "", id="exit"),
        pytest.param(Spoiling.NO_POD, "Failed", None, None, id="no-pod"),
    ],
)
def test_a_command_goes_wrong_as_it_was_told(
    azure: Azure,
    arm: Arm,
    cluster: SimulatedCluster,  # noqa: ARG001  it has to be there
    how: Spoiling,
    state: str,
    exit_code: int | None,
    logs: str | None,
) -> None:
    azure.aks.commands.spoil_next(how)

    ended = result(azure, arm, start(arm))

    assert (ended["provisioningState"], ended.get("exitCode")) == (state, exit_code)
    assert logs is None or ended["logs"].startswith(logs)


def test_a_command_that_hangs_never_ends(azure: Azure, arm: Arm, cluster: SimulatedCluster) -> None:
    azure.aks.commands.spoil_next(Spoiling.HANG)
    started = start(arm)

    azure.clock.advance(timedelta(days=1))

    assert arm.get(started.headers["Location"]).status_code == 202
    assert versions(azure, cluster) != [current(cluster)]


def test_a_result_that_is_lost_is_not_found(
    azure: Azure,
    arm: Arm,
    cluster: SimulatedCluster,  # noqa: ARG001  it has to be there
) -> None:
    azure.aks.commands.spoil_next(Spoiling.LOST)
    started = start(arm)

    azure.clock.advance(MINUTE)

    assert refusal(arm.get(started.headers["Location"]))[:2] == (404, "NotFound")


@pytest.mark.parametrize(
    ("properties", "status", "code"),
    [
        pytest.param({"apiServerAccessProfile": {"disableRunCommand": True}}, 400, "BadRequest", id="disabled"),
        pytest.param({"aadProfile": {"managed": True}}, 400, "MissingAADClusterToken", id="no-token"),
        pytest.param({"powerState": {"code": "Stopped"}}, 409, "OperationNotAllowed", id="stopped"),
    ],
)
def test_a_cluster_refuses_a_command(
    cluster: SimulatedCluster, arm: Arm, properties: dict[str, Any], status: int, code: str
) -> None:
    cluster.document["properties"].update(properties)

    assert refusal(start(arm))[:2] == (status, code)


def test_a_token_for_aks_lets_the_command_into_a_cluster_that_asks_entra(
    azure: Azure, arm: Arm, cluster: SimulatedCluster
) -> None:
    cluster.document["properties"]["aadProfile"] = {"managed": True}
    good, _ = azure.identity.token(ENTRA_SERVER)
    wrong, _ = azure.identity.token("https://management.azure.com")

    assert result(azure, arm, start(arm, clusterToken=wrong))["exitCode"] == 3
    assert result(azure, arm, start(arm, clusterToken=good))["exitCode"] == 0
    assert good not in str(azure.journal.calls)


def test_without_a_ready_pool_the_pod_does_not_start(azure: Azure, arm: Arm, cluster: SimulatedCluster) -> None:
    for pool in cluster.document["properties"]["agentPoolProfiles"]:
        pool["count"] = 0

    assert result(azure, arm, start(arm))["provisioningState"] == "Failed"


def test_a_namespace_with_a_secret_that_can_not_be_read_fails_as_a_whole(
    azure: Azure, arm: Arm, cluster: SimulatedCluster
) -> None:
    (vault,) = azure.keyvault.vaults.values()
    (key,) = vault.keys.values()
    first = next(version for version in key.versions if version != current(cluster))
    azure.keyvault.set_enabled(key, first, enabled=False)

    assert result(azure, arm, start(arm))["provisioningState"] == "Failed", "the API server is down"
    assert versions(azure, cluster) == [first]


def test_another_command_is_not_simulated(simulator: Simulator) -> None:
    azure = simulator.azure = Azure()
    azure.aks.add("aks-1")
    arm = Arm(azure)

    with arm.session:
        answer = arm.call("POST", RUN, body={"command": "kubectl get secrets -A -o yaml"})

    assert answer.status_code == 501
    assert len(azure.journal.unknown) == 1


def test_a_command_that_has_ended_by_the_time_of_the_answer_is_answered_with_its_result(
    azure: Azure, arm: Arm, cluster: SimulatedCluster
) -> None:
    azure.aks.commands.duration = timedelta()

    started = start(arm)

    assert (started.status_code, "Location" in started.headers) == (200, False)
    said = started.json()
    assert said["properties"]["exitCode"] == 0
    assert arm.get(f"{cluster_path('aks-1')}/commandResults/{said['id']}").json() == said
    assert versions(azure, cluster) == [current(cluster)]


def test_a_command_ends_with_its_cluster(azure: Azure, arm: Arm, cluster: SimulatedCluster) -> None:
    started = start(arm)
    azure.aks.delete(cluster.id)

    azure.clock.advance(MINUTE)

    assert arm.get(started.headers["Location"]).status_code == 404


def test_the_shape_of_the_app_s_command_is_known() -> None:
    found = SHAPE.match(text(12, 34))

    assert found is not None
    assert found.groups() == ("12", "34")


def test_an_action_can_be_refused(azure: Azure, arm: Arm, cluster: SimulatedCluster) -> None:
    azure.permissions.refuse("Microsoft.ContainerService/managedClusters/runCommand/action", scope=cluster.id)

    status, code, said = refusal(start(arm))

    assert (status, code) == (403, "AuthorizationFailed")
    assert cluster.id.lower() in said.lower()
