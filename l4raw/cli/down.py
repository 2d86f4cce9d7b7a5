"""`l4raw down`: stop a running balancer, and undo what a killed one has left."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import click

from l4raw.cli.state import State, pass_state

_WAIT_S = 10.0


@click.command()
@click.argument("instance", required=False)
@pass_state
def command(state: State, instance: str | None) -> None:
    """Stop INSTANCE, or the only one that runs, and clean up after those that were killed.

    Exits with 0 also when there is nothing to do; with 6 when INSTANCE is named and neither ran nor was
    killed. Another user's balancers are out of sight: then it exits with 5.
    """
    from l4raw.control.errors import L4Error
    from l4raw.control.instance import heal, running
    from l4raw.control.lock import LOCK, default_run_dir, require_name, require_no_other, require_visible

    run_dir = default_run_dir()
    if instance is not None:
        try:
            require_name(instance)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    require_visible(run_dir)
    known = instance is not None and os.path.exists(run_dir / instance / LOCK)
    healed = heal(run_dir)
    for line in healed:
        click.echo(line, err=True)
    found = {holder.instance: holder for holder in running(run_dir)}
    if instance is None:
        if not found:
            if not healed:
                require_no_other(run_dir)
            click.echo("no instance is running; nothing to undo", err=True)
            return
        if len(found) > 1:
            raise click.UsageError(f"several instances run: {', '.join(found)}; name one")
        instance = next(iter(found))
    if instance not in found:
        if known and not os.path.exists(run_dir / instance):
            return  # It was killed, and has been cleaned up after just now.
        require_no_other(run_dir)
        raise L4Error(
            "L4R-401",
            what=f"no instance {instance} is running",
            where=str(run_dir / instance),
            fix=f"name one that runs: {', '.join(found)}" if found else "",
        )
    _terminate(found[instance].pid, run_dir / instance / LOCK)
    click.echo(f"stopped: instance {instance}", err=True)


def _terminate(pid: int, lock: Path) -> None:
    """SIGTERM to the holder of the lock, and wait until it has ended, and so let go."""
    from l4raw.control.errors import L4Error
    from l4raw.control.lock import holder_of

    try:
        # First hold the process, then see that it still has the lock: its number may be another's by now.
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        holder = holder_of(lock)
        if holder is None or holder.pid != pid:
            return
        _signal(process, pid)
        ended = select.poll()
        ended.register(process, select.POLLIN)  # pidfd_open(2): readable once the process has ended
        if not ended.poll(_WAIT_S * 1000):
            raise L4Error(
                "L4R-402",
                what=f"process {pid} did not end within {_WAIT_S:g} s of SIGTERM",
                where=str(lock),
                why="it hangs, or its undoing takes long. There is no crash file, for nothing has crashed.",
                fix=f"wait, and say `l4raw down` again; if it hangs: kill -9 {pid}, then `l4raw down`",
            )
    finally:
        os.close(process)


def _signal(process: int, pid: int) -> None:
    from l4raw.control.errors import L4Error

    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except PermissionError as error:
        raise L4Error(
            "L4R-301",
            what=f"may not stop process {pid} of another user",
            why="only root and the user who started it may.",
            fix="run it with sudo",
        ) from error
