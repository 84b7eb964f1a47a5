"""The address of a series in an archive with DICOMweb: dicomweb://host[:port]/path/studies/UID/series/UID.

dicomweb:// is over TLS, dicomweb+http:// in clear, for an archive on this machine or behind a tunnel.
"""

import re
from dataclasses import dataclass

from medimageparse_client.errors import InvalidVolume

SCHEMES = {"dicomweb": "https", "dicomweb+http": "http"}
BEGINNING = re.compile(r"dicomweb(\+http)?://")
ADDRESS = re.compile(
    r"(?P<scheme>dicomweb(?:\+http)?)://(?P<host>[\w.\-]+|\[[\da-fA-F:]+\])(?P<port>:\d{1,5})?(?P<path>(?:/[\w.\-~%]+)*?)"
    r"/studies/(?P<study>[\d.]{1,64})/series/(?P<series>[\d.]{1,64})/?"
)
HERE = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Address:
    """url: of the archive's DICOMweb root"""

    scheme: str
    host: str
    url: str
    study: str
    series: str

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along."""
        return self.scheme == "dicomweb" or self.host.rsplit(":", 1)[0] in HERE or self.host in HERE


def is_address(text: object) -> bool:
    return isinstance(text, str) and BEGINNING.match(text) is not None


def parse_address(text: str) -> Address:
    """Raises InvalidVolume for what is no address of a series."""
    match = ADDRESS.fullmatch(text)
    if not match:
        raise InvalidVolume(
            "this is not the address of a series: dicomweb://HOST[:PORT]/PATH/studies/UID/series/UID; a password does "
            "not belong in it"
        )
    host = match["host"] + (match["port"] or "")
    url = f"{SCHEMES[match['scheme']]}://{host}{match['path']}"
    return Address(match["scheme"], host, url, match["study"], match["series"])
