# Of the package's installation and upgrade: the user, the directory of pins, the unit.
systemd-sysusers xbond.conf >/dev/null 2>&1 || :
systemd-tmpfiles --create xbond.conf >/dev/null 2>&1 || :
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
fi
if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload preset xbond.service >/dev/null 2>&1 || :
fi
