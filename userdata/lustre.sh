#!/bin/bash
# Installs the Lustre client for exactly the running kernel and mounts the lab's file system at /fsx. Where it shows an
# S3 prefix, that is its directory /fsx/data: Lustre's servers fetch a file when it is first read, the node does nothing.
# https://docs.aws.amazon.com/fsx/latest/LustreGuide/install-lustre-client.html
set -euo pipefail

kernel=$(uname -r)
key=$ROOT/usr/share/keyrings/fsx-lustre.gpg

bucket() { # the URL of one of AWS's buckets
  if [ "${ROOFLAB_IPV6_ONLY:-0}" != 1 ]; then
    echo "https://$1.s3.amazonaws.com"
    return
  fi
  # Names with IPv6 hold the bucket's region, which S3 tells whoever asks, allowed or not:
  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
  local region
  region=$(curl -sSI -m 20 --retry 5 "https://s3.dualstack.us-east-1.amazonaws.com/$1" |
    sed -n 's/^x-amz-bucket-region: *\([a-z0-9-]*\).*/\1/Ip')
  echo "https://$1.s3.dualstack.${region:-us-east-1}.amazonaws.com"
}

if ! modinfo lustre >/dev/null 2>&1; then
  mkdir -p "$ROOT/usr/share/keyrings" "$ROOT/etc/apt/sources.list.d"
  curl -fsS --retry 5 "$(bucket fsx-lustre-client-repo-public-keys)/fsx-ubuntu-public-key.asc" |
    gpg --dearmor --yes -o "$key"
  codename=$(sed -n "s/^VERSION_CODENAME=//p" "$ROOT/etc/os-release")
  echo "deb [signed-by=$key] $(bucket fsx-lustre-client-repo)/ubuntu $codename main" \
    >"$ROOT/etc/apt/sources.list.d/fsx-lustre.list"
  apt-get update -q
  if ! apt-cache show "lustre-client-modules-$kernel" >/dev/null; then
    echo "AWS has no Lustre client for kernel $kernel: deploy with -c storage=none, or bake an older image"
    exit 1
  fi
  apt-get install -qy "lustre-client-modules-$kernel"
fi

mkdir -p "$ROOT/fsx"
fstab=$ROOT/etc/fstab
line="$ROOFLAB_FSX_HOST@tcp:/$ROOFLAB_FSX_NAME /fsx lustre"
line+=" defaults,_netdev,noatime,flock,user_xattr,noauto,x-systemd.automount 0 0"
if ! grep -qxF "$line" "$fstab"; then
  sed -i '\# /fsx lustre #d' "$fstab" # of the lab that this image was baked from
  echo "$line" >>"$fstab"
fi
if ! findmnt "$ROOT/fsx" >/dev/null; then
  if ! mount /fsx; then
    echo "$ROOFLAB_FSX_HOST cannot be mounted: does its security group let the nodes in on 988 and 1018-1023?"
    exit 1
  fi
fi
chown "${ROOFLAB_USER:-ubuntu}:" "$ROOT/fsx"
# How it was bought bounds how fast it is, and a client is not told.
bought="ROOFLAB_STORAGE=$ROOFLAB_STORAGE ROOFLAB_STORAGE_GIB=$ROOFLAB_STORAGE_GIB"
echo "export ROOFLAB_SHARED=/fsx $bought" >>"$ROOFLAB_ENV"
