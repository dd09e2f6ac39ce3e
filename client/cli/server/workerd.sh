#!/bin/sh
# Starts workerd for the local server: raises the descriptor limit, leaves the
# process id in the data folder before anything there is opened, and gives up
# if another server has taken the folder meanwhile. Miniflare calls it in the
# place of workerd (MINIFLARE_WORKERD_PATH) and passes workerd's arguments.
ulimit -n "$DROVER_DESCRIPTORS" 2>/dev/null
if [ "$DROVER_PAUSE_SECONDS" != 0 ]; then sleep "$DROVER_PAUSE_SECONDS"; fi
echo "$$" > "$DROVER_DATA/workerd.pid" || exit 1
# The next server writes its name first and reads the process id afterwards, so one of the two always sees the other.
grep -q "$DROVER_INSTANCE" "$DROVER_DATA/lock" || exit 1
# Executors in other processes end when nobody holds their pipe any more.
if [ -p "$DROVER_ALIVE" ]; then exec 9<>"$DROVER_ALIVE"; fi
exec "$DROVER_WORKERD" "$@"
