#!/bin/sh
# Starts a workerd for executors. It ends with the server: descriptor 3 is a
# pipe whose other end the server holds, and that breaks with it. A line says
# that workerd has ended by itself, and its number may be another's.
ulimit -n "$DROVER_DESCRIPTORS" 2>/dev/null
( read -r _ <&3 || kill -9 $$ ) 2>/dev/null &
exec "$@" 3<&-
