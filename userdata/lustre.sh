#!/bin/bash
# Installs the Lustre client for exactly the running kernel and mounts the lab's file system at /fsx.
# https://docs.aws.amazon.com/fsx/latest/LustreGuide/install-lustre-client.html
set -euo pipefail

kernel=$(uname -r)
site=https://fsx-lustre-client-repo
key=$ROOT/usr/share/keyrings/fsx-lustre.gpg
if ! modinfo lustre >/dev/null 2>&1; then
  mkdir -p "$ROOT/usr/share/keyrings" "$ROOT/etc/apt/sources.list.d"
  curl -fsS --retry 5 "$site-public-keys.s3.amazonaws.com/fsx-ubuntu-public-key.asc" | gpg --dearmor --yes -o "$key"
  codename=$(sed -n "s/^VERSION_CODENAME=//p" "$ROOT/etc/os-release")
  echo "deb [signed-by=$key] $site.s3.amazonaws.com/ubuntu $codename main" \
    >"$ROOT/etc/apt/sources.list.d/fsx-lustre.list"
  apt-get update -q
  if ! apt-cache show "lustre-client-modules-$kernel" >/dev/null; then
    echo "AWS has no Lustre client for kernel $kernel: deploy with -c storage=none, or bake an older image"
    exit 1
  fi
  apt-get install -qy "lustre-client-modules-$kernel"
fi

mkdir -p "$ROOT/fsx"
line="$ROOFLAB_FSX_HOST@tcp:/$ROOFLAB_FSX_NAME /fsx lustre defaults,_netdev,noatime,flock,user_xattr 0 0"
grep -qxF "$line" "$ROOT/etc/fstab" || echo "$line" >>"$ROOT/etc/fstab"
findmnt "$ROOT/fsx" >/dev/null || mount /fsx
chown "${ROOFLAB_USER:-ubuntu}:" "$ROOT/fsx"
echo "export ROOFLAB_SHARED=/fsx" >>"$ROOFLAB_ENV"
