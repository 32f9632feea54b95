#!/usr/bin/env bash
# Installs on Debian 12 what the tests beside other programs need beside Go: nginx, and Node.js with the library ws. It
# needs root or sudo, and changes nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")"

sudo=; [ "$(id -u)" = 0 ] || sudo=sudo

missing=
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

cmp -s websocket/ws/package.json websocket/ws/node_modules/.installed || {
	npm install --prefix websocket/ws --no-package-lock --ignore-scripts --no-audit --no-fund --silent
	cp websocket/ws/package.json websocket/ws/node_modules/.installed
}
echo "install: $(PATH=$PATH:/usr/sbin nginx -v 2>&1), node $(node --version)"
