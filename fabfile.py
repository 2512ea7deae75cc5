"""The verbs. `fab --list` names them, `fab --help VERB` explains one, and operate/ does what they say."""

import json as document
from pathlib import Path

from invoke import Context

from operate import choice, execution, listing, openssh
from operate.account import Account
from operate.cluster import open_stack
from operate.ending import show_run
from operate.launch import job
from operate.logs import show_logs
from operate.screen import Screen
from operate.verb import number, verb, words


@verb
def nodes(c: Context, lab: str = "", name: str = "", wait: str = "", json: bool = False) -> None:
    """Show a lab's nodes, let this machine in, and write .rooflab/STACK/ssh_config."""
    screen = Screen(json=json)
    with open_stack(Account(), choice.choose_lab(lab, name), screen) as cluster:
        facts = cluster.facts(screen, ready=False, wait_s=number("wait", wait))
        listed, config = listing.rows(cluster, facts), openssh.config(cluster)
    if json:
        print(document.dumps({"stack": cluster.label, "nodes": listed, "ssh_config": str(config)}, indent=1))
        return
    screen.console.print(listing.table(listed))
    screen.note(f"ssh -F {config} node0")


@verb
def run_lab(
    c: Context,
    lab: str = "",
    name: str = "",
    on: str = "",
    hosts: str = "",
    only: str = "",
    env: str = "",
    wait: str = "",
    json: bool = False,
) -> None:
    """Push, run a lab's workloads on all nodes, fetch the results, report. Ctrl-C looks away; the run goes on."""
    screen = Screen(json=json)
    chosen = choice.choose_lab(lab, name)
    jobs = tuple(job(workload) for workload in choice.choose_workloads(chosen, only))
    with choice.open_target(chosen, on=on, hosts=hosts, screen=screen) as cluster:
        order = execution.Order(
            jobs=jobs,
            lab=chosen,
            usd_per_hour=execution.price(cluster),
            environment=tuple(filter(None, env.split(","))),
            wait_s=number("wait", wait),
        )
        run = execution.execute(cluster, order, screen)
    show_run(run, screen, json=json)


@verb
def run(
    c: Context,
    lab: str = "",
    name: str = "",
    on: str = "",
    hosts: str = "",
    everywhere: bool = False,
    limit: str = "86400",
    env: str = "",
    wait: str = "",
    json: bool = False,
) -> None:
    """Run your own script or command: fab run --lab 3 -- train.py --steps 100

    A .py file gets one rank a GPU over all nodes, by torchrun; with --everywhere one plain process a node. What it
    writes to $ROOFLAB_OUT comes home. Any other command runs once a node.
    """
    screen = Screen(json=json)
    chosen = choice.choose_lab(lab, name) if lab else None
    limit_s = int(number("limit", limit) or 86400)
    own, files = choice.own_job(words(), everywhere=everywhere, limit_s=limit_s, local=bool(on))
    with choice.open_target(chosen, on=on, hosts=hosts, screen=screen) as cluster:
        order = execution.Order(
            jobs=(own,),
            lab=chosen,
            usd_per_hour=execution.price(cluster),
            environment=tuple(filter(None, env.split(","))),
            files=files,
            wait_s=number("wait", wait),
        )
        done = execution.execute(cluster, order, screen)
    show_run(done, screen, json=json, report=False)


@verb
def logs(c: Context, lab: str = "", name: str = "", run: str = "", node: str = "", workload: str = "") -> None:
    """Print what a run (the newest, unless named) has logged so far, on all nodes or on one."""
    show_logs(Screen(), lab=lab, name=name, run=run, node=node, workload=workload)


@verb
def attach(c: Context, lab: str = "", name: str = "", run: str = "", json: bool = False) -> None:
    """Come back to a run that goes on: its output so far, then live, then results and report."""
    screen = Screen(json=json)
    found, cluster = choice.resume(run, lab=lab, name=name, screen=screen)
    with cluster:
        found = execution.attend(cluster, found, screen)
    show_run(found, screen, json=json)


@verb
def stop(c: Context, lab: str = "", name: str = "", run: str = "", json: bool = False) -> None:
    """End a run (the newest, unless named) on all nodes and fetch what it left. The lab stays up."""
    screen = Screen(json=json)
    found, cluster = choice.resume(run, lab=lab, name=name, screen=screen)
    with cluster:
        found = execution.stop(cluster, found, screen)
    show_run(found, screen, json=json, expected=(0, 143))


@verb
def ssh(c: Context, lab: str = "", name: str = "", node: str = "") -> None:
    """Open a shell on a node (the head, unless named), or run a command: fab ssh --lab 3 -- nvidia-smi"""
    with open_stack(Account(), choice.choose_lab(lab, name), Screen()) as cluster:
        command = openssh.ssh_words(cluster, openssh.choose(cluster, node), words())
    raise SystemExit(openssh.foreground(command))


@verb
def tunnel(c: Context, lab: str = "", name: str = "", node: str = "", port: str = "8888", local_port: str = "") -> None:
    """Lead a local port to a node's port, for Jupyter or TensorBoard. Ctrl-C ends it."""
    remote_port = openssh.port("port", port)
    near = openssh.port("local_port", local_port or port)
    openssh.free_port(near)
    screen = Screen()
    with open_stack(Account(), choice.choose_lab(lab, name), screen) as cluster:
        chosen = openssh.choose(cluster, node)
        command = openssh.tunnel_words(cluster, chosen, port=remote_port, local_port=near)
    screen.note(f"http://localhost:{near} leads to port {remote_port} of {chosen.name}; Ctrl-C ends it")
    openssh.keep_open(command)


@verb
def put(c: Context, source: str, lab: str = "", name: str = "", node: str = "", to: str = "") -> None:
    """Copy a file or folder to all nodes (or one): fab put data --lab 3 --to data/"""
    with open_stack(Account(), choice.choose_lab(lab, name), Screen()) as cluster:
        chosen = [openssh.choose(cluster, node)] if node else cluster.nodes
        openssh.demand(openssh.put(cluster, Path(source), to, chosen), f"take {source}")


@verb
def get(c: Context, source: str, lab: str = "", name: str = "", node: str = "", to: str = ".") -> None:
    """Copy a file or folder from the head (or --node node1, or --node all): fab get checkpoints --lab 3"""
    with open_stack(Account(), choice.choose_lab(lab, name), Screen()) as cluster:
        chosen = cluster.nodes if node == "all" else [openssh.choose(cluster, node)]
        openssh.demand(openssh.get(cluster, source, Path(to), chosen), f"give {source}")


@verb
def report(c: Context, lab: str = "", name: str = "", run: str = "", json: bool = False) -> None:
    """Show a run's numbers beside their roofs (the newest run, unless named) and write report.html anew."""
    found = choice.choose_run(run, lab=lab, name=name)
    show_run(found, Screen(json=json), json=json)
