#!/usr/bin/env bash
# Installs on Debian 12 the redis-server that the tests of component/redis start. It needs root or sudo where there is none,
# and changes nothing where there is one.
set -euo pipefail

if ! command -v redis-server >/dev/null; then
	command -v apt-get >/dev/null || { echo "install: no apt-get here: install redis-server 6.2 or newer, or its tests fail" >&2; exit 0; }
	sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq
	# RUNLEVEL=1 keeps the package from starting a server of its own: the tests start theirs.
	$sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
fi
command -v redis-server >/dev/null && echo "install: $(redis-server --version | cut -d' ' -f1-3)"
