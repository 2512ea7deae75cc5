#!/bin/bash
# Starts the watch for EC2's notice that it takes this spot instance back.
set -euo pipefail

install -D -m 0755 "$ROOFLAB_HERE/watch.sh" "$ROOT/usr/local/sbin/rooflab-watch"
mkdir -p "$ROOT/etc/systemd/system"
cat >"$ROOT/etc/systemd/system/rooflab-watch.service" <<'END'
[Unit]
Description=Tell workloads when EC2 takes this spot instance back

[Service]
Nice=19
Restart=on-failure
ExecStart=/usr/local/sbin/rooflab-watch

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable rooflab-watch.service
systemctl restart rooflab-watch.service
