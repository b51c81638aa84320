# The example project with all it needs. `docker compose up` builds it once for the site, the API, the workers and the
# scheduler. The first stage has what it takes to install, the second only what was installed.
FROM python:3.13-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /venv && /venv/bin/pip install --upgrade "pip>=25.1"
COPY pyproject.toml README.md LICENSE ./
COPY taskq_core taskq_core
COPY taskq_django taskq_django
COPY taskq_fastapi taskq_fastapi
COPY taskq_pydantic_ai taskq_pydantic_ai
COPY taskq_sqlalchemy taskq_sqlalchemy
RUN /venv/bin/pip install ".[django,fastapi,dashboard,otel,exporter]" --group example

FROM python:3.13-slim

# Nothing is written but what is in /data and /tmp: the file system may be read-only.
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
