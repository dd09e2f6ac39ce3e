#!/bin/sh
# Runs a workerd for executors, and ends it with the one that it works for:
# that holds the pipe DROVER_ALIVE open for as long as it lives, and the server
# does so until it is there. SIGTERM ends both at once; there is nothing to save.
ulimit -n "$DROVER_DESCRIPTORS" 2>/dev/null
"$@" &
workerd=$!
echo $workerd > "$DROVER_PID"
# Or it would tell what it has ended.
exec 2>/dev/null
( read -r _ < "$DROVER_ALIVE"; kill -9 $workerd ) &
watch=$!
trap 'kill -9 $workerd $watch; exit 0' TERM
wait $workerd
code=$?
kill -9 $watch
exit $code
