# The image of the example project. `docker compose up` builds it once for the site, the API, the workers and the
# scheduler. The first stage installs the packages, the second contains only the result.
# `docker buildx imagetools inspect python:3.13-slim` prints the digest of a newer image.
ARG PYTHON=python:3.13.11-slim@sha256:2b9c9803c6a287cafa0a8c917211dddd23dcd2016f049690ee5219f5d3f1636e
FROM ${PYTHON} AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# Locked versions with hashes, written by scripts/lock.py. --no-deps refuses packages that the files do not contain.
COPY deploy/image ./
RUN pip install --no-deps --require-hashes -r build-requirements.txt \
    && python -m venv /venv \
    && /venv/bin/pip install --no-deps --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY taskq_core taskq_core
COPY taskq_dashboard taskq_dashboard
COPY taskq_django taskq_django
COPY taskq_exporter taskq_exporter
COPY taskq_fastapi taskq_fastapi
COPY taskq_migrate taskq_migrate
COPY taskq_pydantic_ai taskq_pydantic_ai
COPY taskq_sqlalchemy taskq_sqlalchemy
COPY taskq_terminal taskq_terminal
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /venv/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /venv/bin/pip check

FROM ${PYTHON}

# The processes write only to /data and /tmp, so the file system may be read-only.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STUDIO_DATA=/data
RUN useradd --uid 10001 --create-home studio && mkdir /data && chown studio /data
COPY --from=build /venv /venv
WORKDIR /app
COPY example_project example_project
RUN python -m compileall -q /venv/lib/python3.13/site-packages example_project
USER 10001
VOLUME /data
# An array, so that signals reach the worker itself.
CMD ["python", "example_project/manage.py", "runworker"]
