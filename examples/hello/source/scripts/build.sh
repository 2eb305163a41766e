#!/bin/sh
# The step "build": compiles the program and the delta tool, and packs the complete update.
#
# In:  source/
# Out: dist/hello, dist/delta, dist/hello-VERSION.complete.tar
#
# The same source and compiler give the same bytes, in whatever directory and at whatever time.
set -eu
umask 022
export LC_ALL=C TZ=UTC

version=$(cat source/VERSION)
case $version in
'' | *[!0-9.]*) echo "build: VERSION is not a version: $version" >&2 && exit 1 ;;
esac

mkdir -p dist
scratch=$(mktemp -d ./scratch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR="$scratch"

compile() { cc -std=c11 -O2 -Wall -Wextra "-ffile-prefix-map=$PWD=." -s -o "$@"; }
compile dist/hello "-DVERSION=\"$version\"" source/src/hello.c
compile dist/delta source/tools/delta.c

said=$(dist/hello --version)
[ "$said" = "hello $version" ] || { echo "build: hello says it is '$said'" >&2 && exit 1; }

mkdir -p "$scratch/hello/bin"
cp dist/hello "$scratch/hello/bin/"
cp source/VERSION source/CHANGES "$scratch/hello/"
tar --create --file "dist/hello-$version.complete.tar" --directory "$scratch" --format=ustar --sort=name \
    --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX hello

echo "built hello $version"
