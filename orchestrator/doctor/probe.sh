# What the doctor wants to know of a host, as the host's own programs and files say it: `@@ NAME` and then text, again
# and again. Run by `sh`. Nothing here changes anything or may fail; what is not there says nothing. The one load that it
# makes, to see the clock of a busy core, ends by itself after half a second.

export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin:/usr/local/bin:/opt/vc/bin"
part() { printf '@@ %s\n' "$1"; }

part model
for file in /proc/device-tree/model /sys/firmware/devicetree/base/model; do
    if [ -r "$file" ]; then tr -d '\000' <"$file"; break; fi
done
part cpuinfo
grep -E '^(model name|Revision|Hardware|CPU implementer|CPU part)' /proc/cpuinfo 2>/dev/null | sort -u | head -n 20
part cores
getconf _NPROCESSORS_ONLN 2>/dev/null
part memory
grep -E '^(MemTotal|MemAvailable)' /proc/meminfo 2>/dev/null
part machine_id
cat /etc/machine-id 2>/dev/null
part host_keys
for file in /etc/ssh/ssh_host_*_key.pub; do
    if [ -r "$file" ]; then cut -d ' ' -f 1,2 "$file"; fi
done
part sudo
if [ "$(id -u)" = 0 ]; then echo root; elif sudo -n true 2>/dev/null; then echo yes; else echo no; fi

part mounts
cat /proc/mounts 2>/dev/null
part space
df -Pk "$HOME" 2>/dev/null | tail -n 1
part inodes
df -Pi "$HOME" 2>/dev/null | tail -n 1
part home
echo "$HOME"
part mmc
for device in /sys/block/mmcblk*; do
    if [ -d "$device/device" ]; then
        for what in type name date life_time pre_eol_info; do
            if [ -r "$device/device/$what" ]; then echo "${device##*/} $what $(cat "$device/device/$what")"; fi
        done
    fi
done
part kernel_log
{ dmesg 2>/dev/null || journalctl -k -q -n 5000 --no-pager 2>/dev/null || echo unreadable; } |
    grep -iE 'unreadable|mmc[a-z0-9]*: .*(error|timeout)|mmcblk.*error|I/O error|EXT4-fs error|remount.*read-only|under-?voltage' |
    tail -n 20

part clock_sync
if command -v timedatectl >/dev/null; then timedatectl show 2>/dev/null | grep -E '^(NTP|NTPSynchronized)='; fi
if command -v chronyc >/dev/null; then chronyc -n tracking 2>/dev/null | grep -E '^(Reference ID|System time|Leap status)'; fi
part throttled
if command -v vcgencmd >/dev/null; then vcgencmd get_throttled 2>/dev/null; fi
for file in /sys/devices/platform/soc*/soc*firmware/get_throttled; do
    if [ -r "$file" ]; then echo "sysfs=$(cat "$file")"; fi
done
part temperature
for zone in /sys/class/thermal/thermal_zone*; do
    if [ -r "$zone/temp" ]; then echo "$(cat "$zone/type" 2>/dev/null) $(cat "$zone/temp" 2>/dev/null)"; fi
done
part governor
cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null | sort -u
part nominal_khz
cat /sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq 2>/dev/null
part clock
# The clock of a busy core: an idle one is slow on purpose.
if [ -d /sys/devices/system/cpu/cpu0/cpufreq ] || command -v vcgencmd >/dev/null; then
    timeout 0.5 sh -c 'while :; do :; done' 2>/dev/null &
    load=$!
    sleep 0.3 2>/dev/null
    if command -v vcgencmd >/dev/null; then vcgencmd measure_clock arm 2>/dev/null; fi
    for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; do
        if [ -r "$file" ]; then echo "kernel $(cat "$file")"; fi
    done
    kill "$load" 2>/dev/null
    wait "$load" 2>/dev/null
fi

part ssh
echo "${SSH_CONNECTION:-}"
part addresses
ip -o addr show 2>/dev/null
part wireless
cat /proc/net/wireless 2>/dev/null
part wireless_interfaces
for mark in /sys/class/net/*/wireless /sys/class/net/*/phy80211; do
    if [ -e "$mark" ]; then name=${mark%/*}; echo "${name##*/}"; fi
done
part routes
cat /proc/net/route 2>/dev/null
part power_save
for each in $({ sed -n '3,$s/^ *\([^: ]*\):.*/\1/p' /proc/net/wireless; ls /sys/class/net; } 2>/dev/null | sort -u); do
    if command -v iw >/dev/null && [ "$each" != lo ]; then
        state=$(iw dev "$each" get power_save 2>/dev/null) && echo "$each $state"
    fi
done
part iw
command -v iw 2>/dev/null
part listening
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep ' 0A '
part rapl
for file in /sys/class/powercap/*:*/energy_uj; do
    if [ -e "$file" ]; then if [ -r "$file" ]; then echo readable; else echo unreadable; fi; fi
done
part hwmon
cat /sys/class/hwmon/hwmon*/name 2>/dev/null
part end
:
