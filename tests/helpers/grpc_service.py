"""A server that speaks Triton's protocol over gRPC and answers as it is told."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc

PATIENCE_S = 60  # for a machine that does much else; nothing is asserted about times


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Ends with `failure` or answers; a stream has `responses` instead. A held request waits until it is cancelled."""

    failure = responses = None
    is_held = False
    ready = ("medimageparse",)

    def __init__(self):
        self.requests, self.cancelled, self.began = [], threading.Event(), threading.Event()

    def respond(self, request, context):
        self.requests.append(request)
        self.began.set()
        if self.is_held:
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(PATIENCE_S)
        if self.failure:
            context.abort(*self.failure)
        return response(report=np.array([b"{}"], np.object_), scores=np.ones((2, 3), np.float32))

    def ModelInfer(self, request, context):
        return self.respond(request, context)

    def ModelStreamInfer(self, request_iterator, context):
        if self.responses is not None:
            yield from self.responses
            return
        for request in request_iterator:
            yield service_pb2.ModelStreamInferResponse(infer_response=response(progress=np.array([b"1"], np.object_)))
            answer = self.respond(request, context)
            yield service_pb2.ModelStreamInferResponse(infer_response=answer)
            yield service_pb2.ModelStreamInferResponse()  # as Triton marks the end

    def ModelReady(self, request, context):
        if request.name == "nobody":
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return service_pb2.ModelReadyResponse(ready=request.name in self.ready)


def response(**arrays):
    answer = service_pb2.ModelInferResponse()
    for name, array in arrays.items():
        tensor = InferInput(name, array.shape, "BYTES" if array.dtype == np.object_ else "FP32")
        tensor.set_data_from_numpy(array)
        answer.outputs.add(name=name, datatype=tensor.datatype(), shape=array.shape)
        answer.raw_output_contents.append(tensor._get_content())
    return answer


@contextmanager
def listening(service):
    """The address where a Service is asked."""
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    service.cancelled.set()
    server.stop(None).wait()
