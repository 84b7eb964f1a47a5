"""Requests by Triton's own clients, not by ours."""

from contextlib import contextmanager

import numpy as np
import tritonclient.grpc
import tritonclient.http

OUTPUTS = ("nifti_file", "label_map", "scores", "report")
IMAGE_OUTPUTS = ("image_features", "text_features", "report")
TRANSPORTS = {"grpc": tritonclient.grpc, "http": tritonclient.http}


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
        transport, tensors = TRANSPORTS[protocol], []
        for name, value in inputs.items():
            array = value if isinstance(value, np.ndarray) else np.array([value], np.object_)
            kind = "BYTES" if array.dtype == np.object_ else tritonclient.utils.np_to_triton_dtype(array.dtype)
            tensors.append(transport.InferInput(name, array.shape, kind))
            tensors[-1].set_data_from_numpy(array)
        requested = [transport.InferRequestedOutput(name) for name in outputs]
        answer = connections[protocol].infer(model, tensors, outputs=requested)
        return {name: answer.as_numpy(name) for name in outputs}

    try:
        yield infer
    finally:
        for connection in connections.values():
            connection.close()  # an open HTTP connection would make the server wait its whole exit time-out
