#!/bin/busybox sh
# The first process of the guest: sets the system up as far as rstwatch and its tests need it, runs
# /command, and says on the second serial port, as the last line, how it ended.
#
# There is no tracefs: rstwatch does without.
#
# The first serial port is the kernel's console, the second takes the command's standard output, the
# third its standard error.
/bin/busybox mkdir -p /bin /dev /proc /sys /tmp /run /root
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb NO_COLOR=1

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/shm /dev/pts /run/netns
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
hostname rstwatch-vm
# As an init of a distribution does it.
ulimit -Hn 524288
ulimit -Sn 16384

# Bytes go out as they come in.
for port in ttyS1 ttyS2; do
    stty -F /dev/$port raw -echo
done

for module in /modules/*; do
    insmod "$module" || echo "vm: cannot load $module"
done

/command </dev/null >/dev/ttyS1 2>/dev/ttyS2
printf '\nrstwatch-vm: exit status %d\n' $? >/dev/ttyS1
# The port is drained before the machine ends; QEMU is told not to start it again.
stty -F /dev/ttyS1 >/dev/null
sync
reboot -f
