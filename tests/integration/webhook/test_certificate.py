"""Certificates on a real disk: who may read them, when they are made anew, what is left alone."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification

from services.webhook.certificate import LiveContext, ensure_certificates

NAMES = ("localhost", "127.0.0.1", "::1")


def test_keys_are_for_root_alone_and_the_authority_is_readable(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path / "state" / "certificates", NAMES)
    assert files.directory.stat().st_mode & 0o777 == 0o700
    for key in (files.ca_key, files.server_key):
        assert key.stat().st_mode & 0o777 == 0o600
    for certificate in (files.ca, files.server):
        assert certificate.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in files.directory.iterdir()) == [
        "ca.crt",
        "ca.key",
        "tls.crt",
        "tls.key",
    ]


def test_what_is_good_stays(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    ensure_certificates(tmp_path, NAMES)
    ensure_certificates(tmp_path, NAMES[:1])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert files.server in before


def test_another_name_makes_another_server_certificate_of_the_same_authority(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    ca, server = files.ca.read_bytes(), files.server.read_bytes()
    ensure_certificates(tmp_path, (*NAMES, "webhook.kube-system.svc"))
    assert files.ca.read_bytes() == ca
    assert files.server.read_bytes() != server


def test_it_is_renewed_a_month_before_it_ends_and_the_authority_before_it_is_too_short(
    tmp_path: Path,
) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    ca, server = files.ca.read_bytes(), files.server.read_bytes()
    now = datetime.now(UTC)
    ensure_certificates(tmp_path, NAMES, now + timedelta(days=330))
    assert files.server.read_bytes() == server
    ensure_certificates(tmp_path, NAMES, now + timedelta(days=340))
    assert files.server.read_bytes() != server
    assert files.ca.read_bytes() == ca
    ensure_certificates(tmp_path, NAMES, now + timedelta(days=3400))
    assert files.ca.read_bytes() != ca


def test_somebody_elses_pair_is_left_alone(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, ("elsewhere",))
    files.ca_key.unlink()
    before = files.server.read_bytes()
    ensure_certificates(tmp_path, NAMES)
    assert files.server.read_bytes() == before


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    files.server.write_text("garbage")
    with pytest.raises(ValueError, match=r"tls\.crt is not a certificate"):
        ensure_certificates(tmp_path, NAMES)


def test_a_pair_that_does_not_fit_leaves_the_live_context_as_it_is(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path / "one", NAMES)
    other = ensure_certificates(tmp_path / "two", NAMES)
    live = LiveContext(files)
    assert not live.refresh()
    files.server.write_bytes(other.server.read_bytes())
    with pytest.raises(ssl.SSLError):
        live.refresh()
    files.server_key.write_bytes(other.server_key.read_bytes())
    assert live.refresh()
    assert not live.refresh()


def test_a_strict_client_accepts_the_chain(tmp_path: Path) -> None:
    """Python 3.13 and Go check what RFC 5280 §4.2 demands of key identifiers and usages."""
    files = ensure_certificates(tmp_path, NAMES)
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    server = x509.load_pem_x509_certificate(files.server.read_bytes())
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([ca]))
        .build_server_verifier(x509.DNSName("localhost"))
    )
    assert verifier.verify(server, []) == [server, ca]
