#!/bin/sh
# Runs a workerd for executors, and ends it with the one that it works for:
# descriptor 3 reads from a pipe that the other holds open for as long as it
# lives. SIGTERM ends both at once; there is nothing to save.
workerd=
watch=
trap 'kill -9 $workerd $watch; exit 0' TERM
ulimit -n "$DROVER_DESCRIPTORS" 2>/dev/null
"$@" 3<&- &
workerd=$!
# Or it would tell what it has ended.
exec 2>/dev/null
( read -r _ <&3; kill -9 $workerd ) &
watch=$!
echo $workerd > "$DROVER_PID"
wait $workerd
code=$?
kill -9 $watch
exit $code
