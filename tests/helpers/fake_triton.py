"""Stands in for `triton_python_backend_utils`, which exists only within a tritonserver."""

import sys
from types import ModuleType

import numpy as np

NAME = "triton_python_backend_utils"


class Tensor:
    def __init__(self, name, array):
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class TritonError:
    INTERNAL, INVALID_ARG, CANCELLED, UNAVAILABLE = "INTERNAL", "INVALID_ARG", "CANCELLED", "UNAVAILABLE"

    def __init__(self, message, code=INTERNAL):
        self._message, self.code = message, code

    def message(self):
        return self._message


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        self._outputs, self._error = output_tensors, error

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error

    def output_tensors(self):
        return self._outputs

    def arrays(self):
        return {tensor.name(): tensor.as_numpy() for tensor in self._outputs}


class InferenceRequest:
    """A call; `answers` maps a model to a function of its inputs."""

    answers = {}
    made = []

    def __init__(self, model_name, requested_output_names, inputs, preferred_memory, parameters):
        self.model, self.names, self.parameters = model_name, requested_output_names, parameters
        self.inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}
        self.made.append(self)

    async def async_exec(self):
        return self.answers[self.model](self.inputs)


class Request:
    """What a client sent."""

    def __init__(self, wanted=(), timeout_us=0, cancelled=False, request_id="", **arrays):
        self._tensors = [Tensor(*pair) for pair in arrays.items()]
        self._wanted, self._timeout_us, self._cancelled = list(wanted), timeout_us, cancelled
        self._request_id = request_id
        self.sent_parameters = ""  # JSON
        self.sent = []  # to the sender: each response, and its flags

    def inputs(self):
        return self._tensors

    def requested_output_names(self):
        return self._wanted

    def timeout(self):
        return self._timeout_us

    def request_id(self):
        return self._request_id

    def parameters(self):
        return self.sent_parameters

    def is_cancelled(self):
        return self._cancelled

    def get_response_sender(self):
        return self

    def send(self, response, flags=0):
        self.sent.append((response, flags))


class Logger:
    lines = []

    @classmethod
    def log_error(cls, line):
        cls.lines.append(line)

    log_warn = log_error


class MetricFamily:
    """Counters by name and labels, of all that were made."""

    COUNTER = "counter"
    values = {}

    def __init__(self, name, description, kind):
        assert kind == self.COUNTER
        self.name = name

    def Metric(self, labels):
        return Metric((self.name, *sorted(labels.items())))


class Metric:
    def __init__(self, key):
        self.key = key
        MetricFamily.values.setdefault(key, 0)

    def increment(self, amount):
        MetricFamily.values[self.key] += amount


def install():
    """For modules that import it by name."""
    module = ModuleType(NAME)
    for thing in (Tensor, TritonError, InferenceResponse, InferenceRequest, Logger, MetricFamily):
        setattr(module, thing.__name__, thing)
    module.PreferredMemory = lambda kind, number: (kind, number)
    module.TRITONSERVER_MEMORY_CPU = 0
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    sys.modules.setdefault(NAME, module)
