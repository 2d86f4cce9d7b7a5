#!/bin/sh
# A guest's first process from then on: runs the commands that guest.py sends through the virtual serial port.
#
#   to us     SECONDS BYTES, a line; then so many bytes of shell script
#   from us   EXIT-CODE BYTES BYTES, a line; then stdout, stderr
#
# One command at a time. What a command leaves in the background stays.
cd /
# The power goes off a moment later, the root before it: no program can be started, and to end now is a panic.
trap 'echo o >/proc/sysrq-trigger; while :; do :; done' EXIT
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
. /run/agent/settings
modprobe -a virtio_console virtio_net $LOAD || exit 1
hostname guest
ip link set lo up

# The port comes some time after its driver; guest.py has the deadline.
until set -- /dev/vport*p1 && [ -c "$1" ]; do sleep 0.01; done
exec 3<>"$1"
echo ready >&3
number=0
while read -r seconds bytes <&3; do
	number=$((number + 1))
	command=/run/agent/command.$number out=/run/agent/out.$number err=/run/agent/err.$number
	head -c "$bytes" <&3 >$command
	timeout -s KILL "$seconds" sh $command </dev/null >$out 2>$err 3<&-
	code=$?
	# Counted first: something in the background may still be writing.
	set -- $(stat -c %s $out $err)
	echo "$code $1 $2" >&3
	head -c "$1" $out >&3
	head -c "$2" $err >&3
	rm $command $out $err
done
