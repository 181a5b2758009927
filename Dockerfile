# The image of the executor: docs/docker.md has how to use it.
#
#   docker build -t executor .                                        Alpine and the program
#   docker build -t executor --build-arg BASE=python:3.13-slim .      for tools in Python
#
# The local engine runs tools as processes of this container, so what a tool calls has to be in it. That is why the last
# stage does not begin FROM scratch, where nothing could be run, and why its base is yours to choose: any image with a
# /bin/sh. The program itself is static and needs nothing of it. Both base images can come from a mirror as well.
ARG GO_IMAGE=golang:1.26-alpine
ARG BASE=alpine:3.22

FROM ${GO_IMAGE} AS build
WORKDIR /src
# The modules are a layer of their own: they are downloaded again only when these two files change.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.1.0-dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/executor ./cmd/executor

FROM ${BASE}
# By hand, because the programs that do it differ from base to base. The two directories of tools are those that
# production.yaml names: an image with tools in it has them in /usr/share, /etc is for those that are mounted. The data
# directory has the user's ownership, which a new volume takes over.
RUN echo 'executor:x:65532:65532:executor:/var/lib/executor:/bin/false' >>/etc/passwd && \
    echo 'executor:x:65532:' >>/etc/group && \
    mkdir -p /etc/executor/tools /usr/share/executor/tools /var/lib/executor && \
    chown 65532:65532 /var/lib/executor && chmod 0700 /var/lib/executor
# Not every base has the certificates that tls:// needs.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY configs/production.yaml /etc/executor/production.yaml
COPY --from=build /out/executor /usr/local/bin/executor

# As numbers, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /var/lib/executor
EXPOSE 8088
# The first signal drains: what runs may go on for executor.drain_timeout. Give `docker stop` and the like more than that.
STOPSIGNAL SIGTERM
# Healthy is who takes requests. The program asks itself, because a base need not have curl or wget.
HEALTHCHECK --interval=10s --timeout=5s --start-period=40s --retries=3 CMD ["executor", "healthcheck"]
ENTRYPOINT ["executor"]
CMD ["serve", "--config", "/etc/executor/production.yaml"]

ARG VERSION=0.1.0-dev
LABEL org.opencontainers.image.title="Executor" \
      org.opencontainers.image.description="Runs tools for AI agents over NATS" \
      org.opencontainers.image.source="https://github.com/praxis-sdk/executor" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
