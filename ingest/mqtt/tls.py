"""TLS contexts of the listener and of subscribers.

Owns how certificates are loaded and what is verified. Opens no connection.
"""

from __future__ import annotations

import ssl
from typing import Any

from ingest.config import ListenerSettings, SubscriberSettings


def server_context(settings: ListenerSettings) -> ssl.SSLContext | None:
    """None without ``tls_cert_file``. Raises OSError (ssl.SSLError is one) for a file missing or wrong."""
    if settings.tls_cert_file is None:
        if settings.tls_client_ca_file is not None:
            raise ValueError("tls_client_ca_file needs tls_cert_file: certificates are shown over TLS only")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.tls_client_ca_file)
    context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    if settings.tls_client_ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: SubscriberSettings) -> ssl.SSLContext:
    """Verifies the broker's certificate and name unless ``tls_verify`` says not to. Raises OSError."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.tls_ca_file)
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_cert_file is not None:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context


def common_name(sock: ssl.SSLSocket) -> str | None:
    """The common name in the peer's verified certificate; None where it showed none or it has none."""
    subject: Any = (sock.getpeercert() or {}).get("subject", ())
    for part in subject:
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None
