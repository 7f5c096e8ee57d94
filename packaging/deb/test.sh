#!/bin/sh
# Installs, runs, upgrades, removes and purges the package in a clean root. `cargo xtask dist --test` calls it in a
# network and a mount namespace of its own: test.sh ROOT DEB PEER
set -eu
root=$1 deb=$2 peer=$3

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
# As systemd mounts it: a bpffs of its own, for root only.
mount -t bpf -o mode=0700 bpf "$root/sys/fs/bpf"
cp "$deb" "$root/xbond.deb"

inside() { chroot "$root" "$@"; }
say() { echo "== $*"; }
# What removal must restore.
slaves() { ip -d link show enp0s8; ip -d link show enp0s9; ip address show dev enp0s8; ip route show table all dev enp0s8; }
# Without values that change with time. ip warns that the peers' namespaces have no names here.
snapshot() { slaves 2>/dev/null | grep -v valid_lft | sed 's/ qdisc [^ ]*//; s/ tentative//'; }
fail() { echo "FAILED: $*" >&2; cat "$root/tmp/agent.log" >&2 2>/dev/null || true; exit 1; }

# As the unit runs it, without systemd: the user, the capabilities, the directories.
start() {
    chroot "$root" sh -c 'exec setpriv --reuid=xbond --regid=xbond --init-groups --no-new-privs \
        --inh-caps=-all,+net_admin,+net_raw,+bpf,+perfmon --ambient-caps=-all,+net_admin,+net_raw,+bpf,+perfmon \
        --bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon xbond run --on-exit keep' >"$root/tmp/agent.log" 2>&1 &
    agent=$!
    for _ in $(seq 300); do
        grep -q ' ready: ' "$root/tmp/agent.log" && return
        kill -0 $agent 2>/dev/null || fail "the agent ended"
        sleep 0.1
    done
    fail "the agent is not ready"
}

ip link set enp0s8 up
ip address add 198.51.100.8/24 dev enp0s8
ip link set enp0s9 mtu 1400
# The kernel assigns the link-local address asynchronously.
until ip -6 route show table local dev enp0s8 | grep -q '^local fe80'; do sleep 0.1; done
found=$(snapshot)

say install
inside dpkg -i /xbond.deb
inside xbond --version
inside getent passwd xbond
[ -s "$root/usr/share/man/man8/xbond-check.8.gz" ] || fail "no manual page of check"
for file in systemd/network/10-xbond.network systemd/network/10-xbond.link udev/rules.d/73-xbond.rules NetworkManager/conf.d/10-xbond.conf
do
    grep -q -- '-clk' "$root/usr/lib/$file" || fail "$file does not name the devices of clocks"
done
# What systemd-tmpfiles and systemd do.
inside install -d -m 0700 -o xbond -g xbond /sys/fs/bpf/xbond
inside chmod 0711 /sys/fs/bpf
inside install -d -o xbond -g xbond /run/xbond

say run
cat >"$root/etc/xbond/bond0.toml" <<TOML
version = 1
[bond.bond0]
slaves = ["enp0s8", "enp0s9"]
miimon = 100
fail_over_mac = "active"
addresses = ["192.168.99.101/24"]
TOML
# A warning, which keeps no bond from running.
answer=$(inside xbond check /etc/xbond 2>&1) && fail "check does not name the address on enp0s8"
case $answer in
    *"enp0s8: has the address 198.51.100.8/24"*) ;;
    *) fail "check: $answer" ;;
esac
start
inside xbond show
ping -c 1 -W 5 "$peer" >/dev/null || fail "no answer through the bond"
inside xbond show -d | grep -q 'clock on, every 10 ms' || fail "the clock does not run"

say "change it live"
ping -i 0.01 -c 400 "$peer" >"$root/tmp/ping.log" &
pings=$!
inside xbond set bond0 miimon=50
inside xbond set bond0 active_slave=enp0s9
inside xbond set bond0 primary=enp0s8
inside xbond show -d bond0
inside xbond log bond0 | tee "$root/tmp/receipts"
grep -q 'enp0s8 .*enp0s9' "$root/tmp/receipts" || fail "the requested switch left no receipt"
grep -q 'enp0s9 .*enp0s8' "$root/tmp/receipts" || fail "the new primary left no receipt"
curl --silent --fail --unix-socket "$root"/run/xbond/*/xbond.sock http://xbond/metrics >"$root/tmp/metrics"
grep '^xbond_' "$root/tmp/metrics" | head -n 3
sed -i 's/^miimon = 100/miimon = 80/' "$root/etc/xbond/bond0.toml"
inside xbond reload | tee "$root/tmp/reload"
grep -q miimon "$root/tmp/reload" || fail "reload did not read miimon"
wait $pings || fail "pings failed"
grep -q ' 0% packet loss' "$root/tmp/ping.log" || fail "packets were lost: $(tail -n 2 "$root/tmp/ping.log")"

say upgrade
inside dpkg -i /xbond.deb
kill -0 $agent 2>/dev/null || fail "the upgrade ended the agent"
ping -c 1 -W 5 "$peer" >/dev/null || fail "the upgrade took the bond down"
[ -s "$root/etc/xbond/bond0.toml" ] || fail "the upgrade took the configuration"

say "stop the agent: the bond stays"
kill $agent
wait $agent || fail "the agent ended badly"
ping -c 1 -W 5 "$peer" >/dev/null || fail "the bond went with its agent"

say "start it again: it takes the bond over"
start
grep -qi adopt "$root/tmp/agent.log" || fail "the bond was not adopted"
inside xbond show
ping -c 1 -W 5 "$peer" >/dev/null || fail "the new agent took the bond down"
kill $agent
wait $agent || fail "the agent ended badly"

say remove
inside dpkg -r xbond
ip link show bond0 2>/dev/null && fail "bond0 is still there"
for _ in $(seq 200); do
    [ "$(snapshot)" != "$found" ] || break
    sleep 0.1
done
if [ "$(snapshot)" != "$found" ]; then
    echo "before:"; echo "$found"; echo "after:"; snapshot
    fail "slaves are not as they were"
fi
[ -s "$root/etc/xbond/bond0.toml" ] || fail "removal took the configuration"

say purge
inside dpkg -P xbond
[ ! -e "$root/etc/xbond" ] || fail "purge left /etc/xbond"
[ ! -e "$root/run/xbond" ] || fail "removal left /run/xbond"
[ ! -e "$root/sys/fs/bpf/xbond" ] || fail "removal left pins: $(ls -R "$root/sys/fs/bpf/xbond")"
say "installed, run, upgraded, removed and purged"
