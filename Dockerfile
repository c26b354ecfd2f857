# syntax=docker/dockerfile:1

# Two stages: one with a compiler, which builds the wheel and an environment that holds it
# and what it depends on; and one with that environment, a user and nothing else.

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-bookworm AS build
# The extensions are compiled here or there is no image: nobody would see that it is slow.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 MCPX_REQUIRE_EXTENSIONS=1
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY mcpx ./mcpx
RUN pip wheel --quiet --wheel-dir /wheels ".[http2]"
# The runtime stage has its Python at the same path, so that the environment can be moved.
RUN python -m venv /opt/mcpx \
 && /opt/mcpx/bin/pip install --quiet --no-index --find-links /wheels "mcpx-gateway[http2]" \
 && /opt/mcpx/bin/mcpx --version

FROM python:${PYTHON_VERSION}-slim-bookworm
# A number and no name: clusters that demand a user other than root look at the number.
# The audit log's folder is there for `output: file`; mount a volume on it.
RUN groupadd --gid 10001 mcpx \
 && useradd --uid 10001 --gid mcpx --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mcpx \
 && install -d -o mcpx -g mcpx -m 0700 /var/log/mcpx
COPY --from=build /opt/mcpx /opt/mcpx
COPY deploy/container/mcpx.yaml /etc/mcpx/mcpx.yaml
ENV PATH=/opt/mcpx/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
EXPOSE 8080
# Whether the gateway answers. Whether its servers do is what /health tells: restarting the
# gateway would not mend them. MCPX_HEALTH_URL is for configurations with another port. No proxy is asked.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import *; build_opener(ProxyHandler({})).open(os.environ.get('MCPX_HEALTH_URL', 'http://127.0.0.1:8080/health/live'), timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mcpx"]
CMD ["-c", "/etc/mcpx/mcpx.yaml"]
