"""The throw-away certificate authority."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from local.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path


def test_a_certificate_names_its_host_and_loads_with_its_key(tmp_path: Path) -> None:
    files = Authority.create(tmp_path).issue("management.azure.com")

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert_file, files.key_file)
    names = _alternative_names(files.cert_file)
    assert names.get_values_for_type(x509.DNSName) == ["management.azure.com"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_is_named_as_an_address(tmp_path: Path, address: str) -> None:
    files = Authority.create(tmp_path).issue(address)

    found = _alternative_names(files.cert_file).get_values_for_type(x509.IPAddress)
    assert [str(value) for value in found] == [address]


def test_all_threads_get_the_same_files_for_a_host(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        issued = set(pool.map(authority.issue, ["kv.vault.azure.net"] * 32))

    assert len(issued) == 1


def test_a_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    files = Authority.create(tmp_path).issue("localhost")

    assert files.key_file.stat().st_mode & 0o077 == 0


def _alternative_names(cert_file: Path) -> x509.SubjectAlternativeName:
    certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
