#!/usr/bin/env bash
# Proves the README on a machine that has nothing but Go, git and make: a minimal Debian 12 in a folder.
#
# It clones the present commit into it, runs there the commands of the README's block marked "sh fresh" as they
# stand, places an order with the very line the program prints, stops it, and runs the tests. The apt mirror, module
# proxy, certificates and proxies are those of this machine, read when it runs.
#
#   FRESH_DIR    where the Debian lives (default: a folder of its own under TMPDIR); it is kept, to be fast next time
#   FRESH_CLEAN  1: make the Debian and the module cache anew
#   FRESH_ONLY   run | test: only that command of the README
set -euo pipefail

say()  { printf 'fresh: %s\n' "$*"; }
fail() { printf 'fresh: FAILED: %s\n' "$*" >&2; exit 1; }
now()  { date +%s%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }

[ "$(uname -s)" = Linux ] || fail "needs Linux"
[ "$(id -u)" = 0 ] || fail "needs root, for debootstrap, chroot and mount: sudo make fresh"

# Mounts and processes live in namespaces of this script's own, so that nothing of them outlives it.
if [ "${FRESH_INSIDE:-}" != 1 ]; then
	exec env FRESH_INSIDE=1 unshare --mount --propagation private --pid --fork --kill-child -- "$0" "$@"
fi

repo=$(cd "$(dirname "$0")/../.." && pwd)
cd "$repo"
dir=${FRESH_DIR:-${TMPDIR:-/tmp}/loam-fresh}
root=$dir/root
mkdir -p "$dir"

