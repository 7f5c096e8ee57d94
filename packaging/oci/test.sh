#!/bin/sh
# Runs the agent in the root of the container image. `cargo xtask dist --oci --test` calls it in a network and a mount
# namespace of its own: test.sh ROOT PEER
set -eu
root=$1 peer=$2
log=$(mktemp)

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"

inside() { chroot "$root" /usr/bin/xbond "$@"; }
fail() { echo "FAILED: $*" >&2; cat "$log" >&2; exit 1; }

cat >"$root/etc/xbond/bond0.toml" <<TOML
version = 1
[bond.bond0]
slaves = ["enp0s8", "enp0s9"]
miimon = 100
fail_over_mac = "active"
addresses = ["192.168.99.101/24"]
TOML
inside check /etc/xbond || fail "check finds something"
# Not by the function, whose process would be a shell.
chroot "$root" /usr/bin/xbond run >"$log" 2>&1 &
agent=$!
for _ in $(seq 300); do
    ! grep -q ' ready: ' "$log" || break
    kill -0 $agent 2>/dev/null || fail "the agent ended"
    sleep 0.1
done
grep -q ' ready: ' "$log" || fail "the agent is not ready"
inside show
ping -c 1 -W 5 "$peer" >/dev/null || fail "no answer through the bond"
inside set bond0 active_slave=enp0s9
inside show bond0 | grep -q 'active slave enp0s9' || fail "the other slave is not active"
ping -c 1 -W 5 "$peer" >/dev/null || fail "no answer through the other slave"
kill $agent
wait $agent || fail "the agent ended badly"
! ip link show bond0 2>/dev/null || fail "bond0 is still there"
rm "$log"
