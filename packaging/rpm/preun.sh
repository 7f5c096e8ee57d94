# An upgrade does not touch bonds: they keep running, and the new agent adopts them. Removal restores their slaves.
if [ "$1" -eq 0 ]; then
    if [ -x /usr/bin/systemctl ]; then
        systemctl --no-reload disable --now xbond.service >/dev/null 2>&1 || :
    fi
    if [ -d /run/xbond ]; then
        xbond down --all
    fi
fi
