"""A real archive with DICOMweb: Debian's Orthanc on free ports of 127.0.0.1."""

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
IS_HERE = PLUGIN.is_file() and Path(PROGRAM).is_file()
WHY_NOT = "" if IS_HERE else "Debian's orthanc and orthanc-dicomweb are not installed"


@contextmanager
def orthanc(folder):
    """The address of its DICOMweb root, without the protocol, and of its REST interface."""
    http, dicom = free_ports(2)
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "DicomPort": dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        server = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(server, f"http://127.0.0.1:{http}/system", folder / "orthanc.log")
            yield f"127.0.0.1:{http}/dicom-web", f"http://127.0.0.1:{http}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def free_ports(n):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def wait_for(server, url, log):
    """Until it answers; its last lines are in the error if it ends instead."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            try:
                server.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"Orthanc ended: {log.read_text()[-2000:]}") from None
    raise RuntimeError(f"Orthanc does not answer: {log.read_text()[-2000:]}")
