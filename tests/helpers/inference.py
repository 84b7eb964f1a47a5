"""Requests by Triton's own clients, not by ours."""

import queue
import urllib.request
from contextlib import contextmanager

import numpy as np
import tritonclient.grpc
import tritonclient.http

OUTPUTS = ("nifti_file", "label_map", "scores", "report")
IMAGE_OUTPUTS = ("image_features", "text_features", "report")
PROMPTS = ("liver", "CT imaging of the spleen within the abdomen", "stomach", "aorta", "spine")
IMAGE_PROMPTS = ("left lung", "right lung", "COVID-19 infection in the chest")
TRANSPORTS = {"grpc": tritonclient.grpc, "http": tritonclient.http}


def tensors_of(inputs, outputs, transport):
    """Inputs and requested outputs as tritonclient wants them."""
    tensors = []
    for name, value in inputs.items():
        array = value if isinstance(value, np.ndarray) else np.array([value], np.object_)
        kind = "BYTES" if array.dtype == np.object_ else tritonclient.utils.np_to_triton_dtype(array.dtype)
        tensors.append(transport.InferInput(name, array.shape, kind))
        tensors[-1].set_data_from_numpy(array)
    return tensors, [transport.InferRequestedOutput(name) for name in outputs]


@contextmanager
def streaming(server, model, inputs, outputs, **options):
    """The responses of a decoupled model as they come, each a dict of arrays; raises what the server says instead.

    Leaving the block cancels what is not answered.
    """
    came = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as triton:
        triton.start_stream(lambda result, error: came.put((result, error)))
        tensors, requested = tensors_of(inputs, outputs, tritonclient.grpc)
        triton.async_stream_infer(model, tensors, outputs=requested, enable_empty_final_response=True, **options)

        def responses():
            is_last = False
            while not is_last:
                result, error = came.get(timeout=120)
                if error:
                    raise error
                response = result.get_response()
                is_last = response.parameters["triton_final_response"].bool_param
                yield {output.name: result.as_numpy(output.name) for output in response.outputs}

        try:
            yield responses()
        finally:
            triton.stop_stream(cancel_requests=True)


@contextmanager
def inferring(server, model, usual_outputs):
    """infer({"image": ..., "text": ...}, protocol, outputs) -> output name to array.

    A value is one BYTES element, or an array for requests that are not as the model wants them.
    """
    connections = {
        "grpc": tritonclient.grpc.InferenceServerClient(server.grpc_url),
        "http": tritonclient.http.InferenceServerClient(server.http_url, network_timeout=300),
    }

    def infer(inputs, protocol="grpc", outputs=usual_outputs):
        tensors, requested = tensors_of(inputs, outputs, TRANSPORTS[protocol])
        answer = connections[protocol].infer(model, tensors, outputs=requested)
        return {name: answer.as_numpy(name) for name in outputs}

    try:
        yield infer
    finally:
        for connection in connections.values():
            connection.close()  # an open HTTP connection would make the server wait its whole exit time-out


def executions(server, model):
    """How often a model has run, by the server's metrics."""
    with urllib.request.urlopen(server.metrics_url, timeout=20) as response:
        lines = response.read().decode().splitlines()
    counted = [line for line in lines if line.startswith(f'nv_inference_exec_count{{model="{model}"')]
    return sum(float(line.split()[-1]) for line in counted)
