# The image of container targets: Ray's workers, drivers and musweep's commands in one.
#   docker build -t musweep .                                    for CPUs
#   docker build -t musweep --build-arg TORCH_INDEX=URL .        for GPUs: an index with CUDA builds of torch
FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1

# KubeRay's probes call wget; git tells a sweep what code it ran on; tini passes signals on, so that drivers leave cleanly.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git tini wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/musweep
COPY constraints.txt pyproject.toml README.md ./
COPY trainers trainers
COPY sweeps sweeps
COPY dashboards dashboards
COPY cluster cluster
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt '.[postgres]'

# Pods that must not be root want a number, not a name.
RUN useradd --create-home --uid 1000 musweep
USER 1000
WORKDIR /home/musweep
ENTRYPOINT ["tini", "--"]
CMD ["musweep", "--help"]
