#!/bin/sh
# Does faults to one host, and lifts them. Lies in the host's state folder.
#
#   sh faults.sh begin ID FOR_S KIND ARGUMENT...   0 done, 3 there is nothing to do it to
#   sh faults.sh lift ID BY                        0 lifted, now or before; 5 not over yet; prints who lifted it
#   sh faults.sh lift_all BY                       lift what is not lifted; prints a line for each that is over: ID BY
#   sh faults.sh able KIND                         0 yes; 1 no, and prints why not
#   sh faults.sh timer ID FOR_S                    the dead man's timer: what `begin` leaves running
#
# What will undo a fault is on the disk, and the timer runs, before anything is done: so a fault ends by itself when
# whoever ordered it is gone, and after a reboot the next `lift_all` finds what is left. Undoing twice does no harm.

set -u
umask 077
PATH=$PATH:/usr/sbin:/sbin
folder=$(cd "$(dirname "$0")" && pwd -P) || exit 1
notes=$folder/faults
TABLE=edgebed_fault
HANDLE=ed9e:

fail() { # TEXT
    echo "$1" >&2
    exit 1
}

as_root() { # COMMAND...
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

is_ours() { # PID: a program of this run? Process numbers come again. A zombie has no command any more.
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF "$folder/"
}

# Of the host's present start: containers share the kernel's, and differ in when their first process began.
start_of_host() {
    printf '%s-%s\n' "$(cat /proc/sys/kernel/random/boot_id)" "$(sed 's/.*) //' /proc/1/stat | cut -d' ' -f20)"
}

uptime_s() { # the monotonic clock, near enough
    cut -d' ' -f1 /proc/uptime
}

device() { # the interface that leads to whoever asks
    client=${SSH_CONNECTION:-}
    client=${client%% *}
    [ -n "$client" ] || fail "it is not known over which interface the orchestrator comes: SSH_CONNECTION is not set"
    ip -o route get "$client" | sed -n 's/.* dev \([^ ]*\).*/\1/p'
}

# -- one fault each: do_KIND FOR_S ARGUMENT... sets `undo` before it acts, by calling `ready`; undo_KIND ARGUMENT... ----

ready() { # UNDO...: write it down and start the timer
    mkdir -p "$notes" && printf '%s\n' "$*" >"$notes/$id.new" || fail "the undo cannot be written in $notes"
    mv "$notes/$id.new" "$notes/$id.undo" || fail "the undo cannot be written in $notes"
    sync "$notes/$id.undo" 2>/dev/null || sync
    [ "$for_s" = 0 ] && return 0
    setsid nohup sh "$folder/faults.sh" timer "$id" "$for_s" </dev/null >/dev/null 2>&1 &
    echo "$!" >"$notes/$id.timer"
}

do_kill() { # PID
    is_ours "$1" || exit 3
    mkdir -p "$notes" && echo itself >"$notes/$id.ended" || fail "nothing can be written in $notes"
    kill -KILL "$1"
}

do_stop() { # PID
    is_ours "$1" || exit 3
    ready undo_stop "$1"
    kill -STOP "$1"
}

undo_stop() { # PID
    if is_ours "$1"; then kill -CONT "$1"; fi
}

do_reboot() {
    for_s=0
    ready undo_reboot "$(start_of_host)"
    # Later than the answer to whoever asked.
    (
        sleep 0.3
        as_root systemctl reboot || as_root reboot
    ) </dev/null >/dev/null 2>&1 &
}

undo_reboot() { # START: nothing to do but to wait for the next
    [ "$(start_of_host)" != "$1" ] || exit 5
}

do_cut_link() {
    port=${SSH_CONNECTION:-}
    port=${port##* }
    [ -n "$port" ] || fail "it is not known at which port the orchestrator comes: SSH_CONNECTION is not set"
    ready undo_cut_link
    # The connection that the orchestrator came by stays, so that the host is never out of reach.
    as_root nft -f - <<EOF
table inet $TABLE {
    chain input {
        type filter hook input priority -300; policy drop;
        iif lo accept
        tcp dport $port accept
    }
    chain output {
        type filter hook output priority -300; policy drop;
        oif lo accept
        tcp sport $port accept
    }
}
EOF
}

undo_cut_link() {
    if as_root nft list table inet "$TABLE" >/dev/null 2>&1; then as_root nft delete table inet "$TABLE"; fi
}

do_slow_link() { # NETEM...
    dev=$(device) || exit 1
    [ -n "$dev" ] || fail "no interface leads to the orchestrator"
    # What the kernel chose by itself has handle 0; anything else is somebody's.
    if tc qdisc show dev "$dev" root | grep -v ' 0: ' | grep -q .; then
        fail "$dev is shaped already: $(tc qdisc show dev "$dev" root); remove that before the run"
    fi
    ready undo_slow_link "$dev"
    as_root tc qdisc replace dev "$dev" root handle "$HANDLE" netem "$@"
}

undo_slow_link() { # DEVICE
    if tc qdisc show dev "$1" root | grep -q " $HANDLE "; then as_root tc qdisc del dev "$1" root; fi
}

do_throttle() { # FRACTION
    was=
    for policy in /sys/devices/system/cpu/cpufreq/policy*; do
        was="$was $policy/scaling_max_freq $(cat "$policy/scaling_max_freq")"
    done
    # shellcheck disable=SC2086
    ready undo_throttle $was
    for policy in /sys/devices/system/cpu/cpufreq/policy*; do
        khz=$(awk -v f="$1" '{ printf "%d", f * $1 }' "$policy/cpuinfo_max_freq")
        set_file "$policy/scaling_max_freq" "$khz" || return 1
    done
}

undo_throttle() { # FILE KHZ...
    while [ $# -gt 1 ]; do
        set_file "$1" "$2" || return 1
        shift 2
    done
}

set_file() { # FILE TEXT
    echo "$2" | as_root tee "$1" >/dev/null
}

do_fill_disk() { # LEAVE_BYTES
    mkdir -p "$HOME/.edgebed/faults" || exit 1
    free_kib=$(df -Pk "$HOME/.edgebed/faults" | awk 'NR == 2 { print $4 }')
    size=$(awk -v k="$free_kib" -v l="$1" 'BEGIN { printf "%.0f", k * 1024 - l }')
    [ "${size#-}" = "$size" ] && [ "$size" != 0 ] || fail "only $free_kib KiB are free already"
    ready undo_fill_disk
    fallocate -l "$size" "$HOME/.edgebed/faults/$id.fill"
}

undo_fill_disk() {
    rm -f "$HOME/.edgebed/faults/$id.fill"
    rmdir "$HOME/.edgebed/faults" 2>/dev/null || :
}

do_step_clock() { # BY_S
    ready undo_step_clock "$(start_of_host)" "$(date +%s.%N)" "$(uptime_s)"
    set_clock "$(date +%s.%N)" "$1"
}

# Back to where it would be by the monotonic clock, whatever a time server has done meanwhile.
undo_step_clock() { # START WALL_S UPTIME_S
    [ "$(start_of_host)" = "$1" ] || return 0
    passed_s=$(awk -v now="$(uptime_s)" -v then="$3" 'BEGIN { printf "%.2f", now - then }')
    set_clock "$2" "$passed_s"
}

set_clock() { # WALL_S BY_S: seconds since 1970 have more digits than awk's numbers
    as_root date -u -s "@$(awk -v w="$1" -v b="$2" 'BEGIN {
        split(w, part, "."); t = part[1] + b; printf "%.6f", t + ("0." part[2])
    }')" >/dev/null
}

# Of a lab's host, on the machine that has the lab: what is done to its link and sensors is done there, and so undone.
do_lab() { # PYTHON LAB HOST WHAT
    ready undo_lab "$@"
}

undo_lab() { # PYTHON LAB HOST WHAT
    "$1" -m orchestrator.faults.lab_undo "$2" "$3" "$4"
}

# -- the actions -------------------------------------------------------------------------------------------------------

begin() { # ID FOR_S KIND ARGUMENT...
    id=$1 for_s=$2 kind=$3
    shift 3
    "do_$kind" "$@" && return 0
    # Half of it may be done.
    lift "$id" failed >/dev/null
    return 1
}

lift() { # ID BY
    id=$1
    if [ -e "$notes/$id.undo" ]; then
        undo=$(cat "$notes/$id.undo")
        # In a shell of its own: it may say that it is not over yet, by its status.
        (eval "$undo") || return $?
        # Whoever comes first says so.
        (set -C && echo "$2" >"$notes/$id.ended") 2>/dev/null || :
        rm -f "$notes/$id.undo"
        end_timer "$2"
    fi
    cat "$notes/$id.ended" 2>/dev/null || echo nobody
}

end_timer() { # BY: of $id, unless it is who does this
    pid=$(cat "$notes/$id.timer" 2>/dev/null) || return 0
    # Its number is also that of its process group, which has its sleep in it.
    if [ "$1" != timer ] && is_ours "$pid"; then kill -s TERM -- "-$pid" 2>/dev/null; fi
    rm -f "$notes/$id.timer"
}

lift_all() { # BY
    worst=0
    for path in "$notes"/*.undo; do
        [ -e "$path" ] || continue
        id=$(basename "$path" .undo)
        lift "$id" "$1" >/dev/null || worst=$?
    done
    for path in "$notes"/*.ended; do
        [ ! -e "$path" ] || echo "$(basename "$path" .ended) $(cat "$path")"
    done
    return "$worst"
}

timer() { # ID FOR_S
    sleep "$2"
    tries=0
    while ! lift "$1" timer >/dev/null 2>&1 && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        sleep 1
    done
}

able() { # KIND
    case "$1" in
    reboot | cut_link | slow_link | throttle | step_clock)
        as_root true 2>/dev/null || no "sudo asks for a password; allow it without one"
        ;;
    esac
    case "$1" in
    cut_link) has nft nftables ;;
    slow_link)
        has tc iproute2
        [ -d /sys/module/sch_netem ] || modinfo sch_netem >/dev/null 2>&1 || no "its kernel has no sch_netem"
        ;;
    throttle) [ -e /sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq ] || no "its frequency cannot be set" ;;
    fill_disk) has fallocate util-linux ;;
    esac
    return 0
}

has() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null || no "there is no $1; install it: sudo apt install $2"
}

no() { # WHY
    echo "$1"
    exit 1
}

action=$1
shift
case "$action" in
begin | lift | lift_all | able | timer) "$action" "$@" ;;
*)
    echo "faults.sh: there is no action '$action'" >&2
    exit 64
    ;;
esac
