"""What a gateway is told: by a TOML file, and by options of the command line, which win.

host = "0.0.0.0"
port = 8443
triton = "127.0.0.1:8001"
tls_certificate = "/etc/medimageparse/gateway.pem"
tls_key = "/etc/medimageparse/gateway.key"

[[keys]]                     # one for each caller; `python -m medimageparse_gateway key radiology` writes one
name = "radiology"
sha256 = "..."
requests_at_once = 8
requests_per_minute = 120
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medimageparse_contract.access_lines import ACCESS_LOGS, JSON

MIB = 2**20
COUNTS = ("max_body_bytes", "max_held_bytes", "max_connections", "requests_at_once")


class SettingsError(Exception):
    """A setting that cannot be; the sentence says what to write instead."""


@dataclass(frozen=True)
class Key:
    """One caller: a name for log and metrics, the SHA-256 of the key in hexadecimal digits, and its quota."""

    name: str
    sha256: str
    requests_at_once: int = 64
    requests_per_minute: int = 600

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.name):
            raise SettingsError("the name of a key has letters, digits, '_', '.' and '-', 64 at most")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SettingsError(f"sha256 of key {self.name} is not 64 hexadecimal digits; the command `key` writes it")
        if self.requests_at_once < 1 or self.requests_per_minute < 1:
            raise SettingsError(f"key {self.name} may ask for nothing; its limits are at least 1")


@dataclass(frozen=True)
class Settings:
    """Names are those of the file; sizes are bytes, times seconds.

    triton: "host:port" of gRPC; with TLS "grpcs://host:port", and `triton_ca` names the authority's PEM file
    max_body_bytes: of one request; max_held_bytes: of all that are being read or worked on
    requests_at_once: of all callers together
    timeout_s: for the model's answer, queue included; retry_for_s: of it, for a tritonserver that is away
    the other times: connections.py and bodies.py
    """

    host: str = "127.0.0.1"
    port: int = 8080
    triton: str = "127.0.0.1:8001"
    triton_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    keys: tuple[Key, ...] = ()
    max_body_bytes: int = 1024 * MIB
    max_held_bytes: int = 2048 * MIB
    max_connections: int = 1000
    requests_at_once: int = 256
    timeout_s: float = 600.0
    retry_for_s: float = 20.0
    tls_timeout_s: float = 10.0
    header_timeout_s: float = 20.0
    pause_timeout_s: float = 30.0
    body_timeout_s: float = 600.0
    stop_timeout_s: float = 60.0
    access_log: str = JSON

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise SettingsError("without keys the gateway listens on 127.0.0.1 only; the command `key` makes one")
        if self.access_log not in ACCESS_LOGS:
            raise SettingsError(f"access_log is one of {', '.join(ACCESS_LOGS)}")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise SettingsError("tls_certificate and tls_key go together")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in COUNTS and value < 1 or field.name.endswith("_s") and not 0 < value < 1e6:
                raise SettingsError(f"{field.name} is above 0")
        if len({key.name for key in self.keys}) < len(self.keys):
            raise SettingsError("two keys have one name")


def is_loopback(host: str) -> bool:
    """Whether what listens there is heard on this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(file: Path | None, **options: object) -> Settings:
    """The settings of a file, with options that are not None in place of its own; SettingsError says what is wrong."""
    content = _read_toml(file) if file else {}
    keys = content.pop("keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise SettingsError("keys are tables: write [[keys]] before each")
    content |= {name: value for name, value in options.items() if value is not None}
    content["keys"] = tuple(_build(Key, key) for key in keys)
    settings: Settings = _build(Settings, content)
    return settings


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise SettingsError(f"{file} is not a TOML file") from None


def _build(kind: Any, content: Mapping[str, Any]) -> Any:
    known = {field.name: field.type for field in fields(kind)}
    for name, value in content.items():
        if name not in known:
            raise SettingsError(f"there is no setting {name!r}; there are {', '.join(known)}")
        wanted: Any = known[name]
        if wanted is float and type(value) is int:
            continue
        if wanted in (int, str, float) and type(value) is not wanted:
            raise SettingsError(f"{name} is of another type: write a{'n' if wanted is int else ''} {wanted.__name__}")
    missing = {"name", "sha256"} & (known.keys() - content.keys())
    if missing:
        raise SettingsError(f"a key lacks {' and '.join(sorted(missing))}")
    return kind(**content)
