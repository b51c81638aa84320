# The example project with all it needs. `docker compose up` builds it once for the site, the API and the worker.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY pyproject.toml README.md LICENSE ./
COPY taskq_core taskq_core
COPY taskq_django taskq_django
COPY taskq_fastapi taskq_fastapi
RUN pip install --upgrade "pip>=25.1" && pip install ".[django,fastapi,otel]" --group example
COPY example_project example_project

RUN useradd --create-home studio && mkdir /data && chown studio /data
USER studio
VOLUME /data
ENV STUDIO_DATA=/data
CMD ["python", "example_project/manage.py", "runworker"]
