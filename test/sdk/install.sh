#!/usr/bin/env bash
# Installs on Debian 12 what the tests behind the tag sdk need beside Go: the compilers of the guest SDKs' languages. It
# needs root or sudo, and changes nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

sudo=; [ "$(id -u)" = 0 ] || sudo=sudo

want="gcc libc6-dev clang lld wasi-libc libclang-rt-dev-wasm32 rustc libstd-rust-dev-wasm32"
command -v node >/dev/null || want="$want nodejs"
command -v npm >/dev/null || want="$want npm"
missing=
for p in $want; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

for dir in examples/languages/assemblyscript wasm/proxywasm/testdata/stranger; do
	cmp -s "$dir/package-lock.json" "$dir/node_modules/.installed" || {
		npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --silent
		cp "$dir/package-lock.json" "$dir/node_modules/.installed"
	}
done
echo "install: clang $(clang --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p'), $(/usr/bin/rustc --version | cut -d' ' -f1-2), node $(node --version)"
