#!/bin/bash
# Arms the belt: a timer that ends this node when its lab's time is up, should the guard not have done so.
# It comes first, so that a node whose later steps fail ends as well.
set -euo pipefail

install -D -m 0755 "$ROOFLAB_HERE/belt.sh" "$ROOT/usr/local/sbin/rooflab-belt"
install -D -m 0755 "$ROOFLAB_HERE/notice.sh" "$ROOT/usr/local/sbin/rooflab-notice"
mkdir -p "$ROOT/etc/systemd/system"
cat >"$ROOT/etc/systemd/system/rooflab-belt.service" <<'END'
[Unit]
Description=Tell workloads before their lab's deadline, and shut this node down after it

[Service]
Type=oneshot
Nice=19
ExecStart=/usr/local/sbin/rooflab-belt
END
cat >"$ROOT/etc/systemd/system/rooflab-belt.timer" <<'END'
[Unit]
Description=Look every minute how long this node's lab still lives

[Timer]
OnActiveSec=1min
OnUnitActiveSec=1min
AccuracySec=5s

[Install]
WantedBy=timers.target
END
systemctl daemon-reload
systemctl enable --now rooflab-belt.timer
