# voxplain-server with the demo bundle. Build: docker build -t voxplain .      Run: see deploy/README.md
# Any image with Python 3.11 and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# server: onnxruntime-gpu (it also holds the CPU provider). server-cpu: the small wheel, for nodes without a GPU.
ARG EXTRA=server-cpu
# Where pip looks besides its index, for instance PyTorch's index of CPU wheels; unset, and not in the image, unless given.
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
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
# Captum imports matplotlib, which refuses to be imported without a folder to write to: /tmp must stay writable.
# TLS is terminated in front of the pod, hence INSECURE: without it the server refuses to listen beyond loopback.
ENV PATH=/opt/voxplain/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    VOXPLAIN_MODELS=/models \
    VOXPLAIN_HOST=0.0.0.0 \
    VOXPLAIN_INSECURE=1
USER 65532:65532
EXPOSE 50051 50052 9464
ENTRYPOINT ["voxplain-server"]
