#!/bin/sh
# Keeps the programs of one host running, each under a supervisor of its own. Lies in the host's state folder.
#
#   sh supervise.sh start PROGRAM COMMAND...   begin, in the background, unless PROGRAM is being kept already
#   sh supervise.sh await PROGRAM SECONDS      wait until PROGRAM listens; 0 it does, 1 too late, 3 it has ended
#   sh supervise.sh state PROGRAM...           a line each: PROGRAM SUPERVISOR_PID PID EXIT_STATUS STARTS, - = none
#   sh supervise.sh stop SECONDS PROGRAM...    ask to end, and kill what has not after so many seconds
#   sh supervise.sh keep PROGRAM COMMAND...    be the supervisor: what `start` runs
#
# A supervisor and its program outlive whoever started them. A program that ends with status 0 (it was asked to) or 2
# (its settings are wrong) has ended; any other end is a crash, and it is started again.
#
# Process numbers come again, so a number from a file counts only if that process names this folder in its command.
# POSIX shell, and `sleep` with fractions, which GNU, BusyBox and the BSDs have.

set -u
umask 077
case "$0" in
*/*) cd "${0%/*}" || exit 1 ;;
esac
folder=$(pwd -P) || exit 1

MAX_QUICK_CRASHES=20 # one after the other, each within QUICK_S seconds: it will not get better
QUICK_S=5

number() { # FILE: its content, or nothing
    if { read -r line <"$1"; } 2>/dev/null; then printf '%s\n' "$line"; fi
}

replace() { # FILE CONTENT
    printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"
}

is_ours() { # PID: does it live, and does it belong to this folder? A zombie has no command any more.
    [ -n "$1" ] || return 1
    if [ -e /proc/self/cmdline ]; then
        command=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline") || return 1
    else
        command=$(ps -o args= -p "$1" 2>/dev/null) || return 1
    fi
    case "$command" in
    *"$folder/"*) return 0 ;;
    *) return 1 ;;
    esac
}

is_kept() { # PROGRAM
    is_ours "$(number "$1.supervisor.pid")"
}

start() { # PROGRAM COMMAND...
    is_kept "$1" && return 0
    # What a supervisor that was killed has left running would be in the way.
    if is_ours "$(number "$1.pid")"; then stop 5 "$1"; fi
    rm -f "$1.exit" "$1.pid"
    setsid nohup sh "$folder/supervise.sh" keep "$@" </dev/null >>"$1.supervisor.log" 2>&1 &
    replace "$1.supervisor.pid" "$!"
}

await() { # PROGRAM SECONDS
    tries=$(($2 * 50))
    while [ ! -s "$1.endpoint" ]; do
        [ -e "$1.exit" ] && return 3
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.02
    done
}

state() { # PROGRAM...
    for program in "$@"; do
        supervisor=$(number "$program.supervisor.pid")
        pid=$(number "$program.pid")
        is_ours "$supervisor" || supervisor=-
        is_ours "$pid" || pid=-
        status=$(number "$program.exit")
        starts=$(number "$program.starts")
        echo "$program $supervisor $pid ${status:--} ${starts:-0}"
    done
}

signal() { # SIGNAL PROGRAM: to the supervisor, or, if that was killed, to what it has left
    supervisor=$(number "$2.supervisor.pid")
    pid=$(number "$2.pid")
    if is_ours "$supervisor" && [ "$1" = TERM ]; then
        kill -TERM "$supervisor" 2>/dev/null || :
        # A stopped process hears nothing but this.
        if is_ours "$pid"; then kill -CONT "$pid" 2>/dev/null; fi
    elif is_ours "$supervisor" || is_ours "$pid"; then
        # The supervisor's number is also that of the process group.
        kill -s "$1" -- "-$supervisor" 2>/dev/null || :
        if is_ours "$pid"; then kill "-$1" "$pid" 2>/dev/null; fi
        if is_ours "$pid"; then kill -CONT "$pid" 2>/dev/null; fi
    fi
}

await_end() { # SECONDS PROGRAM...
    tries=$(($1 * 50))
    shift
    for program in "$@"; do
        while is_kept "$program" || is_ours "$(number "$program.pid")"; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || break
            sleep 0.02
        done
    done
}

stop() { # SECONDS PROGRAM...
    patience=$1
    shift
    for program in "$@"; do signal TERM "$program"; done
    await_end "$patience" "$@"
    for program in "$@"; do signal KILL "$program"; done
    # A killed process ends only when the kernel next runs it.
    await_end 5 "$@"
    for program in "$@"; do rm -f "$program.pid" "$program.supervisor.pid"; done
}

keep() { # PROGRAM COMMAND...
    program=$1
    shift
    child=
    stopping=
    status=0
    crashes=0
    starts=$(number "$program.starts")
    starts=${starts:-0}
    trap 'stopping=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT
    trap '' HUP
    while [ -z "$stopping" ]; do
        began_s=$(date +%s)
        starts=$((starts + 1))
        replace "$program.starts" "$starts"
        "$@" </dev/null >>"$program.log" 2>&1 &
        child=$!
        replace "$program.pid" "$child"
        # A signal that came before there was a child found nobody to be forwarded to.
        [ -n "$stopping" ] && kill -TERM "$child" 2>/dev/null
        reap
        status=$reaped
        rm -f "$program.pid"
        case "$status" in 0 | 2) break ;; esac
        [ -n "$stopping" ] && break
        crashes=$((crashes + 1))
        [ $(($(date +%s) - began_s)) -le "$QUICK_S" ] || crashes=1
        echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $program ended with status $status, start $starts" >>"$program.log"
        [ "$crashes" -lt "$MAX_QUICK_CRASHES" ] || break
        case "$crashes" in 1) wait_s=0.2 ;; 2) wait_s=0.4 ;; 3) wait_s=0.8 ;; 4) wait_s=1.6 ;; *) wait_s=2 ;; esac
        sleep "$wait_s" &
        child=$!
        reap
    done
    replace "$program.exit" "$status"
    rm -f "$program.supervisor.pid"
}

reap() { # wait for $child, whatever signals come meanwhile; how it ended is in $reaped
    while :; do
        wait "$child"
        reaped=$?
        kill -0 "$child" 2>/dev/null || break
    done
    # Above 128 it may be the signal that ended the waiting and not the child: the shell still knows how that ended.
    if [ "$reaped" -gt 128 ]; then
        wait "$child" 2>/dev/null
        again=$?
        [ "$again" -eq 127 ] || reaped=$again
    fi
    child=
}

action=$1
shift
case "$action" in
start | await | state | stop | keep) "$action" "$@" ;;
*)
    echo "supervise.sh: there is no action '$action'" >&2
    exit 64
    ;;
esac
