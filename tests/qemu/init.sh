#!/busybox sh
# A guest's first process, until its root is there: the machine's files below, an overlay in memory above.
# /settings is written by initramfs.py. Whatever fails here ends the guest; its console says where.
set -e
b=/busybox
. /settings
# A first process that ends is a panic, whose pages would hide the reason.
trap '$b poweroff -f' EXIT

$b mkdir -p /dev /shared /above /new
$b mount -t devtmpfs dev /dev
# Printed at once, which a terminal's words are not when the end comes next.
exec >/dev/kmsg 2>&1

for module in /modules/*.ko; do $b insmod "$module"; done
$b mount -t tmpfs above /above
$b mkdir /above/files /above/work
# loose: nobody changes the machine's files meanwhile, and without a cache each page of python3 is a round trip.
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /shared
$b mount -t overlay -o lowerdir=/shared,upperdir=/above/files,workdir=/above/work root /new

# The machine's own, or its processes': not for a guest.
$b mount -t devtmpfs dev /new/dev
$b mount -t proc proc /new/proc
$b mount -t sysfs sys /new/sys
$b mount -t tmpfs run /new/run
$b mkdir -p /new/dev/pts /new/dev/shm /new/run/lock /new/run/agent /new/lib/modules
$b mount -t devpts pts /new/dev/pts
$b mount -t tmpfs shm /new/dev/shm
$b mount -t bpf bpf /new/sys/fs/bpf
$b mount --bind "/new$MODULES" /new/lib/modules

if [ -d /files ]; then $b cp -a /files/. /new/; fi
$b cp /agent /settings /new/run/agent/
exec $b switch_root /new /bin/sh /run/agent/agent
