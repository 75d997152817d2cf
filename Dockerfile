# syntax=docker/dockerfile:1
# voxplain-server with the demo bundle. Build: docker build -t voxplain .      Run: see deploy/README.md
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# server: onnxruntime-gpu (it also holds the CPU provider). server-cpu: the small wheel, for nodes without a GPU.
ARG EXTRA=server-cpu
WORKDIR /src
COPY constraints.txt pyproject.toml hatch_build.py README.md ./
COPY proto proto
COPY server server
COPY client client
RUN python3 -m venv /opt/voxplain \
 && /opt/voxplain/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRA}]"

FROM ${BASE}
COPY --from=build /opt/voxplain /opt/voxplain
COPY examples/glioma_demo/models /models
ENV PATH=/opt/voxplain/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VOXPLAIN_MODELS=/models \
    VOXPLAIN_HOST=0.0.0.0
USER 65532:65532
EXPOSE 50051 50052 9464
# TLS is terminated in front of the pod, hence --insecure: without it the server refuses to listen beyond loopback.
ENTRYPOINT ["voxplain-server", "--insecure"]
