#!/bin/bash
# Keeps the system as it booted: no unattended upgrade under a measurement, no new kernel that Lustre's and NVIDIA's
# modules do not fit. Raises the limits that RDMA and many ranks need. Login by key only.
set -euo pipefail

systemctl mask --now apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service
mapfile -t kernels < <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 'linux-*' | awk '$1 == "ii" { print $2 }')
if [ "${#kernels[@]}" -gt 0 ]; then
  apt-mark hold "${kernels[@]}"
fi

mkdir -p "$ROOT/etc/apt/apt.conf.d" "$ROOT/etc/security/limits.d" "$ROOT/etc/ssh/sshd_config.d"
cat >"$ROOT/etc/apt/apt.conf.d/90rooflab" <<'END'
Acquire::Retries "5";
APT::Install-Recommends "false";
DPkg::Lock::Timeout "300";
END
cat >"$ROOT/etc/security/limits.d/90-rooflab.conf" <<'END'
* - memlock unlimited
* - nofile 65536
END
cat >"$ROOT/etc/ssh/sshd_config.d/10-rooflab.conf" <<'END'
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
X11Forwarding no
END
sshd -t
systemctl reload ssh
