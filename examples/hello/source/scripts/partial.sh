#!/bin/sh
# The step "partial": makes the small update that leads from the previous release to this one, and proves it.
#
# In:  inputs/build/dist/delta
#      inputs/build/dist/hello-TO.complete.tar        of this release
#      inputs/previous/dist/hello-FROM.complete.tar   of the previous release
# Out: dist/hello-FROM-TO.partial
set -eu
umask 022
export LC_ALL=C

fail() { echo "partial: $*" >&2 && exit 1; }

# version_of FILE...: the version in the name of the only complete update that is given.
version_of() {
    [ $# -eq 1 ] && [ -f "$1" ] || fail "expected exactly one complete update, found: $*"
    name=${1##*/hello-}
    printf '%s\n' "${name%.complete.tar}"
}

from=$(version_of inputs/previous/dist/hello-*.complete.tar)
to=$(version_of inputs/build/dist/hello-*.complete.tar)
[ "$from" != "$to" ] || fail "the previous release is this one: $to"
old=inputs/previous/dist/hello-$from.complete.tar
new=inputs/build/dist/hello-$to.complete.tar
partial=dist/hello-$from-$to.partial

mkdir -p dist
scratch=$(mktemp -d ./scratch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
cp inputs/build/dist/delta "$scratch/delta" # inputs need not be executable
chmod 755 "$scratch/delta"

"$scratch/delta" diff "$old" "$new" "$partial"
"$scratch/delta" patch "$old" "$partial" "$scratch/new"
cmp "$scratch/new" "$new" || fail "$partial does not lead to hello $to"

echo "made hello $from to $to: $(wc -c <"$partial") bytes in place of $(wc -c <"$new")"
