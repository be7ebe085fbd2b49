#!/bin/sh
# What systemd runs as edgebed@PROGRAM: the program of the run that active/PROGRAM names, in that run's state folder.
#
#   sh launch.sh PROGRAM
#
# Lies in the host's .edgebed. `exec`, so that systemd sees the program itself: its number, its end, its status.
# Status 2 is one that systemd does not answer with a restart: whatever is missing here will be missing again.

set -u
umask 077
root=$(cd "$(dirname "$0")" && pwd -P) || exit 2
program=$1
folder=$(cat "$root/active/$program") || exit 2
cd "$folder" || exit 2
exec </dev/null >>"$program.log" 2>&1
# Counted here: systemd's own count begins again with every reboot.
starts=$(cat "$program.starts" 2>/dev/null)
printf '%s\n' "$((${starts:-0} + 1))" >"$program.starts.new" && mv "$program.starts.new" "$program.starts"
command=$(cat "$program.command") || exit 2
eval "exec $command"
