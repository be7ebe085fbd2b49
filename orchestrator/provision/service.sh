#!/bin/sh
# Keeps the programs of one run on one host by systemd. Lies in the host's .edgebed; its sibling for hosts without
# systemd is supervise.sh, which answers to the same actions in the same words.
#
#   sh service.sh SCOPE FOLDER start PROGRAM COMMAND...   begin, unless PROGRAM is being kept already
#   sh service.sh SCOPE FOLDER await PROGRAM SECONDS      wait until PROGRAM listens; 0 it does, 1 too late, 3 it ended
#   sh service.sh SCOPE FOLDER state PROGRAM...           a line each: PROGRAM KEEPER_PID PID EXIT_STATUS STARTS, - = none
#   sh service.sh SCOPE FOLDER stop SECONDS PROGRAM...    ask to end, and kill what has not after so many seconds
#
# SCOPE is system or user; FOLDER is the run's state folder. A host runs each program at most once: active/PROGRAM names
# the folder that it runs for, and what runs for another folder is left alone.

set -u
umask 077
root=$(cd "$(dirname "$0")" && pwd -P) || exit 1
scope=$1
folder=$2
action=$3
shift 3
cd "$folder" || exit 1
: "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}"
export XDG_RUNTIME_DIR

unit() { # PROGRAM
    echo "edgebed@$1.service"
}

ask() { # systemctl that only looks
    case "$scope" in
    system) systemctl "$@" ;;
    *) systemctl --user "$@" ;;
    esac
}

order() { # systemctl that changes something
    case "$scope$(id -u)" in
    system0) systemctl "$@" ;;
    system*) sudo -n systemctl "$@" ;;
    *) systemctl --user "$@" ;;
    esac
}

is_ours() { # PROGRAM
    [ "$(cat "$root/active/$1" 2>/dev/null)" = "$folder" ]
}

look() { # PROGRAM: sets active, pid, code, status
    active=inactive pid=0 code=0 status=0
    properties=$(ask show -p ActiveState -p MainPID -p ExecMainCode -p ExecMainStatus "$(unit "$1")") || return 1
    for property in $properties; do
        case "$property" in
        ActiveState=*) active=${property#*=} ;;
        MainPID=*) pid=${property#*=} ;;
        ExecMainCode=*) code=${property#*=} ;;
        ExecMainStatus=*) status=${property#*=} ;;
        esac
    done
}

is_kept() { # PROGRAM: it runs, or is going to be started again
    look "$1" || return 1
    case "$active" in active | activating | reloading) return 0 ;; *) return 1 ;; esac
}

quoted() { # WORD...: as a shell reads them back
    for word in "$@"; do
        printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
    done
}

replace() { # FILE CONTENT
    printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"
}

start() { # PROGRAM COMMAND...
    program=$1
    shift
    if is_kept "$program"; then
        is_ours "$program" && return 0
        other=$(cat "$root/active/$program" 2>/dev/null)
        if [ -n "$other" ] && [ -d "$other" ]; then
            echo "$program runs for another run already: $other; end that run first" >&2
            return 1
        fi
    fi
    rm -f "$program.exit"
    replace "$program.command" "$(quoted "$@")" || return 1
    replace "$root/active/$program" "$folder" || return 1
    # A program that had crashed too often is not started again without this; it fails when there is nothing to forget.
    order reset-failed "$(unit "$program")" 2>/dev/null
    order restart "$(unit "$program")"
}

await() { # PROGRAM SECONDS
    tries=$(($2 * 50))
    while [ ! -s "$1.endpoint" ]; do
        if [ $((tries % 10)) = 0 ]; then is_kept "$1" || return 3; fi
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.02
    done
}

state() { # PROGRAM...
    for program in "$@"; do
        starts=$(cat "$program.starts" 2>/dev/null)
        if is_ours "$program"; then
            keeper=-
            is_kept "$program" && keeper=1
            [ "$pid" = 0 ] && pid=-
            ended=-
            # 1 is CLD_EXITED: it ended by itself, and its status says something.
            [ "$keeper$pid$code" = "--1" ] && ended=$status
            echo "$program $keeper $pid $ended ${starts:-0}"
        else
            ended=$(cat "$program.exit" 2>/dev/null)
            echo "$program - - ${ended:--} ${starts:-0}"
        fi
    done
}

is_over() { # PROGRAM
    look "$1" || return 1
    case "$active" in inactive | failed) return 0 ;; *) return 1 ;; esac
}

stop() { # SECONDS PROGRAM...
    tries=$(($1 * 20))
    shift
    ours=
    for program in "$@"; do
        is_ours "$program" || continue
        ours="$ours $program"
        order stop --no-block "$(unit "$program")" || return 1
    done
    for program in $ours; do
        while ! is_over "$program"; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || break
            sleep 0.05
        done
    done
    for program in $ours; do
        if ! is_over "$program"; then
            order kill -s KILL "$(unit "$program")" 2>/dev/null
            tries=100
            while ! is_over "$program" && [ "$tries" -gt 0 ]; do
                tries=$((tries - 1))
                sleep 0.05
            done
        fi
        is_over "$program" || return 1
        if [ "$code" = 1 ]; then replace "$program.exit" "$status"; fi
        # Last: should the host go down before this, the program starts once more and can be stopped again.
        rm -f "$root/active/$program"
    done
}

case "$action" in
start | await | state | stop) "$action" "$@" ;;
*)
    echo "service.sh: there is no action '$action'" >&2
    exit 64
    ;;
esac
