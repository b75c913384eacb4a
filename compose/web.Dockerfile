# syntax=docker/dockerfile:1
# The site's image: web processes, Celery workers and beat are this image with different commands.
# From the project's root:
#     docker build --file compose/web.Dockerfile --tag clearframe-web .
#     docker build --file compose/web.Dockerfile --tag clearframe-local --build-arg REQUIREMENTS=local .
# `local` adds what the local endpoint and a GPU worker with the CPU engine import.

FROM python:3.11.14-slim-bookworm AS build

ARG REQUIREMENTS=web
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
# Packages change less often than the product: a layer of their own, every wheel checked against its hash. By uv, as
# in the Makefile: pip refuses locked packages that others ask for with extras.
COPY requirements/uv.txt requirements/${REQUIREMENTS}.txt requirements/
RUN python -m pip install --require-hashes --only-binary :all: --requirement requirements/uv.txt \
    && python -m venv --without-pip /venv \
    && uv pip sync --no-cache --python /venv/bin/python --require-hashes --only-binary :all: "requirements/${REQUIREMENTS}.txt"
COPY manage.py ./
COPY seedvr_site seedvr_site
COPY accounts accounts
COPY billing billing
COPY restorations restorations
COPY gpu_worker gpu_worker
COPY locale locale
COPY templates templates
COPY static static
# Manifest and compressed copies are made once, here. The settings ask for secrets that this step does not use.
RUN DJANGO_SETTINGS_MODULE=seedvr_site.settings.prod SECRET_KEY=unused SITE_URL=https://unused.invalid \
    DATABASE_URL=postgres://unused.invalid/unused RUNPOD_ENDPOINT_ID=unused RUNPOD_API_KEY=unused \
    /venv/bin/python manage.py collectstatic --no-input && /venv/bin/python -m compileall -q /app


FROM python:3.11.14-slim-bookworm

# Nothing here runs as root, and nothing but /data can be written.
RUN groupadd --system --gid 10001 clearframe \
    && useradd --system --uid 10001 --gid clearframe --no-create-home --shell /usr/sbin/nologin clearframe \
    && install --directory --owner clearframe --group clearframe /data
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=seedvr_site.settings.prod VAR_DIR=/data
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
# For web processes; compose files give the other commands checks of their own.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-m", "seedvr_site.healthcheck"]
CMD ["uvicorn", "seedvr_site.asgi:application", "--host", "0.0.0.0", "--port", "8000", \
     "--timeout-graceful-shutdown", "5", "--no-proxy-headers", "--no-access-log"]
