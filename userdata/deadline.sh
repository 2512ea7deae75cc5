#!/bin/bash
# Arms the belt: a timer that ends this node when its lab's time is up, should the guard not have done so.
# It comes first, so that a node whose later steps fail ends as well.
set -euo pipefail

install -D -m 0755 "$ROOFLAB_HERE/belt.sh" "$ROOT/usr/local/sbin/rooflab-belt"
mkdir -p "$ROOT/etc/systemd/system"
cat >"$ROOT/etc/systemd/system/rooflab-belt.service" <<'END'
[Unit]
Description=Shut this node down after its lab's deadline

[Service]
Type=oneshot
Nice=19
ExecStart=/usr/local/sbin/rooflab-belt
END
cat >"$ROOT/etc/systemd/system/rooflab-belt.timer" <<'END'
[Unit]
Description=Look every five minutes whether this node's lab is over

[Timer]
OnActiveSec=1min
OnUnitActiveSec=5min

[Install]
WantedBy=timers.target
END
systemctl daemon-reload
systemctl enable --now rooflab-belt.timer
