# The model ingest service. How to build and run it, and what was tried: docs/container.md.
#
# The base is plain Debian with Debian's own Python (3.11), not python:3.x-slim:
# - the image that runs has never seen pip; the Python images carry it, and deleting it leaves it in their layers;
# - one security team patches the interpreter and all libraries below it;
# - debootstrap makes the same base on a machine that reaches no container registry.
# The name is given in full because buildah, unlike Docker, does not guess a registry.

FROM docker.io/library/debian:bookworm-slim AS build

RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv

# Two environments: pip and the build backend stay in /build, only /opt/model-ingest is carried over. It is made
# at its final path because a virtual environment cannot be moved.
RUN python3 -m venv /build/tools \
 && python3 -m venv --without-pip /opt/model-ingest

# Before the sources: a change of code does not download the dependencies again. Wheels only, so nobody's setup
# script runs here and no compiler is needed. The locks name every dependency, so pip has none left to resolve.
# The two optional secrets are for a network with a package index or a certificate authority of its own.
COPY requirements/build.lock requirements/runtime.lock /build/requirements/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/etc/ssl/certs/ca-certificates.crt \
    /build/tools/bin/pip --disable-pip-version-check --no-cache-dir install \
      --require-hashes --no-deps --only-binary :all: \
      -r /build/requirements/build.lock \
 && /build/tools/bin/pip --disable-pip-version-check --no-cache-dir --python /opt/model-ingest/bin/python install \
      --require-hashes --no-deps --only-binary :all: \
      -r /build/requirements/runtime.lock

# Our two distributions, as wheels. Without an index: what is not in the locks does not come in.
COPY LICENSE pyproject.toml /build/source/
COPY clients/python /build/source/clients/python/
COPY ingest_service /build/source/ingest_service/
RUN /build/tools/bin/pip --disable-pip-version-check wheel \
      --no-index --no-deps --no-build-isolation --wheel-dir /build/wheels \
      /build/source/clients/python /build/source \
 && /build/tools/bin/pip --disable-pip-version-check --python /opt/model-ingest/bin/python install \
      --no-index --no-deps /build/wheels/*.whl \
 && /build/tools/bin/pip --disable-pip-version-check --python /opt/model-ingest/bin/python check
COPY deploy/healthcheck.py /opt/model-ingest/healthcheck.py


FROM docker.io/library/debian:bookworm-slim

# A fixed number, so that the owner of a bind-mounted data directory can be set from outside. /data is made here
# because a new named volume takes owner and mode from the directory that it is mounted over.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
 && groupadd --gid 10001 ingest \
 && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin ingest \
 && install --directory --owner 10001 --group 10001 --mode 0755 /data

# Owned by root: the service cannot rewrite its own code.
COPY --from=build /opt/model-ingest /opt/model-ingest

# PYTHONDONTWRITEBYTECODE: pip has compiled everything; with a read-only root there is nowhere to write anyway.
#
# MALLOC_*: gRPC takes every message into fresh buffers of megabytes. As it comes, glibc hands such memory back to the
# kernel when it is freed, and each chunk pays for it with page faults; above these thresholds only is it handed back.
# Measured on 2 cores: 2.2 times the rate when client and server have it, for 10 to 50 MB more memory. The service
# itself sets its own values at start (ingest_service/process.py), and those win; these are for everything else that
# runs in the image, `model-ingest push` above all. glibc only: a base on musl would ignore them.
#
# INGEST_LISTEN: inside a container loopback reaches nobody. INGEST_ALLOW_INSECURE is not set on purpose: without
# authentication, opening the port is a decision of whoever runs the image (docker-compose.yml takes it).
ENV PATH=/opt/model-ingest/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_MMAP_THRESHOLD_=268435456 \
    MALLOC_TRIM_THRESHOLD_=268435456 \
    INGEST_LISTEN=0.0.0.0:50051 \
    INGEST_DATA_DIR=/data

# As numbers: Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001
# Not the data directory: `python -m` looks for modules in the working directory first.
WORKDIR /
VOLUME ["/data"]
EXPOSE 50051
STOPSIGNAL SIGTERM

# A first boot migrates the database, a later one may have much to pick up: the start period covers both.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "/opt/model-ingest/healthcheck.py"]

ENTRYPOINT ["python", "-m", "ingest_service"]
CMD ["serve"]
