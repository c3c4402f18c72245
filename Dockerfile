# rd on a CPU. Build: docker build -t rd .   Run, with an index in ./index and a token in ./token, both readable
# by user 10001 (and ./index writable, if references are to be added):
#   docker run --rm -p 127.0.0.1:8321:8321 -v ./index:/index -v ./token:/run/secrets/token:ro rd
FROM python:3.12-slim

# A new volume takes the owner of the folder it is mounted on.
RUN useradd --create-home --uid 10001 rd && install --directory --owner=rd /index
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY constraints constraints
COPY index/recipes index/recipes
COPY retrieval_detect retrieval_detect
# An index of wheels without CUDA makes the image a fifth as large: --build-arg TORCH_INDEX=URL
ARG TORCH_INDEX=
RUN pip install --no-cache-dir --constraint constraints/cpu.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[cpu,offline,web]'

USER rd
WORKDIR /home/rd
ENV RD_HOME=/index
VOLUME /index
EXPOSE 8321
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8321/healthz')"]
ENTRYPOINT ["rd"]
CMD ["serve", "--host", "0.0.0.0", "--token-file", "/run/secrets/token"]
