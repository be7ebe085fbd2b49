# What a host says of itself, a line each: NAME VALUE. Run by `sh` with $python, $service and $clock set. Nothing here
# changes anything or may fail. Asked at every deploy, so it starts as few processes as it can: on a host that has been
# deployed, what only a first deploy has to know is left out.

root=$HOME/.edgebed
ids=$(id)
uid=${ids#uid=}
uid=${uid%%(*}
user=${ids#*(}
user=${user%%)*}
say() { printf '%s %s\n' "$1" "$2"; }

say home "$HOME"
say uid "$uid"
say user "$user"
state_root=${XDG_STATE_HOME:-$HOME/.local/state}/edgebed
say state_root "$state_root"
say ssh_connection "${SSH_CONNECTION:-}"
if [ -w "$HOME" ]; then say writable yes; fi
while IFS=: read -r name _; do
    if [ "$name" = video ]; then say group video; fi
done </etc/group
if [ -e /proc/device-tree/model ]; then say model "$(tr -d '\000' </proc/device-tree/model)"; fi

if [ -d /run/systemd/system ]; then say systemd system; fi
if [ -S "/run/user/$uid/systemd/private" ]; then say systemd user; fi
if [ -e "/var/lib/systemd/linger/$user" ]; then say linger yes; fi

# What deploying makes folders in, where they are missing, so that undoing can take them away.
for folder in "$state_root" "$HOME/.local" "$HOME/.local/state" "$HOME/.config" "$HOME/.config/systemd" \
    "$HOME/.config/systemd/user" "$HOME/.config/systemd/user/default.target.wants"; do
    if [ -d "$folder" ]; then say folder "$folder"; fi
done

if [ -L "$root" ] || { [ -e "$root" ] && [ ! -d "$root" ]; }; then
    say root foreign
elif [ ! -e "$root" ]; then
    say root none
elif [ -e "$root/ledger.jsonl" ]; then
    say root ours
elif [ -z "$(ls -A "$root")" ]; then
    say root empty # made, and then the connection was lost
else
    say root foreign
fi

record=
works=
if [ -e "$root/installation.json" ]; then
    read -r record <"$root/installation.json"
    say record "$record"
fi
if current=$(readlink "$root/current" 2>/dev/null); then
    say current "$current"
    works=$("$root/current/bin/python" -V 2>/dev/null)
    say current_python "$works"
fi
for version in "$root"/versions/*; do
    if [ -e "$version/complete" ]; then say version "${version##*/}"; elif [ -d "$version" ]; then say partial "${version##*/}"; fi
done
for file in "$root"/active/*; do
    if [ -e "$file" ]; then say active "${file##*/} $(cat "$file")"; fi
done
for link in /etc/systemd/system/multi-user.target.wants/edgebed@*.service; do
    if [ -L "$link" ]; then say enabled_system "${link##*/}"; fi
done
for link in "$HOME"/.config/systemd/user/default.target.wants/edgebed@*.service; do
    if [ -L "$link" ]; then say enabled_user "${link##*/}"; fi
done
sha256sum "$root/launch.sh" "$root/service.sh" "/etc/systemd/system/edgebed@.service" \
    "$HOME/.config/systemd/user/edgebed@.service" /etc/chrony/conf.d/edgebed.conf 2>/dev/null
if [ -e "$root/ledger.jsonl" ]; then
    while IFS= read -r line || [ -n "$line" ]; do say ledger "$line"; done <"$root/ledger.jsonl"
fi
if [ -e "$root/lease.json" ]; then
    say lease "$(($(date +%s) - $(stat -c %Y "$root/lease.json"))) $(cat "$root/lease.json")"
fi

asks_sudo=
case "$record" in
*'"systemd_system"'*) ;;
*) if [ "$service" = system ]; then asks_sudo=1; fi ;;
esac
if [ "$clock" = chrony ]; then
    if [ -x /usr/sbin/chronyd ] && [ -d /etc/chrony/conf.d ]; then say chrony yes; fi
    if [ ! -e /etc/chrony/conf.d/edgebed.conf ]; then asks_sudo=1; fi
fi
if [ -z "$record" ]; then
    say system "$(uname -sm)"
    say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
    say bits "$(getconf LONG_BIT 2>/dev/null)"
fi
if [ -z "$record" ] || [ -n "$asks_sudo" ]; then
    if [ "$uid" = 0 ] || sudo -n true 2>/dev/null; then say sudo yes; else say sudo no; fi
fi

tell='
import importlib.util as util, struct, sys
missing = [name for name in ("venv", "zipfile", "zlib", "_sqlite3", "_ctypes", "_ssl") if util.find_spec(name) is None]
print(sys.executable, "%d.%d" % sys.version_info[:2], 8 * struct.calcsize("P"), ",".join(missing) or "-")
'
if [ -n "$python" ] || [ -z "$works" ] || [ -z "$record" ]; then
    for each in "$python" python3 python3.13 python3.12 python3.11; do
        if [ -n "$python" ] && [ "$each" != "$python" ]; then break; fi
        if [ -n "$each" ] && told=$("$each" -I -c "$tell" 2>/dev/null); then say python "$told"; fi
    done
fi
:
