#!/bin/bash
# Checks that every EFA device is there, that libfabric opens them, and that NCCL finds its plugin.
set -euo pipefail

amazon=$ROOT/opt/amazon
found=$(find "$ROOT/sys/class/infiniband" -mindepth 1 -maxdepth 1 | wc -l)
if [ "$found" -ne "$ROOFLAB_EFAS" ]; then
  echo "$found EFA devices are there, the lab asked for $ROOFLAB_EFAS"
  exit 1
fi
if ! "$amazon/efa/bin/fi_info" -p efa -t FI_EP_RDM; then
  echo "libfabric does not open the EFA devices: fi_info -p efa failed"
  exit 1
fi
plugin=$(find "$amazon/ofi-nccl" -name 'libnccl-net*.so' -print -quit)
if [ -z "$plugin" ]; then
  echo "NCCL's plugin for EFA is not in $amazon/ofi-nccl"
  exit 1
fi
# FI_PROVIDER makes a missing EFA fail loudly instead of falling back to TCP.
cat >>"$ROOFLAB_ENV" <<END
export FI_PROVIDER=efa NCCL_SOCKET_IFNAME=^docker,lo,veth ROOFLAB_EFAS=$found
export LD_LIBRARY_PATH=$(dirname "$plugin"):$amazon/efa/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
END
