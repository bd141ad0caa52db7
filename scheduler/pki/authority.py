"""The authority in its folder: made once, issues, renews, revokes, and remembers what it issued.

ca.key                  its key, mode 0600
ca.pem                  the trust file: its certificate and what it revoked
issued/<serial>.pem     every certificate it ever issued
revoked/<serial>        empty; its time is when the certificate was revoked
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from proxy_worker.contract.errors import ConfigurationError, ConflictError, CredentialError, NotFoundError
from scheduler.pki.certificates import (
    AUTHORITY_DAYS,
    PEER_DAYS,
    Peer,
    certify,
    key_pem,
    make_authority,
    now_utc,
    peer_of,
    revocations,
)
from scheduler.pki.files import PRIVATE, private_folder, write_whole

EXPIRES_SOON: Final = timedelta(days=30)
AUTHORITY_EXPIRES_SOON: Final = timedelta(days=180)


class NoAuthorityError(NotFoundError):
    """The fleet has no authority yet."""


class AuthorityExistsError(ConflictError):
    """The fleet has an authority already, and a second would be trusted by nobody."""


class AuthorityDamagedError(CredentialError):
    """The authority's own files can't be used."""


class PkiFolderError(ConfigurationError):
    """Certificates or keys can't be kept where they should be."""


class NoCertificateError(NotFoundError):
    """No certificate that is valid was issued to a peer of that name."""


class CertificateExistsError(ConflictError):
    """A peer of that name has a certificate that is still valid."""


