# deblur on the CPU, in a container that restores a mounted folder:
#
#   docker build -t deblur .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/photos" deblur . -r --video -o sharp/
#
# Nothing is downloaded when it runs: the default weights are inside. Add --network none to be sure.
FROM python:3.13-slim

RUN pip install --no-cache-dir uv
COPY pyproject.toml README.md LICENSE /src/
COPY weights /src/weights
COPY deblurcli /src/deblurcli
RUN uv pip install --system --no-cache --torch-backend cpu /src && rm -r /src

# Runs as whichever user owns the folder, who has no home in here.
ENV HOME=/tmp
WORKDIR /photos
ENTRYPOINT ["deblur"]
CMD ["--help"]
