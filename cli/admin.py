"""`adaptivegen admin`: what an operator asks a scheduler and how the answers are shown.

Exit codes as in cli.exits: 0 done, 2 bad input, 3 the scheduler or its broker cannot be reached, 7 no such node or job.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from cli.admin_ask import DataOption, JsonOption, SchedulerOption, ask
from cli.admin_policy import app as policy_app
from cli.admin_purge import purge
from cli.admin_qoe import app as qoe_app
from cli.admin_quota import app as quota_app
from cli.admin_rollout import app as rollout_app
from cli.admin_tables import (
    accuracies_table,
    audit_table,
    chances_table,
    dead_letters_table,
    jobs_table,
    loads_table,
    nodes_table,
    open_console,
    paces_table,
    pools_table,
    print_json,
    sizes_table,
    ways_table,
)
from cli.decision_tables import decisions_table, print_explanation

app = typer.Typer(help="Ask and steer a scheduler.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")
app.add_typer(qoe_app, name="qoe")
app.add_typer(quota_app, name="quota")
app.add_typer(rollout_app, name="rollout")
app.command("purge")(purge)


@app.command("nodes")
def show_nodes(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """All nodes the scheduler knows, with their state and load."""
    found = ask(scheduler, data, lambda client: client.nodes())
    if as_json:
        print_json({"nodes": [asdict(node) for node in found]})
    else:
        open_console().print(nodes_table(found))


@app.command("jobs")
def show_jobs(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    status: Annotated[str, typer.Option(help="queued, in_progress, completed, failed or cancelled.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Jobs, newest first."""
    from adaptivegen.rpc.admin_rows import JobFilter

    wanted = JobFilter(tenant=tenant, status=status, limit=limit)
    found = ask(scheduler, data, lambda client: client.jobs(wanted))
    if as_json:
        print_json({"jobs": [asdict(job) for job in found]})
    else:
        open_console().print(jobs_table(found))


@app.command("decisions")
def show_decisions(
    tenant: Annotated[str, typer.Option(help="Only those on this tenant's requests.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many; 500 are kept.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The last decisions of the scheduler that is asked, refusals with them, newest first."""
    found = ask(scheduler, data, lambda client: client.decisions(tenant, limit))
    if as_json:
        print_json({"decisions": [asdict(one) for one in found]})
    else:
        open_console().print(decisions_table(found))


@app.command("dead-letters")
def show_dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Messages that were given up, with the reason, newest first."""
    found = ask(scheduler, data, lambda client: client.dead_letters(limit))
    if as_json:
        print_json({"dead_letters": [asdict(letter) for letter in found]})
    else:
        open_console().print(dead_letters_table(found))


@app.command("predictions")
def show_predictions(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """How fast nodes are against their model's card, how good predicted times were, and what else they rest on."""
    found = ask(scheduler, data, lambda client: client.predictions())
    if as_json:
        print_json(asdict(found))
    else:
        console = open_console()
        console.print(paces_table(found.paces))
        console.print(accuracies_table(found.accuracies))
        if found.sizes:
            console.print(sizes_table(found.sizes))
        if found.ways:
            console.print(ways_table(found.ways))
        if found.loads:
            console.print(loads_table(found.loads))
        if found.chances:
            console.print(chances_table(found.chances))


@app.command("explain")
def explain_job(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of a video (vid_...).")],
    tenant: Annotated[str, typer.Option(help="Its tenant; searched for when not given.")] = "",
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a job was placed as it was, and what became of it."""
    found = ask(scheduler, data, lambda client: client.explain(job, tenant))
    if as_json:
        decision = found.decision.model_dump(mode="json")
        print_json({"job": asdict(found.job), "decision": decision, "notes": list(found.notes)})
    else:
        print_explanation(open_console(), found)


@app.command("audit")
def show_audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 50,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What operators ordered, who did, and what became of it, newest first."""
    found = ask(scheduler, data, lambda client: client.audit(limit))
    if as_json:
        print_json({"audit": [asdict(entry) for entry in found]})
    else:
        open_console().print(audit_table(found))


@app.command("drain")
def drain_node(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Id of an edge or worker.")],
    undo: Annotated[bool, typer.Option("--undo", help="Put it back into rotation.")] = False,
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a node out of rotation; its running work finishes."""
    state = ask(scheduler, data, lambda client: client.drain(node, undo=undo))
    if as_json:
        print_json({"node_id": node, "state": state})
    else:
        said = f"{node} goes back into rotation within seconds" if undo else f"{node} is {state}"
        Console().print(said, highlight=False, markup=False)


@app.command("pools")
def show_pools(scheduler: SchedulerOption = "", data: DataOption = None, as_json: JsonOption = False) -> None:
    """The pools of workers: their load, and how many workers each should have."""
    found = ask(scheduler, data, lambda client: client.pools())
    if as_json:
        print_json({"pools": [asdict(pool) for pool in found]})
    else:
        open_console().print(pools_table(found))


@app.command("scale")
def scale_pool(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="Name of a pool of workers.")],
    workers: Annotated[int, typer.Argument(min=0, max=4096, metavar="WORKERS", help="How many should take jobs.")],
    scheduler: SchedulerOption = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have so many workers of a pool in rotation: those with the least to lose are drained, or put back.

    Machines are started and ended by others.
    """
    done = ask(scheduler, data, lambda client: client.scale(pool, workers))
    if workers == 0:
        typer.echo(f"warning: no worker of {pool} takes jobs any more; finals wait until some are put back", err=True)
    if as_json:
        print_json({"pool": pool, **asdict(done)})
        return
    said = [f"{node} finishes its work and takes no more" for node in done.drained]
    said += [f"{node} goes back into rotation within seconds" for node in done.put_back]
    if done.missing:
        said.append(f"{done.missing} more must be started")
    Console().print("\n".join(said or [f"{pool} has {workers} in rotation already"]), highlight=False, markup=False)