mapfile -t commands < <(awk '/^```sh fresh$/ { on = 1; next } /^```$/ { on = 0 } on && NF' README.md)
[ ${#commands[@]} = 2 ] || fail "README.md: the block marked \"sh fresh\" holds ${#commands[@]} commands, not two"

# --- the Debian

if ! command -v debootstrap >/dev/null; then
	say "installing debootstrap"
	apt-get install -y -qq debootstrap >/dev/null || fail "cannot install debootstrap: apt-get update, then try again"
fi

mirror() {
	apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 2>/dev/null | awk '$2 == "bookworm" { print $1; exit }'
}

[ "${FRESH_CLEAN:-}" != 1 ] || rm -rf "$dir/base.tar" "$root"
if [ ! -f "$dir/base.tar" ]; then
	from=$(mirror)
	[ -n "$from" ] || fail "this machine's apt sources name no mirror of Debian 12 (bookworm)"
	proxy=$(apt-config shell P Acquire::http::Proxy); eval "$proxy"
	[ -z "${P:-}" ] || export http_proxy=$P
	say "debootstrap, minbase with git and make"
	t=$(now)
	rm -rf "$dir/base"
	debootstrap --variant=minbase --include=git,make bookworm "$dir/base" "$from" >"$dir/debootstrap.log" 2>&1 ||
		{ tail -20 "$dir/debootstrap.log" >&2; fail "debootstrap; all it said is in $dir/debootstrap.log"; }
	rm -rf "$dir"/base/var/cache/apt/archives/*.deb
	tar -C "$dir/base" -cf "$dir/base.tar.new" .
	mv "$dir/base.tar.new" "$dir/base.tar"
	rm -rf "$dir/base"
	say "debootstrap took $(since "$t") s"
fi

# What Go downloaded and built stays from run to run, unless FRESH_CLEAN: the network is not what is proved.
mkdir -p "$dir/keep"
[ ! -d "$root/root/go" ] || { rm -rf "$dir/keep/go"; mv "$root/root/go" "$dir/keep/go"; }
[ "${FRESH_CLEAN:-}" != 1 ] || rm -rf "$dir/keep"
rm -rf "$root"
mkdir -p "$root"
tar -C "$root" -xf "$dir/base.tar"
[ ! -d "$dir/keep/go" ] || mv "$dir/keep/go" "$root/root/go"

for tool in gcc cc clang curl; do
	[ -z "$(chroot "$root" /bin/sh -c "command -v $tool")" ] || fail "$tool is in the minimal Debian: it should not be"
done

# --- this machine's settings

goroot=$(go env GOROOT)
mkdir -p "$root/usr/local/go"
cp -a "$goroot/." "$root/usr/local/go/"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true

bundle=${SSL_CERT_FILE:-}
for b in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
	[ -n "$bundle" ] || [ ! -f "$b" ] || bundle=$b
done
[ -n "$bundle" ] || fail "no bundle of certificates: set SSL_CERT_FILE"
mkdir -p "$root/etc/ssl/certs"
cp -L "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"

settings=(
	"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	"HOME=/root" "LANG=C.UTF-8" "TERM=dumb"
)
for name in GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOFLAGS; do
	settings+=("$name=$(go env "$name")")
done
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY GOMAXPROCS; do
	[ -z "${!name:-}" ] || settings+=("$name=${!name}")
done

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
server=
leave() {
	[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
	umount -l "$root/proc" "$root/dev" 2>/dev/null || true
}
trap leave EXIT

inside() { chroot "$root" /usr/bin/env -i "${settings[@]}" /bin/bash -c "$1"; }

# --- the clone

commit=$(git rev-parse HEAD)
git bundle create -q "$root/tmp/loam.bundle" HEAD --tags
inside 'git -c advice.detachedHead=false clone -q /tmp/loam.bundle /root/loam'
[ "$(inside 'git -C /root/loam rev-parse HEAD')" = "$commit" ] || fail "the clone is not at $commit"
git diff --quiet HEAD -- || say "note: what is not committed is not in the clone"
say "commit $(git rev-parse --short HEAD) in Debian $(cat "$root/etc/debian_version"), $(inside 'go version')"

# --- the first command: it serves until it is stopped

serve() {
	local log=$root/root/run.log started built= url= try= pid= status answer
	started=$(now)
	say "\$ $1"
	inside "cd /root/loam && exec $1" >"$log" 2>&1 &
	server=$!
	for ((i = 0; i < 9000; i++)); do # 15 minutes: a cold machine downloads and builds everything
		kill -0 "$server" 2>/dev/null || { cat "$log" >&2; fail "\"$1\" ended before it served"; }
		[ -n "$built" ] || ! grep -q '^built ' "$log" || built=$(now)
		[ -n "$url" ] || url=$(sed -nE 's,^ *(Shop|Open) +(http://[^ ]+).*,\2,p' "$log" | head -1)
		if [ -n "$url" ] && curl -fsS -m 10 -o "$dir/page" "$url" 2>"$dir/curl.log"; then break; fi
		sleep 0.1
	done
	[ -s "$dir/page" ] || { cat "$log" "$dir/curl.log" >&2; fail "\"$1\" printed no line \"Shop URL\" or \"Open URL\" that answers"; }
	say "first answer from $url after $(since "$started") s, $(since "${built:-$started}") s of it after the build"
	rm -f "$dir/page"

	try=$(sed -nE 's|^ *Try +(curl .*)|\1|p' "$log" | head -1)
	[ -n "$try" ] || { cat "$log" >&2; fail "\"$1\" printed no line \"Try curl …\""; }
	answer=$(bash -c "${try/curl /curl -sS -m 30 --fail-with-body }") || { cat "$log" >&2; fail "$try: $answer"; }
	say "\$ $try"
	say "$answer"

	# SIGTERM to the program itself, as an init system would send it; make, above it, ends with its status.
	pid=$(grep -lsx loam "$root"/proc/[0-9]*/comm | head -1 | sed "s,/comm$,,; s,.*/,,")
	[ -n "$pid" ] || fail "no process called loam"
	kill -TERM "$pid"
	status=0; wait "$server" || status=$?
	server=
	[ "$status" = 0 ] || { tail -30 "$log" >&2; fail "after SIGTERM \"$1\" ended with $status, not 0"; }
	say "SIGTERM: it ended with 0"
}

run_tests() {
	local t; t=$(now)
	say "\$ $1"
	inside "cd /root/loam && $1" || fail "\"$1\" ended with $?"
	say "\"$1\" passed in $(since "$t") s"
}

[ "${FRESH_ONLY:-run}" != run ]   || serve "${commands[0]}"
[ "${FRESH_ONLY:-test}" != test ] || run_tests "${commands[1]}"
say "ok: the README's commands work on a minimal Debian 12"
