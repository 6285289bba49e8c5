"""What key URLs and vault ids say."""

from __future__ import annotations

import pytest

from shared.errors import Malformed
from shared.keys import KeyId, KeyReference, VaultId
from tests.builders import KEY, KEY_URL, SUBSCRIPTION, VERSION

VAULT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-keys/providers/Microsoft.KeyVault/vaults/kv-kms"


@pytest.mark.parametrize(
    ("url", "version"),
    [
        pytest.param(KEY_URL, None, id="versionless"),
        pytest.param(f"{KEY_URL}/", None, id="trailing-slash"),
        pytest.param(f"{KEY_URL}/{VERSION}", VERSION, id="versioned"),
        pytest.param(f"{KEY_URL}/{VERSION}/", VERSION, id="versioned-trailing-slash"),
        pytest.param(f"{KEY_URL}/{VERSION}".upper(), VERSION, id="upper-case"),
        pytest.param(f"https://KV-kms.Vault.Azure.Net:443/keys/Etcd/{VERSION}", VERSION, id="with-the-port"),
    ],
)
def test_a_key_url_is_read_in_any_casing(url: str, version: str | None) -> None:
    reference = KeyReference.parse(url)

    assert reference == KeyReference(KEY, version)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param(f"http://kv-kms.vault.azure.net/keys/etcd/{VERSION}", id="not-https"),
        pytest.param("https://kv-kms.managedhsm.azure.net/keys/etcd", id="managed-hsm"),
        pytest.param("https://kv-kms.vault.azure.net.evil.example/keys/etcd", id="suffix-in-the-middle"),
        pytest.param("https://evil.example/kv-kms.vault.azure.net/keys/etcd", id="suffix-in-the-path"),
        pytest.param("https://evil.example#kv-kms.vault.azure.net/keys/etcd", id="suffix-in-the-fragment"),
        pytest.param("https://user@kv-kms.vault.azure.net/keys/etcd", id="user-info"),
        pytest.param("https://kv-kms.vault.azure.net:8443/keys/etcd", id="another-port"),
        pytest.param("https://kv-kms.vaultXazure.net/keys/etcd", id="dots-are-dots"),
        pytest.param("https://a.kv-kms.vault.azure.net/keys/etcd", id="one-host-too-many"),
        pytest.param("https://kv-kms.vault.azure.net/keys/etcd ", id="trailing-blank"),
        pytest.param("https://kv-kms.vault.azure.net/keys/etcd\n", id="trailing-newline"),
        pytest.param(f"https://kv-kms.vault.azure.net/secrets/etcd/{VERSION}", id="a-secret"),
        pytest.param("https://kv-kms.vault.azure.net/keys/", id="no-name"),
        pytest.param("https://kv-kms.vault.azure.net/keys/et%2Fcd", id="escaped-name"),
        pytest.param(f"{KEY_URL}/{VERSION[:-1]}", id="version-too-short"),
        pytest.param(f"{KEY_URL}/{VERSION}0", id="version-too-long"),
        pytest.param(f"{KEY_URL}/{VERSION[:-1]}g", id="version-not-hexadecimal"),
        pytest.param(f"{KEY_URL}/{VERSION}/encrypt", id="an-operation"),
        pytest.param("https://-kv.vault.azure.net/keys/etcd", id="vault-starts-with-a-hyphen"),
        pytest.param("https://kv-kms.vault.azure.net/keys/etcd?x=1", id="query"),
        pytest.param("https://\u212av-kms.vault.azure.net/keys/etcd", id="a-letter-that-only-looks-like-k"),
    ],
)
def test_another_url_is_malformed(url: str) -> None:
    with pytest.raises(Malformed, match="not a key of a vault"):
        KeyReference.parse(url)


@pytest.mark.parametrize(
    ("vault", "sound"),
    [
        pytest.param("kv", False, id="two-characters"),
        pytest.param("kv1", True, id="three-characters"),
        pytest.param("k" * 24, True, id="twenty-four-characters"),
        pytest.param("k" * 25, False, id="twenty-five-characters"),
    ],
)
def test_a_vault_name_has_three_to_twenty_four_characters(vault: str, sound: bool) -> None:
    url = f"https://{vault}.vault.azure.net/keys/etcd"

    if sound:
        assert KeyReference.parse(url).key.vault == vault
    else:
        with pytest.raises(Malformed):
            KeyReference.parse(url)


def test_an_overlong_url_is_cut_short_in_the_error() -> None:
    with pytest.raises(Malformed) as raised:
        KeyReference.parse("x" * 100_000)

    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("version", [pytest.param(None, id="versionless"), pytest.param(VERSION, id="versioned")])
def test_a_key_reference_reads_its_own_url(version: str | None) -> None:
    reference = KeyReference(KEY, version)

    assert KeyReference.parse(reference.url) == reference


@pytest.mark.parametrize(
    "resource_id",
    [
        pytest.param(VAULT, id="as-documented"),
        pytest.param(VAULT.lower(), id="lower-case"),
        pytest.param(VAULT.upper(), id="upper-case"),
    ],
)
def test_a_vault_id_is_read_in_any_casing(resource_id: str) -> None:
    assert VaultId.parse(resource_id) == VaultId(SUBSCRIPTION, "rg-keys", "kv-kms")


@pytest.mark.parametrize(
    "resource_id",
    [
        pytest.param("", id="empty"),
        pytest.param(VAULT + "/keys/etcd", id="a-key-below-it"),
        pytest.param(VAULT.replace("vaults", "managedHSMs"), id="a-managed-hsm"),
        pytest.param(VAULT.replace(SUBSCRIPTION, "sub"), id="no-subscription-id"),
        pytest.param(VAULT.replace("rg-keys", "rg/keys"), id="a-slash-in-the-group"),
        pytest.param(VAULT.replace("rg-keys", "g" * 91), id="group-too-long"),
        pytest.param(VAULT + "\n", id="trailing-newline"),
        pytest.param(VAULT + "?x=1", id="query"),
    ],
)
def test_another_resource_id_is_no_vault(resource_id: str) -> None:
    with pytest.raises(Malformed, match="not the resource id of a key vault"):
        VaultId.parse(resource_id)


def test_a_vault_id_reads_its_own_text() -> None:
    vault = VaultId(SUBSCRIPTION, "rg-keys", "kv-kms")

    assert VaultId.parse(str(vault)) == vault


def test_a_key_is_written_as_vault_and_name() -> None:
    assert str(KeyId("kv-kms", "etcd")) == "kv-kms/etcd"
