"""TLS of the listener and of subscribers: which of their settings name which files.

Opens no connection; how files become contexts is storage.certificates'.
"""

from __future__ import annotations

import ssl
from typing import Any

from ingest.config import ListenerSettings, SubscriberSettings
from storage.certificates import ClientFiles, ClientTls, ServerTls, server_files


def server_tls(settings: ListenerSettings) -> ServerTls | None:
    """None without ``tls_cert_file``. Raises ValueError (CertificateFault is one) for a file missing or wrong."""
    files = server_files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    return None if files is None else ServerTls(files)


def client_tls(settings: SubscriberSettings) -> ClientTls:
    """Verifies the broker's certificate and name unless ``tls_verify`` says not to. Raises CertificateFault."""
    files = ClientFiles(
        settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file, settings.tls_verify
    )
    return ClientTls(files)


def common_name(sock: ssl.SSLSocket) -> str | None:
    """The common name in the peer's verified certificate; None where it showed none or it has none."""
    subject: Any = (sock.getpeercert() or {}).get("subject", ())
    for part in subject:
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None
