# voxplain-server with the demo bundle. Targets: cpu (the default) and gpu.
#   docker build -t voxplain:0.1.0 .      docker build --target gpu -t voxplain:0.1.0-gpu .      Run: see deploy/README.md
# Any image with Python 3.11 and its venv module.
ARG BASE=python:3.11-slim-bookworm

# What is installed, and what it is built with; nothing of this stage but /opt/voxplain is in an image.
FROM ${BASE} AS source
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY server server
COPY client client
RUN python3 -m venv /opt/voxplain

FROM source AS build-cpu
# Where pip looks besides its index, for instance PyTorch's index of CPU wheels, or a folder; unset unless given. Not every builder hands
# arguments on to the stages that follow.
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
RUN /opt/voxplain/bin/pip install --constraint constraints.txt ".[server-cpu]"

# CUDA and cuDNN come as wheels: those that onnxruntime-gpu names, and those of torch. The node brings the driver.
FROM source AS build-gpu
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
RUN /opt/voxplain/bin/pip install --constraint constraints.txt ".[server]" "onnxruntime-gpu[cuda,cudnn]"

FROM ${BASE} AS runtime
COPY examples/glioma_demo/models /models
# Captum imports matplotlib, which refuses to be imported without a folder to write to: /tmp must stay writable.
ENV PATH=/opt/voxplain/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    VOXPLAIN_MODELS=/models \
    VOXPLAIN_HOST=0.0.0.0
USER 65532:65532
EXPOSE 50051 50052 9464
# Checking the models comes first; Kubernetes asks the health port itself and takes no notice of this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m CMD ["voxplain-server", "health"]
ENTRYPOINT ["voxplain-server"]

FROM runtime AS gpu
COPY --from=build-gpu /opt/voxplain /opt/voxplain
ENV VOXPLAIN_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime AS cpu
COPY --from=build-cpu /opt/voxplain /opt/voxplain
