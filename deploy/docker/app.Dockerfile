# The one image of our own programs: consumer, producer, migrations, Mage, Dagster, Power BI's stand-in.
# Build:  docker compose build        (from the repository's root)
ARG PYTHON_IMAGE=python:3.11-slim

# ---- the locked environment, compiled to bytecode: nothing can be written where the programs run
FROM ${PYTHON_IMAGE} AS environment
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 \
    UV_HTTP_TIMEOUT=180
WORKDIR /build
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --frozen --no-dev --no-install-project --python "$(command -v python3)"
# What no program here opens: other libraries' own tests, headers and source maps, notebooks' pages, descriptions of
# Google's other interfaces.
RUN site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && rm -rf "$site/pyarrow/include" "$site/notebook/static" "$site/jupyterlab/static" "$site/jupyterlab/staging" \
        /opt/venv/share/jupyter/lab \
    && for package in pandas numpy scipy sklearn dask mage_ai pyarrow; do \
        find "$site/$package" -type d -name tests -prune -exec rm -rf {} +; done \
    && find "$site" -name '*.map' -delete \
    && find "$site/googleapiclient/discovery_cache/documents" -name '*.json' ! -name 'sheets.*' ! -name 'drive.*' \
        ! -name 'bigquery*' ! -name 'storage.*' ! -name 'dataproc.*' ! -name 'iam*' -delete

# ---- our files, compiled too
FROM environment AS code
WORKDIR /app
COPY . .
# The commands that pyproject.toml names: streaming, dbt-like-sql, powerbi, trace, compare-rules
RUN /opt/venv/bin/python -m compileall -q . \
    && mkdir /opt/commands \
    && /opt/venv/bin/python -c "import tomllib; from pathlib import Path; \
[Path('/opt/commands', name).write_text('#!/opt/venv/bin/python\nfrom {} import {} as main\nmain()\n'.format(*at.split(':'))) \
 for name, at in tomllib.loads(Path('pyproject.toml').read_text())['project']['scripts'].items()]" \
    && chmod 755 /opt/commands/*

# ---- what runs: no compiler, no uv, not root
FROM ${PYTHON_IMAGE} AS app
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --home-dir /home/app --create-home --shell /usr/sbin/nologin app \
    && install -d -o app -g app -m 0750 /secrets/admin /secrets/owner /secrets/lander /secrets/reader /secrets/dagster \
        /secrets/mage /secrets/grafana /var/lib/dagster /var/lib/mage /var/lib/report \
    && install -d /opt/dagster
COPY --from=environment /opt/venv /opt/venv
COPY --from=code /opt/commands/ /usr/local/bin/
COPY --from=code /app /app
# Mage makes this folder in its project when it starts; the project itself stays read-only, a tmpfs lies here
RUN install -d -o app -g app /app/mage_project/.ssh_tunnel
COPY deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONWARNINGS="ignore::FutureWarning:google.api_core._python_version_support,ignore::FutureWarning:google.auth.transport.grpc" \
    TZ=UTC HOME=/home/app DAGSTER_HOME=/opt/dagster DAGSTER_DISABLE_TELEMETRY=yes
WORKDIR /app
USER 10001:10001
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="power-bi-project" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" org.opencontainers.image.licenses="Apache-2.0"
ENV CODE_VERSION="${VERSION}"
CMD ["streaming", "--help"]
