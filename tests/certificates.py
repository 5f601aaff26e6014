"""Real certificates for tests, made by openssl: authorities, servers, clients, and those that must be refused."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

OPENSSL = shutil.which("openssl")
SERVER = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"
CLIENT = "extendedKeyUsage=clientAuth\n"
DAYS = 2


def openssl(folder: Path, *words: str) -> None:
    """Run it in a folder."""
    assert OPENSSL is not None
    done = subprocess.run([OPENSSL, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {' '.join(words)}: {done.stderr}"


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority in ``folder``; ``file`` is its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._name = folder, name
        self.file = folder / f"{name}.crt"
        openssl(
            folder, "req", "-x509", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", str(DAYS),
            "-subj", f"/CN={name}",
        )  # fmt: skip

    def issue(self, name: str, common_name: str, extension: str, days: int = DAYS) -> tuple[str, str]:
        """NAME.crt and NAME.key; ``days`` below 0 has expired already."""
        (self._folder / f"{name}.ext").write_text(extension)
        openssl(
            self._folder, "req", *KEY, "-keyout", f"{name}.new.key", "-out", f"{name}.csr", "-subj",
            f"/CN={common_name}",
        )  # fmt: skip
        openssl(
            self._folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{self._name}.crt", "-CAkey",
            f"{self._name}.key", "-CAcreateserial", "-days", str(days), "-out", f"{name}.new.crt",
            "-extfile", f"{name}.ext",
        )  # fmt: skip
        cert, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        (self._folder / f"{name}.new.crt").replace(cert)
        (self._folder / f"{name}.new.key").replace(key)
        key.chmod(0o600)
        return str(cert), str(key)


def der(file: str | Path) -> bytes:
    """The first certificate of a PEM file as a peer shows it."""
    text = Path(file).read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") : text.index("-----END") + 25] + "\n")


def client(ca: Path, pair: tuple[str, str] | None = None) -> ssl.SSLContext:
    """A client that trusts ``ca`` and shows ``pair``."""
    context = ssl.create_default_context(cafile=ca)
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def server(pair: tuple[str, str], client_ca: Path | None = None) -> ssl.SSLContext:
    """A server that shows ``pair``, and asks for a certificate of ``client_ca``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(*pair)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
