"""TLS of gRPC: tritonserver's flags, after a look at the files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from medimageparse_serving.launch.launch_errors import ServeError


@dataclass(frozen=True)
class Tls:
    """PEM files for gRPC. With `client_ca`, only clients with a certificate of that CA are served: mutual TLS."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def flags(self) -> list[str]:
        """For tritonserver. Invalid files are refused here, with the reason."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # or it would ask on the terminal
        except ssl.SSLError:
            raise ServeError(
                "TLS: certificate and key are not PEM files that belong together, the key without a passphrase"
            ) from None
        except OSError as error:
            raise ServeError(f"TLS: the certificate or its key cannot be read: {error.strerror}") from None
        flags = [f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca is None:
            return ["--grpc-use-ssl=true", *flags]
        try:
            context.load_verify_locations(self.client_ca)
        except ssl.SSLError:
            raise ServeError("TLS: the CA of the clients is not a PEM file of certificates") from None
        except OSError as error:
            raise ServeError(f"TLS: the CA of the clients cannot be read: {error.strerror}") from None
        return ["--grpc-use-ssl-mutual=true", *flags, f"--grpc-root-cert={self.client_ca}"]
