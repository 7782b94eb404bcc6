"""The webhook's certificates: made at first start, renewed before they end, taken up while connections go on.

Owns the files `ca.crt`, `ca.key`, `tls.crt`, `tls.key` of one directory. Certificates that somebody else put there (no `ca.key`)
are used as they are. Must not know what is served.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.certificate import key_usage, private_pem

CA_VALID = timedelta(days=3650)
SERVER_VALID = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
BACKDATE = timedelta(minutes=5)
"""Clocks of a cluster differ a little."""


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class CertificateFiles(msgspec.Struct, frozen=True):
    """The directory of the four files."""

    directory: Path

    @property
    def ca(self) -> Path:
        """What a client verifies us with; readable by everybody who may enter the directory."""
        return self.directory / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca.key"

    @property
    def server(self) -> Path:
        return self.directory / "tls.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "tls.key"


def ensure_certificates(
    directory: Path, names: Sequence[str], now: datetime | None = None
) -> CertificateFiles:
    """Makes what is missing, what ends within 30 days and what lacks one of `names` (DNS names or addresses). Idempotent.

    Raises OSError, and ValueError for files that are no certificates.
    """
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = CertificateFiles(directory)
    foreign = files.server.exists() and files.server_key.exists() and not files.ca_key.exists()
    if foreign or _server_is_good(files, names, now):
        return files
    _write_server(files, new_server(names, _authority(files, now), now))
    return files


def issue_into(
    directory: Path, names: Sequence[str], authority: Pair, bundle: bytes, now: datetime
) -> CertificateFiles:
    """The files of one replica whose authority is kept elsewhere: `ca.crt` is what clients should trust, its key is not here.
    Idempotent. Raises OSError, and ValueError for files that are no certificates."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = CertificateFiles(directory)
    if not files.ca.exists() or files.ca.read_bytes() != bundle:
        _write(files.ca, bundle, 0o644)
    signer = read_certificate(authority.certificate)
    good = files.server.exists() and files.server_key.exists() and _is_good(files.server, signer, names, now)
    if not good:
        _write_server(files, new_server(names, authority, now))
    return files


def _server_is_good(files: CertificateFiles, names: Sequence[str], now: datetime) -> bool:
    if not all(path.exists() for path in (files.ca, files.ca_key, files.server, files.server_key)):
        return False
    return _is_good(files.server, _read(files.ca), names, now)


def _is_good(server: Path, signer: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    certificate = _read(server)
    if now + RENEW_BEFORE > certificate.not_valid_after_utc or signer.subject != certificate.issuer:
        return False
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(_alternative_names(names)) <= set(found)


def _read(path: Path) -> x509.Certificate:
    try:
        return read_certificate(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a certificate: {error}") from None


def read_certificate(pem: bytes) -> x509.Certificate:
    """The first of a PEM text. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem)


def _authority(files: CertificateFiles, now: datetime) -> Pair:
    """The CA of the directory; a new one where there is none or where it would end before what it signs."""
    if (
        files.ca.exists()
        and files.ca_key.exists()
        and _read(files.ca).not_valid_after_utc > now + SERVER_VALID
    ):
        return Pair(files.ca.read_bytes(), files.ca_key.read_bytes())
    made = new_authority(now)
    _write(files.ca_key, made.key, 0o600)
    _write(files.ca, made.certificate, 0o644)
    return made


def new_authority(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # The serial in the name tells two authorities of one directory apart.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"orbweaver webhook CA {serial:x}"[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    ca = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(ca.public_bytes(serialization.Encoding.PEM), private_pem(key))


def new_server(names: Sequence[str], authority: Pair, now: datetime) -> Pair:
    """Raises ValueError for an authority that cannot sign."""
    ca = read_certificate(authority.certificate)
    ca_key = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not one of an elliptic curve")  # noqa: TRY004 - a content, not a type
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orbweaver webhook")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + SERVER_VALID, ca.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key))


def _write_server(files: CertificateFiles, pair: Pair) -> None:
    _write(files.server_key, pair.key, 0o600)
    _write(files.server, pair.certificate, 0o644)


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    out: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            out.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            out.append(x509.DNSName(name))
    return out


def _write(path: Path, content: bytes, mode: int) -> None:
    """The whole file or none of it, never readable by others in between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class LiveContext:
    """The TLS context of the running server. `refresh` takes up changed files: new connections see them, old ones go on."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self.context = _context(files)
        self._stamp = self._now()

    def _now(self) -> tuple[tuple[int, int, int], ...]:
        found = (path.stat() for path in (self._files.server, self._files.server_key))
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def refresh(self) -> bool:
        """Whether new files were taken up. Raises OSError or ssl.SSLError for a pair that does not fit (yet): the old one stays."""
        stamp = self._now()
        if stamp == self._stamp:
            return False
        _context(self._files)  # a pair that does not fit must not reach the live context half loaded
        self.context.load_cert_chain(self._files.server, self._files.server_key)
        self._stamp = stamp
        return True


def _context(files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.server, files.server_key)
    return context
