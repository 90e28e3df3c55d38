# Serves an export of a model on a CPU: docs/docker.md says how. No torch, and no rights.
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements/ requirements/
RUN pip install --no-cache-dir --no-compile --prefix /opt/qpairs -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY qpairs/ qpairs/
COPY data/intents.csv data/pairs.csv data/
RUN pip install --no-cache-dir --no-compile --no-deps --prefix /opt/qpairs . \
    && python requirements/slim.py /opt/qpairs/lib/python3.11/site-packages

FROM python:3.11-slim
COPY --from=build /opt/qpairs /usr/local
RUN useradd --uid 10001 --create-home qpairs && mkdir /data && chown qpairs /data
USER 10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
ENTRYPOINT ["qpairs"]
CMD ["serve", "/model", "--host", "0.0.0.0"]
