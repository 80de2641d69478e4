#!/usr/bin/busybox sh
# The guest's first process: makes the system that a test expects, runs one command, reports its end.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/busybox HOME=/root TERM=dumb
/usr/bin/busybox mount -t proc proc /proc
/usr/bin/busybox --install -s /busybox
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run /tmp /var/log /root
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in memory pids cpu; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
hostname guest
ip link set lo up
while read -r module; do
    insmod "/modules/$module.ko"
done </modules/order
marker=$(cat /marker)
stty -F /dev/ttyS1 raw -echo
cd /root || exit
echo "$marker begin" >/dev/ttyS1
sh /command </dev/null >/dev/ttyS1 2>&1
echo "$marker end $?" >/dev/ttyS1
sync
poweroff -f
