#!/usr/bin/env bash
# A workload that takes no time: quick.sh NAME LEDGER SECONDS. It writes its record as a workload does, whole or not
# at all, and then tells the soak's ledger, which no death of a node reaches.
name=$1 ledger=$2 seconds=$3
say() { echo "$1 $ROOFLAB_RUN $ROOFLAB_NODE $name $REHEARSAL_NODE" >> "$ledger"; }
say began
sleep "$seconds"
record="$ROOFLAB_RUN_DIR/records/$name.$ROOFLAB_NODE.json"
sed "s/NODE/$ROOFLAB_NODE/" "$name.json" > "$record.partial" && mv "$record.partial" "$record" && say wrote
