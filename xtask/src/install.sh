#!/bin/sh
# install.sh SERVICES PACKAGE...
#
# Installs Debian packages for the tests. None of the services that they bring (the first argument,
# separated by spaces) is started now or at the next boot: the tests start their own.
set -eu
services=$1
shift

policy=/usr/sbin/policy-rc.d
mark='Written by cargo xtask setup'

clean_up() {
    if grep -qs "$mark" "$policy"; then rm -f "$policy"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# An administrator's own policy stays; what it lets start is stopped below. Ours may be left of a
# run that was killed.
if [ ! -e "$policy" ] || grep -qs "$mark" "$policy"; then
    printf '#!/bin/sh\n# %s, for the time of one installation: start nothing.\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
# --no-remove: better no installation than one that takes something of the user's away.
apt-get --quiet=2 --yes --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@"

for service in $services; do
    update-rc.d "$service" disable
    service "$service" stop
done