@dataclass(frozen=True)
class Issued:
    """What the authority remembers of a certificate."""

    peer: Peer
    serial: int
    since: datetime
    until: datetime
    revoked_at: datetime | None
    replaced: bool
    """Whether a newer one was issued for the same name."""

    def state(self, now: datetime) -> str:
        """`valid`, `expires soon`, `expired`, `revoked` or `replaced`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.until <= now:
            return "expired"
        if self.replaced:
            return "replaced"
        return "expires soon" if self.until - now < EXPIRES_SOON else "valid"


@dataclass(frozen=True)
class Bundle:
    """What a peer gets. The authority keeps no copy of `key`."""

    issued: Issued
    certificate: bytes
    key: bytes
    trust: bytes


class Authority:
    """Opened from its folder; several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        """Raises `NoAuthorityError` and `AuthorityDamagedError`."""
        self.folder = folder
        try:
            self._key = _private_key((folder / "ca.key").read_bytes())
            self.certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        except FileNotFoundError as error:
            raise NoAuthorityError(
                f"authority in {folder}",
                why=f"there is no {error.filename}",
                remedy="Make one with `scheduler pki init`.",
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise AuthorityDamagedError(
                f"authority in {folder}", why=str(error), remedy="Restore that folder from a backup."
            ) from error

    @classmethod
    def make(cls, folder: Path, *, name: str, days: int = AUTHORITY_DAYS) -> Self:
        """A new authority; raises `AuthorityExistsError`, and `PkiFolderError` when it can't be kept."""
        with _kept(folder):
            private_folder(folder)
            with _locked(folder):
                if (folder / "ca.key").exists():
                    raise AuthorityExistsError(
                        f"authority in {folder}", why="there is one", remedy="See it with `scheduler pki list`."
                    )
                key, certificate = make_authority(name, days, now_utc())
                for inner in ("issued", "revoked"):
                    private_folder(folder / inner)
                write_whole(folder / "ca.pem", _trust(certificate, key, []))
                write_whole(folder / "ca.key", key_pem(key), PRIVATE)  # last: with it, the authority exists
        return cls(folder)

    def expires_soon(self, now: datetime) -> bool:
        """Whether its own time is nearly over: no certificate outlives it."""
        return self.certificate.not_valid_after_utc - now < AUTHORITY_EXPIRES_SOON

    @property
    def trust(self) -> bytes:
        """The trust file: what peers verify each other with."""
        return (self.folder / "ca.pem").read_bytes()

    def issue(self, peer: Peer, *, days: int = PEER_DAYS) -> Bundle:
        """A certificate for a name that has none that is valid; raises `CertificateExistsError`."""
        with _kept(self.folder), _locked(self.folder):
            if self._current(peer.name) is not None:
                raise CertificateExistsError(
                    f"certificate for {peer.name}",
                    why="one that was issued is still valid",
                    remedy=f"Use `scheduler pki renew {peer.name}`, or revoke that one first.",
                )
            return self._certify(peer, days)

    def renew(self, name: str, *, days: int = PEER_DAYS, addresses: tuple[str, ...] | None = None) -> Bundle:
        """A new key and certificate for the same peer; the old one stays valid until it expires.

        `addresses` replace those that it had. Raises `NoCertificateError`.
        """
        with _kept(self.folder), _locked(self.folder):
            peer = self._newest(name).peer
            return self._certify(peer if addresses is None else replace(peer, addresses=addresses), days)

    def issue_or_renew(self, peer: Peer, *, days: int = PEER_DAYS) -> Bundle:
        """A certificate for a peer, whatever was issued before."""
        with _kept(self.folder), _locked(self.folder):
            return self._certify(peer, days)

    def revoke(self, name: str) -> tuple[Issued, ...]:
        """Revoke every certificate of that name that is still valid; the trust file says so from then on.

        Raises `NoCertificateError` when there is none.
        """
        now = now_utc()
        with _kept(self.folder), _locked(self.folder):
            valid = [one for one in self.issued() if one.peer.name == name and one.state(now) in _USABLE]
            if not valid:
                raise NoCertificateError(
                    f"certificate for {name}",
                    why="none is valid",
                    remedy="`scheduler pki list` shows what was issued.",
                )
            for one in valid:
                (self.folder / "revoked" / f"{one.serial:x}").touch(mode=PRIVATE)
            self._write_trust()
        return tuple(replace(one, revoked_at=now) for one in valid)

    def issued(self) -> tuple[Issued, ...]:
        """Everything it ever issued, by name, the newest first; raises `AuthorityDamagedError`."""
        newest: dict[str, int] = {}
        found: list[Issued] = []
        for path in sorted((self.folder / "issued").glob("*.pem"), key=lambda path: -path.stat().st_mtime_ns):
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
                peer = peer_of(certificate)
            except (OSError, ValueError, x509.ExtensionNotFound) as error:
                raise AuthorityDamagedError(
                    f"certificate {path}", why=str(error), remedy="Restore that file from a backup, or remove it."
                ) from error
            newest.setdefault(peer.name, certificate.serial_number)
            found.append(self._remembered(peer, certificate, newest[peer.name]))
        return tuple(sorted(found, key=lambda one: one.peer.name))

    def _remembered(self, peer: Peer, certificate: x509.Certificate, newest: int) -> Issued:
        serial = certificate.serial_number
        return Issued(
            peer,
            serial,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            self._revoked_at(serial),
            replaced=serial != newest,
        )

    def _revoked_at(self, serial: int) -> datetime | None:
        with contextlib.suppress(FileNotFoundError):
            changed_s = (self.folder / "revoked" / f"{serial:x}").stat().st_mtime
            return datetime.fromtimestamp(int(changed_s), UTC)
        return None

    def _current(self, name: str) -> Issued | None:
        now = now_utc()
        return next((one for one in self.issued() if one.peer.name == name and one.state(now) in _USABLE), None)

    def _newest(self, name: str) -> Issued:
        found = next((one for one in self.issued() if one.peer.name == name and not one.replaced), None)
        if found is None:
            raise NoCertificateError(
                f"certificate for {name}", why="none was ever issued", remedy="Use `scheduler pki issue`."
            )
        return found

    def _certify(self, peer: Peer, days: int) -> Bundle:
        now = now_utc()
        key, certificate = certify(peer, self.certificate, self._key, now + timedelta(days=days), now)
        text = certificate.public_bytes(Encoding.PEM)
        write_whole(self.folder / "issued" / f"{certificate.serial_number:x}.pem", text, PRIVATE)
        issued = self._remembered(peer, certificate, certificate.serial_number)
        return Bundle(issued, text, key_pem(key), self.trust)

    def _write_trust(self) -> None:
        revoked = [(one.serial, one.revoked_at) for one in self.issued() if one.revoked_at is not None]
        write_whole(self.folder / "ca.pem", _trust(self.certificate, self._key, revoked))


_USABLE: Final = frozenset({"valid", "expires soon", "replaced"})


def _trust(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, revoked: list[tuple[int, datetime]]
) -> bytes:
    listed = revocations(revoked, certificate, key, now_utc())
    return certificate.public_bytes(Encoding.PEM) + listed.public_bytes(Encoding.PEM)


def _private_key(text: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(text, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("its key is of another kind than this version makes")
    return key


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PkiFolderError(
            f"authority in {folder}",
            why=f"{error.filename or folder}: {error.strerror or error}",
            remedy="Check `state_dir` in scheduler.toml and who owns that folder.",
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
