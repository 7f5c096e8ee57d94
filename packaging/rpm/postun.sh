if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
fi
if [ "$1" -ge 1 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl try-restart xbond.service >/dev/null 2>&1 || :
    fi
else
    rmdir /sys/fs/bpf/xbond 2>/dev/null || :
    # Bonds of other network namespaces may be left. They can be undone as long as these files exist.
    if [ -d /run/xbond ] && [ -z "$(find /run/xbond -name found.json)" ]; then
        rm -rf /run/xbond
    fi
fi
