# The image of every role: compiled JavaScript on Node 24, uid 1337, no npm. iptables and iproute2 are for the init container,
# which runs `handfast iptables apply` as root with NET_ADMIN and NET_RAW; the sidecar itself needs neither.

FROM node:24.22.3-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && npm prune --omit=dev

FROM node:24.22.3-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables iproute2 \
 && rm -rf /var/lib/apt/lists/* \
      /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /usr/local/bin/yarn* /opt/yarn* \
 && groupadd --gid 1337 handfast \
 && useradd --uid 1337 --gid 1337 --no-create-home --shell /usr/sbin/nologin handfast
WORKDIR /app
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY package.json LICENSE ./
COPY iptables ./iptables
USER 1337:1337
# The young generation stays small: the same speed, a quarter less memory under load.
ENTRYPOINT ["node", "--max-semi-space-size=1", "/app/dist/main.js"]
CMD ["--help"]
