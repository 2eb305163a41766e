#!/bin/sh
# The step "sign": lists the checksums of all inputs and signs the list with the product's key.
#
# In:  inputs/STEP/dist/FILE...
#      SIGNING_KEY, the path of an OpenSSH private key without passphrase that only its owner can read
# Out: dist/SHA256SUMS, dist/SHA256SUMS.sig
#
# Who has the files beside the list, and the product's public key in allowed_signers, checks with
#      ssh-keygen -Y verify -f allowed_signers -I hello -n file -s SHA256SUMS.sig <SHA256SUMS
#      sha256sum --check SHA256SUMS
set -eu
umask 022
export LC_ALL=C

fail() { echo "sign: $*" >&2 && exit 1; }

key=${SIGNING_KEY:?no signing key is given}
[ -r "$key" ] || fail "cannot read the signing key $key"

mkdir -p dist
sums=dist/SHA256SUMS
for file in inputs/*/dist/*; do
    [ -f "$file" ] || fail "not a file: $file"
    sum=$(sha256sum <"$file")
    printf '%s  %s\n' "${sum%% *}" "${file##*/}"
done >"$sums"
sort -k 2 -o "$sums" "$sums"

twice=$(cut -c 67- "$sums" | uniq -d)
[ -z "$twice" ] || fail "two inputs have the same name: $twice"

ssh-keygen -q -Y sign -f "$key" -n file <"$sums" >"$sums.sig"
ssh-keygen -q -Y check-novalidate -n file -s "$sums.sig" <"$sums"

echo "signed $(wc -l <"$sums") checksums"
