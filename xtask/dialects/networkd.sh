#!/bin/sh
# Has networkd read files in a root, in namespaces of its own, and prints its log: networkd.sh ROOT DIRECTORY...
set -eu
root=$1
shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/run/systemd/network" "$root/run/systemd/netif/links" "$root/run/systemd/netif/leases" "$root/run/systemd/netif/lldp"
touch "$root/run/systemd/netif/state"
chroot "$root" chown -R systemd-network:systemd-network /run/systemd/netif
for directory in "$@"; do
    place=run/systemd/network
    case $directory in
        */etc) place=etc/systemd/network ;;
        */usr) place=usr/lib/systemd/network ;;
    esac
    [ $place = run/systemd/network ] || mount -t tmpfs tmpfs "$root/$place"
    cp -r "$directory/." "$root/$place/"
done
log=$(mktemp)
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console chroot "$root" /usr/lib/systemd/systemd-networkd >"$log" 2>&1 &
networkd=$!
for _ in $(seq 300); do
    ! grep -qx 'Loaded.' "$log" || break
    kill -0 $networkd 2>/dev/null || break
    sleep 0.1
done
kill $networkd 2>/dev/null || true
wait $networkd || true
cat "$log"
rm "$log"
