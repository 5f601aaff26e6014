"""Certificates: TLS contexts made of files, and made again when the files change, while open connections live on.

Owns how certificates are loaded, what is verified, and the change from one to the next: a file that cannot be used is
refused and what was in force goes on. Opens no connection and knows no room's config. It stands here because every
room above opens sockets.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

log = logging.getLogger("yuzui.tls")

HTTP_MUTUAL_MIN: Final = ssl.TLSVersion.TLSv1_3
"""Of HTTP doors that ask for client certificates. There the context that listens is never replaced, and with TLS 1.2 a
session it remembers could be taken up again after its certificate authority was taken out."""


_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_TIME: Final = re.compile(rb"\x17\x0d(\d{12}Z)|\x18\x0f(\d{14}Z)")


class CertificateFault(ValueError):  # noqa: N818 - says what is wrong with a file
    """A certificate, key or authority cannot be used; the text names files and reason, and nothing of their content."""


class Renewable(Protocol):
    """Something whose files may change. ``expires_at``: s since 1970 UTC; None where nothing is shown."""

    @property
    def expires_at(self) -> float | None:
        """Of the certificate in force."""
        ...

    def prepare(self) -> Callable[[], None]:
        """Read the files as they are now; what comes back puts them in force. Raises CertificateFault."""
        ...


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """PEM files of a listening side. With ``client_ca`` every peer must show a certificate of that authority."""

    cert: str
    key: str | None = None
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """PEM files of a calling side: whom to trust (None: the system's authorities) and what to show."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True


def server_files(cert: str | None, key: str | None, client_ca: str | None = None) -> ServerFiles | None:
    """None where there is no certificate. Raises ValueError for an authority of clients without one."""
    if cert is None:
        if client_ca is not None:
            raise ValueError("tls_client_ca_file needs tls_cert_file: certificates are shown over TLS only")
        return None
    return ServerFiles(cert, key, client_ca)


def server_context(files: ServerFiles) -> ssl.SSLContext:
    """TLS 1.2 or later. Raises CertificateFault."""
    with _told(files.cert, files.key, files.client_ca):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.client_ca)
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: ClientFiles) -> ssl.SSLContext:
    """Verifies the peer's certificate and name unless told not to. Raises CertificateFault."""
    with _told(files.ca, files.cert, files.key):
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca)
        if files.cert is not None:
            context.load_cert_chain(files.cert, files.key, password=_no_password)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def expires_at(file: str) -> float | None:
    """When the first certificate of a PEM file ends, s since 1970 UTC; None where that cannot be read.

    Two times stand in a certificate before any other: not before, not after (RFC 5280, 4.1.2.5).
    """
    try:
        text = Path(file).read_text("ascii")
        begin = text.index(_BEGIN)
        body = ssl.PEM_cert_to_DER_cert(text[begin : text.index(_END, begin) + len(_END)])
        utc, general = _TIME.findall(body)[1]
        written = (utc or general).decode()
        return (
            datetime.strptime(written, "%y%m%d%H%M%SZ" if utc else "%Y%m%d%H%M%SZ")
            .replace(tzinfo=UTC)
            .timestamp()
        )
    except (OSError, ValueError, IndexError):
        return None


def _no_password() -> str:
    # Without this OpenSSL asks on the terminal for the password of an encrypted key, and an engine waits for ever.
    raise ValueError("the key is encrypted; Yuzui wants one without a password, readable by nobody else")


class _told:  # noqa: N801 - reads as a word
    """Says which files a fault of OpenSSL's is about; it says only "PEM lib"."""

    def __init__(self, *files: str | None) -> None:
        self._files = ", ".join(one for one in files if one)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: object) -> None:
        if isinstance(fault, ssl.SSLError):
            why = fault.reason or str(fault.args[-1])
            raise CertificateFault(f"{self._files}: {why.replace('_', ' ').lower()}") from None
        if isinstance(fault, OSError):
            raise CertificateFault(f"{fault.filename or self._files}: {fault.strerror}") from None
        if isinstance(fault, ValueError):
            raise CertificateFault(f"{self._files}: {fault}") from None


class ServerTls:
    """The certificates of one listening side.

    current   a context of the newest files, for who wraps each connection by itself
    context   never replaced, for who listens with one context for ever: each handshake gets ``current`` through it
    """

    def __init__(self, files: ServerFiles) -> None:
        """Raises CertificateFault."""
        self.files = files
        self.current = server_context(files)
        self.expires_at = expires_at(files.cert)
        self._listening: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """See the class."""
        if self._listening is None:
            self._listening = server_context(self.files)
            self._listening.sni_callback = self._hand_over
            if self.files.client_ca is not None:
                self._listening.minimum_version = HTTP_MUTUAL_MIN
                self._listening.num_tickets = 0
        return self._listening

    def _hand_over(self, sock: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called in every handshake, with or without a server name."""
        sock.context = self.current

    def prepare(self) -> Callable[[], None]:
        """See Renewable."""
        fresh, ends = server_context(self.files), expires_at(self.files.cert)

        def take_up() -> None:
            self.current, self.expires_at = fresh, ends

        return take_up


class ClientTls:
    """The certificates of one calling side; ``current`` is made of the newest files."""

    def __init__(self, files: ClientFiles) -> None:
        """Raises CertificateFault."""
        self.files = files
        self.current = client_context(files)
        self.expires_at = expires_at(files.cert) if files.cert else None

    def prepare(self) -> Callable[[], None]:
        """See Renewable."""
        fresh = client_context(self.files)
        ends = expires_at(self.files.cert) if self.files.cert else None

        def take_up() -> None:
            self.current, self.expires_at = fresh, ends

        return take_up


def renewed(where: str, one: Renewable) -> bool:
    """Take up the files as they are now, or log why they are refused."""
    try:
        one.prepare()()
    except CertificateFault as fault:
        log.error("certificate refused, the old one stays: %s: %s", where, fault)
        return False
    return True


class Elsewhere:
    """Certificates that another of our processes uses: read here to see whether they will do, then it is told."""

    def __init__(self, tls: ServerTls | ClientTls, tell: Callable[[], None]) -> None:
        self._tls, self._tell = tls, tell

    @property
    def expires_at(self) -> float | None:
        """See Renewable."""
        return self._tls.expires_at

    def prepare(self) -> Callable[[], None]:
        """See Renewable."""
        ours = self._tls.prepare()

        def take_up() -> None:
            ours()
            self._tell()

        return take_up


class Certificates:
    """All of an engine, by the words a person knows their place by."""

    def __init__(self) -> None:
        self._of: list[Callable[[], Mapping[str, Renewable]]] = []

    def add(self, of: Callable[[], Mapping[str, Renewable]]) -> None:
        """``of`` is asked each time, for sides come and go with a reload."""
        self._of.append(of)

    def days_left(self, now_s: float) -> float | None:
        """Of the certificate in force that ends first; below 0 it has. None without any. ``now_s``: since 1970 UTC."""
        ends = [one.expires_at for of in self._of for one in of().values() if one.expires_at is not None]
        return (min(ends) - now_s) / 86_400 if ends else None

    def renew(self) -> tuple[list[str], list[str]]:
        """Read every file again: places taken up, and a line for each that is refused and goes on as it was."""
        taken, faults = [], []
        for where, one in [pair for of in self._of for pair in of().items()]:
            try:
                take_up = one.prepare()
            except CertificateFault as fault:
                faults.append(f"{where}: {fault}")
                log.error("certificate refused, the old one stays: %s: %s", where, fault)
                continue
            take_up()
            taken.append(where)
        return taken, faults
