# syntax=docker/dockerfile:1
# Three images of one program, built on the machine that runs them: docker compose build
#   bot      what talks on Discord and Telegram, without torch or a model
#   twin     everything else on a CPU: API and page, voice, worker, scheduler, training on a CPU
#   trainer  a worker for a CUDA device
# The versions are those of constraints.txt, which the tests ran with.

FROM python:3.11.14-slim-bookworm AS python
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# One user in all images, so that they share volumes. /twin is the installation: its settings, and data/ as a volume.
RUN groupadd --gid 10001 twin && useradd --uid 10001 --gid twin --no-create-home --home-dir /tmp twin \
    && mkdir -p /twin/data /twin/voice && chown -R twin:twin /twin
ENV PATH=/venv/bin:$PATH UNDERSTUDY_HOME=/twin HOME=/tmp

FROM python AS small
RUN python -m venv /venv
WORKDIR /src
COPY constraints.txt infra/docker/bot.txt ./
RUN pip install --constraint constraints.txt --requirement bot.txt
COPY . .
RUN pip install --no-deps .

FROM python AS compiled
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential=12.9 \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /venv
WORKDIR /src
COPY constraints.txt infra/voice/llama.cmake ./
# llama.cpp is compiled for the CPU that builds it. Elsewhere: --build-arg LLAMA="-DGGML_NATIVE=OFF -DGGML_AVX2=ON".
# AMX stays out: virtual machines name it and then trap on it.
ARG LLAMA=""
ARG NO_AMX="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
RUN if ! gcc $NO_AMX -E -x c /dev/null >/dev/null 2>&1; then NO_AMX=""; fi \
    && CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=/src/llama.cmake \
       -DCMAKE_C_FLAGS='$NO_AMX' -DCMAKE_CXX_FLAGS='$NO_AMX' $LLAMA" \
       pip install --constraint constraints.txt llama-cpp-python

FROM compiled AS whole
RUN pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY . .
RUN pip install --constraint constraints.txt '.[otel]'

FROM compiled AS cuda
# From PyPI torch comes with the CUDA libraries; only the driver is the host's.
RUN pip install --constraint constraints.txt torch
COPY . .
RUN pip install --constraint constraints.txt '.[gpu,otel]'

FROM python AS bot
COPY --from=small /venv /venv
USER 10001:10001
WORKDIR /twin
ENTRYPOINT ["understudy"]

FROM python AS trainer
# Triton, under unsloth, compiles small kernels when a training begins.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc=4:12.2.0-3 libc6-dev=2.36-9* \
    && rm -rf /var/lib/apt/lists/*
COPY --from=cuda /venv /venv
USER 10001:10001
WORKDIR /twin
ENTRYPOINT ["understudy"]

FROM python AS twin
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1=12.2.0-14* && rm -rf /var/lib/apt/lists/*
COPY --from=whole /venv /venv
USER 10001:10001
WORKDIR /twin
ENTRYPOINT ["understudy"]
