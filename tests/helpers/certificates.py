"""Certificates for tests of TLS, made by openssl: two authorities, a server and a client of the first, a stranger."""

import shutil
import subprocess

import pytest

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificates(folder):
    """ca, other_ca, server, client, stranger (of other_ca) and elsewhere (another host's): NAME.pem and NAME.key.

    locked.key is the client's key with a passphrase, extensions is no PEM file.
    """
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    def make_authority(name):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", f"/CN={name}", *files)

    def make(name, authority, subject="IP:127.0.0.1,DNS:localhost"):
        (folder / "extensions").write_text(f"subjectAltName={subject}\n")
        openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signer = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
        files = ("-in", f"{name}.csr", "-extfile", "extensions", "-out", f"{name}.pem")
        openssl("x509", "-req", *signer, "-days", "2", *files)

    make_authority("ca")
    make_authority("other_ca")
    make("server", "ca")
    make("client", "ca")
    make("stranger", "other_ca")
    make("elsewhere", "ca", "DNS:elsewhere.example")
    openssl("ec", "-in", "client.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    return folder
