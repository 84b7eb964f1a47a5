"""The gateway's TLS certificate, taken anew when its files change. Connections that are open keep theirs."""

import os
import ssl
from typing import TypeAlias

from medimageparse_gateway.log import LOG
from medimageparse_gateway.settings import Settings

FilesState: TypeAlias = tuple[tuple[int, int, int], ...] | None  # of each file; None where one cannot be read


class Certificate:
    """`context` serves all connections, each with the pair that is current at its TLS hello."""

    def __init__(self, settings: Settings) -> None:
        """ValueError for files that are no use; the sentence names no path."""
        self.files = (settings.tls_certificate, settings.tls_key)
        self.taken = self.seen = self.state()
        self.context = self.current = load(*self.files)
        # the one place where OpenSSL lets a connection change its pair. It is called without a server name, too
        self.context.sni_callback = self.give

    def give(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self.current

    def state(self) -> FilesState:
        """Other files, or files with other content, have another one; links are followed."""
        try:
            found = [os.stat(file) for file in self.files]
        except OSError:
            return None
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def look(self) -> None:
        """Takes a changed pair, once it has stayed the same between two looks: nobody writes it any more.

        A pair that is no use is told in the log, once, and the one before stays.
        """
        state, before = self.state(), self.seen
        self.seen = state
        if state == self.taken or state != before:
            return
        self.taken = state
        try:
            self.current = load(*self.files)
        except ValueError as error:
            LOG.error({"message": f"the TLS certificate changed, and the one before stays: {error}"})
        else:
            LOG.info({"message": "the TLS certificate changed: new connections have the new one"})


def load(certificate: str, key: str) -> ssl.SSLContext:
    """A context with this pair; ValueError for files that are no use."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # without a password it would ask on the terminal
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        words = "tls_certificate and tls_key are not PEM files of a certificate and its own key without a passphrase"
        raise ValueError(words) from None
    except OSError as error:
        raise ValueError(f"tls_certificate or tls_key cannot be read: {error.strerror}") from None
    return context
