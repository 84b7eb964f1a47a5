"""A request as gRPC gets it."""

import numpy as np
import pytest
from medimageparse_client.wire import encode_request
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

INPUTS = {"image": b"\0bytes", "text": "Leber, groß", "joint": True, "p_value_threshold": 0.05, "draws": 3}


def test_every_input_is_one_element_of_its_type():
    request = service_pb2.ModelInferRequest.FromString(encode_request("m", INPUTS, ["report"], 1.5, "7"))
    assert (request.model_name, request.id, request.parameters["timeout"].int64_param) == ("m", "7", 1_500_000)
    assert [output.name for output in request.outputs] == ["report"]
    sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
    kinds = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs}
    assert kinds["image"] == kinds["text"] == ("BYTES", [1])
    assert (kinds["joint"], kinds["p_value_threshold"]) == (("BOOL", [1]), ("FP32", [1]))
    assert deserialize_bytes_tensor(sent["image"]).item() == b"\0bytes"
    assert deserialize_bytes_tensor(sent["text"]).item() == "Leber, groß".encode()
    assert (sent["joint"], sent["p_value_threshold"]) == (b"\1", np.float32(0.05).tobytes())
    assert (kinds["draws"], sent["draws"]) == (("INT32", [1]), np.int32(3).tobytes())


@pytest.mark.parametrize("n_bytes", [0, 1, 123, 124, 16379, 16380, 2**21 - 5, 2**21 - 4])
def test_contents_of_every_length_arrive_whole(n_bytes):
    content = bytearray(b"x" * n_bytes)
    request = service_pb2.ModelInferRequest.FromString(encode_request("m", {"image": content, "text": "a"}, [], 1, ""))
    image, text = map(deserialize_bytes_tensor, request.raw_input_contents)
    assert (image.item(), text.item()) == (bytes(content), b"a")
