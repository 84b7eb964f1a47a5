"""Model repositories that tests serve."""

import os
import shutil

from medimageparse.repository_copy import copy_models
from medimageparse_contract.models import STREAMS
from medimageparse_demo import repository as demo
from medimageparse_serving.launch.serve import REPOSITORY


def demo_repository(destination, *weights):
    """The models with the demo's graphs, or those of the folders `weights`."""
    return beside_others(demo.demo_repository(destination, *weights))


def unbuilt_repository(destination):
    """The models without graphs."""
    copy_models(REPOSITORY, destination)
    return beside_others(destination)


def beside_others(repository):
    """One thread for a network where tests run beside others: two wait for a core each by spinning."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        for config in repository.glob("*/configs/cpu.pbtxt"):
            config.write_text(config.read_text().replace('"threads" value { string_value: "0" }', ONE_THREAD))
            assert ONE_THREAD in config.read_text()
    return repository


ONE_THREAD = '"threads" value { string_value: "1" }'


def pared(repository):
    """A process a step and no stream: half as much to start."""
    for stream in STREAMS.values():
        shutil.rmtree(repository / stream, ignore_errors=True)
    for config in repository.glob("*/config.pbtxt"):
        config.write_text(config.read_text().replace("count: 2 ", "count: 1 "))
    return repository
