# The serving image: Triton's own, the python steps' packages, the model repository. Engines are built in it too:
#   docker build -t medimageparse-triton .
#   docker run --gpus all --rm -it --shm-size=4g -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 \
#     -v $PWD/model_repository:/store:ro medimageparse-triton --runtime tensorrt --store /store
# The store brings graphs and engines alone: the code is the image's, so a new tag changes it and an old one rolls back.
# 8001 is gRPC, 8002 metrics. The gateway's HTTP wants keys before it listens to others:
#   -p 8080:8080 -v $PWD/gateway.toml:/gateway.toml ... medimageparse-triton --runtime tensorrt --gateway-config /gateway.toml
# Triton's own HTTP (8000) opens with --http-host 0.0.0.0, for a network that you trust: SECURITY.md says why.
# --shm-size: every python step moves its tensors through /dev/shm, and Docker's 64 MB would not hold one CT volume.
# 26.09: servers before 26.07 may use a response of async_exec, which medimageparse_3d calls, after it is freed.
# A tag can be moved, a digest cannot: --build-arg TRITON=nvcr.io/nvidia/tritonserver@sha256:..., see docs/kubernetes.md
ARG TRITON=nvcr.io/nvidia/tritonserver:26.09-py3
FROM $TRITON

WORKDIR /opt/medimageparse
COPY serving/requirements.lock serving/requirements.lock
RUN pip install --no-cache-dir --break-system-packages --no-deps --require-hashes -r serving/requirements.lock
COPY contract contract
COPY client client
COPY serving serving
COPY gateway gateway
RUN pip install --no-cache-dir --break-system-packages --no-deps ./contract ./client ./serving ./gateway
COPY model_repository model_repository

# triton-server, which the image comes with; as numbers, so that Kubernetes can see that it is not root
USER 1000:1000
# 8003: probes, see docs/kubernetes.md. `docker stop -t 180` lets requests under way finish
EXPOSE 8001 8002 8003 8080
ENTRYPOINT ["python3", "-m", "medimageparse_serving.launch", "--host", "0.0.0.0", "--metrics-host", "0.0.0.0", "--gateway-port", "8080"]
CMD ["--runtime", "tensorrt"]
