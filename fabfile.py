"""The verbs. `fab --list` names them, `fab --help VERB` explains one, and operate/ does what they say."""

import json as document
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from types import ModuleType

from invoke import Collection, Context

from operate import advise as advice
from operate import bake as image
from operate import choice, execution, fit, listing, openssh
from operate import types as instances
from operate.account import Account
from operate.audit import show_audit
from operate.bill import tell
from operate.clearance import clear_account
from operate.compare import show_comparison
from operate.deadline import extend_deadline, read_deadline
from operate.doctor import examine
from operate.ending import show_outcome, show_report
from operate.estimate import show_cost
from operate.farewell import end_lab
from operate.launch import job
from operate.logs import show_logs
from operate.patience import read_patience, stop_paying
from operate.preflight import preflight as check_lab
from operate.preflight import show_preflight
from operate.problem import Problem
from operate.screen import Screen
from operate.up import bring_up
from operate.verb import number, verb, words
from operate.wish import read_wish


@contextmanager
def rehearsed() -> Iterator[ModuleType]:
    """The rehearsal's own verbs; its errors become ours. Nothing else here knows that it exists."""
    try:
        from rehearsal import control
    except ImportError as error:
        raise Problem(f"the rehearsal cannot be loaded ({error})", "pip install -r requirements.txt") from None
    try:
        yield control
    except control.RehearsalError as error:
        cause, _, remedy = str(error).partition(": ")
        raise Problem(cause, remedy) from None


@verb
def nodes(c: Context, lab: str = "", name: str = "", wait: str = "", json: bool = False) -> None:
    """Show a lab's nodes, let this machine in, and write .rooflab/STACK/ssh_config."""
    screen, wait_s = Screen(json=json), number("wait", wait)
    with choice.open_lab(lab, name, screen) as cluster:
        facts = cluster.facts(screen, ready=False, wait_s=wait_s)
        listed, config = listing.rows(cluster, facts), openssh.config(cluster)
    if json:
        print(document.dumps({"stack": cluster.label, "nodes": listed, "ssh_config": str(config)}, indent=1))
        return
    screen.console.print(listing.table(listed))
    screen.note(listing.boot_time(listed) or "not every node is ready")
    screen.note(f"ssh -F {config} node0")


@verb
def doctor(
    c: Context, lab: str = "", name: str = "", on: str = "", hosts: str = "", wait: str = "", json: bool = False
) -> None:
    """Look whether every node is well: driver, GPUs, links, memory, disks, limits; say what to do about what is not."""
    screen, wait_s = Screen(json=json), number("wait", wait)
    chosen = choice.choose_lab(lab, name) if lab else None
    with choice.open_target(chosen, on=on, hosts=hosts, screen=screen) as cluster:
        examine(cluster, chosen, screen, wait_s=wait_s, json=json)


@verb
def run_lab(
    c: Context,
    lab: str = "",
    name: str = "",
    on: str = "",
    hosts: str = "",
    only: str = "",
    launcher: str = "torchrun",
    env: str = "",
    allow_tcp: bool = False,
    wait: str = "",
    hang_s: str = "",
    on_hang: str = "stop",
    json: bool = False,
) -> None:
    """Push, run a lab's workloads on all nodes, fetch the results, report. Ctrl-C looks away; the run goes on.

    A job over all nodes that shows no sign of life for 120 s (--hang-s) is ended; --on-hang teardown ends the lab, too.
    """
    screen, wait_s = Screen(json=json), number("wait", wait)
    patience = read_patience(hang_s, on_hang, deployed=not (on or hosts))
    choice.check_launcher(launcher, on=on)
    chosen = choice.choose_lab(lab, name)
    jobs = tuple(job(workload) for workload in choice.choose_workloads(chosen, only, allow_tcp=allow_tcp))
    with choice.open_target(chosen, on=on, hosts=hosts, launcher=launcher, screen=screen) as cluster:
        order = execution.Order(
            jobs=jobs,
            lab=chosen,
            usd_per_hour=execution.price(cluster),
            environment=tuple(filter(None, env.split(","))),
            wait_s=wait_s,
            launcher=launcher,
            hang_s=patience.hang_s,
        )
        run = execution.execute(cluster, order, screen)
    stop_paying(patience, run, chosen, screen)
    show_outcome(run, screen, json=json)


@verb
def run(
    c: Context,
    lab: str = "",
    name: str = "",
    on: str = "",
    hosts: str = "",
    everywhere: bool = False,
    launcher: str = "torchrun",
    restarts: str = "0",
    limit: str = "86400",
    env: str = "",
    wait: str = "",
    hang_s: str = "",
    on_hang: str = "stop",
    json: bool = False,
) -> None:
    """Run your own script or command: fab run --lab 3 -- train.py --steps 100

    A .py file gets one rank a GPU over all nodes, by torchrun; with --everywhere one plain process a node. What it
    writes to $ROOFLAB_OUT comes home. Any other command runs once a node.
    """
    screen, wait_s = Screen(json=json), number("wait", wait)
    chosen = choice.choose_lab(lab, name) if lab else None
    patience = read_patience(hang_s, on_hang, deployed=chosen is not None and not (on or hosts))
    limit_s = int(number("limit", limit) or 86400)
    choice.check_launcher(launcher, on=on)
    again = int(number("restarts", restarts) or 0)
    own, files = choice.own_job(words(), everywhere=everywhere, limit_s=limit_s, restarts=again, local=bool(on))
    with choice.open_target(chosen, on=on, hosts=hosts, launcher=launcher, screen=screen) as cluster:
        order = execution.Order(
            jobs=(own,),
            lab=chosen,
            usd_per_hour=execution.price(cluster),
            environment=tuple(filter(None, env.split(","))),
            files=files,
            wait_s=wait_s,
            launcher=launcher,
            hang_s=patience.hang_s,
        )
        done = execution.execute(cluster, order, screen)
    stop_paying(patience, done, chosen, screen)
    show_outcome(done, screen, json=json, report=False)


@verb
def logs(c: Context, lab: str = "", name: str = "", run: str = "", node: str = "", workload: str = "") -> None:
    """Print what a run (the newest, unless named) has logged so far, on all nodes or on one."""
    show_logs(Screen(), lab=lab, name=name, run=run, node=node, workload=workload)


@verb
def attach(c: Context, lab: str = "", name: str = "", run: str = "", json: bool = False) -> None:
    """Come back to a run that goes on: its output so far, then live, then results and report."""
    screen = Screen(json=json)
    found, cluster = choice.resume(run, lab=lab, name=name, screen=screen)
    if cluster:
        with cluster:
            found = execution.attend(cluster, found, screen)
    show_outcome(found, screen, json=json)


@verb
def stop(c: Context, lab: str = "", name: str = "", run: str = "", json: bool = False) -> None:
    """End a run (the newest, unless named) on all nodes and fetch what it left. The lab stays up."""
    screen = Screen(json=json)
    found, cluster = choice.resume(run, lab=lab, name=name, screen=screen)
    if cluster:
        with cluster:
            found = execution.stop(cluster, found, screen)
    show_outcome(found, screen, json=json, expected=(0, 143))


@verb
def ssh(c: Context, lab: str = "", name: str = "", node: str = "") -> None:
    """Open a shell on a node (the head, unless named), or run a command: fab ssh --lab 3 -- nvidia-smi"""
    with choice.open_lab(lab, name, Screen()) as cluster:
        command = openssh.ssh_words(cluster, openssh.choose(cluster, node), words())
    raise SystemExit(openssh.foreground(command))


@verb
def tunnel(c: Context, lab: str = "", name: str = "", node: str = "", port: str = "8888", local_port: str = "") -> None:
    """Lead a local port to a node's port, for Jupyter or TensorBoard. Ctrl-C ends it."""
    remote_port = openssh.port("port", port)
    near = openssh.port("local_port", local_port or port)
    openssh.free_port(near)
    screen = Screen()
    with choice.open_lab(lab, name, screen) as cluster:
        chosen = openssh.choose(cluster, node)
        command = openssh.tunnel_words(cluster, chosen, port=remote_port, local_port=near)
    screen.note(f"http://localhost:{near} leads to port {remote_port} of {chosen.name}; Ctrl-C ends it")
    openssh.keep_open(command)


@verb
def put(c: Context, source: str, lab: str = "", name: str = "", node: str = "", to: str = "") -> None:
    """Copy a file or folder to all nodes (or one): fab put data --lab 3 --to data/"""
    with choice.open_lab(lab, name, Screen()) as cluster:
        chosen = [openssh.choose(cluster, node)] if node else cluster.nodes
        openssh.demand(openssh.put(cluster, Path(source), to, chosen), f"take {source}")


@verb
def get(c: Context, source: str, lab: str = "", name: str = "", node: str = "", to: str = ".") -> None:
    """Copy a file or folder from the head (or --node node1, or --node all): fab get checkpoints --lab 3"""
    with choice.open_lab(lab, name, Screen()) as cluster:
        chosen = cluster.nodes if node == "all" else [openssh.choose(cluster, node)]
        openssh.demand(openssh.get(cluster, source, Path(to), chosen), f"give {source}")


@verb
def preflight(c: Context, lab: str = "", name: str = "", context: str = "", json: bool = False) -> None:
    """Say in seconds whether a lab would come up: quotas, zones, reservation, image, tools. Makes nothing."""
    chosen = choice.override(choice.choose_lab(lab, name), context)
    show_preflight(check_lab(Account(), chosen), Screen(json=json), json=json)


@verb
def up(
    c: Context,
    lab: str = "",
    name: str = "",
    owner: str = "",
    context: str = "",
    budget: str = "",
    notify: str = "",
    fallback: str = "",
    force: bool = False,
    json: bool = False,
) -> None:
    """Deploy a lab where there is capacity: preflight, best zone, cdk deploy, count; on a shortage the next zone."""
    chosen = choice.choose_lab(lab, name)
    wish = read_wish(chosen, context=context, owner=owner, spend=budget, notify=notify, fallback=fallback, force=force)
    bring_up(Account(), wish, Screen(json=json), json=json)


@verb
def bake(c: Context, lab: str = "", name: str = "", node: str = "", remove: str = "", json: bool = False) -> None:
    """Make an image of a ready node, for -c image=baked: labs then boot in a minute. --remove gpu takes it away."""
    screen = Screen(json=json)
    if remove:
        image.remove(Account(), image.check_kind(remove), screen, json=json)
        return
    with choice.open_lab(lab, name, screen) as cluster:
        image.bake(cluster, choice.choose_lab(lab, name), node, screen, json=json)


@verb
def types(c: Context, refresh: bool = False, write: bool = False, json: bool = False) -> None:
    """List the instance types that labs may run on; --refresh compares them with EC2, --write keeps what it says."""
    screen = Screen(json=json)
    if refresh or write:
        instances.refresh(Account(), screen, keep=write, json=json)
    else:
        instances.show_types(screen, json=json)


@verb
def cost(c: Context, lab: str = "", name: str = "", context: str = "", json: bool = False) -> None:
    """Itemise what a lab costs an hour and for its time to live, and what a deployed one has cost; needs no account."""
    show_cost(choice.override(choice.choose_lab(lab, name), context), Screen(json=json), json=json)


@verb
def fits(
    c: Context,
    lab: str = "",
    name: str = "",
    context: str = "",
    model: str = "mistral-7b",
    purpose: str = "",
    batch: str = "",
    sequence: str = "",
    json: bool = False,
) -> None:
    """Say whether a model trains or serves on a lab's GPUs, and how: predicted byte by byte; needs no account."""
    chosen = choice.override(choice.choose_lab(lab, name), context)
    question = fit.read_question(model, purpose=purpose, batch=batch, sequence=sequence)
    fit.show_fits(chosen, question, Screen(json=json), json=json)


@verb
def advise(
    c: Context,
    model: str = "mistral-7b",
    train_tokens: str = "",
    serve_tokens: str = "",
    sequence: str = "",
    prompt: str = "",
    answer: str = "",
    ttft: str = "",
    tpot: str = "",
    types: str = "",
    json: bool = False,
) -> None:
    """Find the cheapest way to so many tokens: fab advise --train-tokens 2e9, or --serve-tokens 1e9 --ttft 0.5"""
    bounds = {"sequence": sequence, "prompt": prompt, "answer": answer, "ttft": ttft, "tpot": tpot}
    wish = advice.read_wish(model, train_tokens=train_tokens, serve_tokens=serve_tokens, **bounds)
    advice.show_advice(wish, types, Screen(json=json), json=json)


@verb
def extend(c: Context, lab: str = "", name: str = "", hours: str = "1", json: bool = False) -> None:
    """Move a lab's deadline, so that the guard ends it later; says when that is. --hours 0 only says."""
    stack = choice.choose_lab(lab, name).stack
    account = Account()
    more = number("hours", hours) or 0.0
    deadline = extend_deadline(account, stack, more) if more else read_deadline(account, stack)
    print(document.dumps(asdict(deadline), default=str, indent=1) if json else deadline)
    tell(account, stack, Screen(json=json))


@verb
def teardown(
    c: Context, lab: str = "", name: str = "", all: bool = False, yes: bool = False, json: bool = False
) -> None:
    """Fetch what still runs, end a lab, and prove by a receipt that nothing is left. Ending it twice is harmless."""
    chosen = choice.choose_end(lab, name, everything=all)
    account, screen = Account(), Screen(json=json)
    if chosen is None:
        clear_account(account, screen, yes=yes, json=json)
    else:
        end_lab(account, chosen, screen, json=json)


@verb
def audit(c: Context, lab: str = "", name: str = "", all_regions: bool = False, json: bool = False) -> None:
    """List everything of a lab (all labs, unless named) that is in the account, what it costs, and what removes it."""
    stack = choice.choose_lab(lab, name).stack if lab else ""
    show_audit(stack, Screen(json=json), everywhere=all_regions, json=json)


@verb
def report(c: Context, lab: str = "", name: str = "", run: str = "", quiz: bool = False, json: bool = False) -> None:
    """Show a run's numbers beside their roofs (the newest run, unless named) and write report.html anew."""
    found = choice.choose_run(run, lab=lab, name=name)
    show_report(found, Screen(json=json), json=json, quiz=quiz)


@verb
def compare(c: Context, base: str, other: str, lab: str = "", floor: str = "", json: bool = False) -> None:
    """Say what is faster, and whether the runs suffice to say so: fab compare RUN,RUN,RUN,RUN,RUN RUN,RUN,…

    A side is runs of one thing with commas between them, or a commit or stack of which all runs here count. Five runs a
    side, taken in turn, tell; fewer give the ratios alone.
    """
    show_comparison(base, other, Screen(json=json), lab=lab, floor=floor, json=json)


@verb
def rehearsal_start(c: Context, name: str = "default", seed: str = "0", link: str = "", json: bool = False) -> None:
    """Start an AWS on this machine; with --link 100mbit nodes have slow links. Then: eval "$(fab rehearsal.env)"."""
    with rehearsed() as control:
        told = control.start(name, seed=int(number("seed", seed) or 0), link=link)
    option = "" if name == "default" else f" --name {name}"
    print(document.dumps(told, indent=1) if json else f'{told["endpoint"]} is up: eval "$(fab rehearsal.env{option})"')


@verb
def rehearsal_stop(c: Context, name: str = "default", everything: bool = False, json: bool = False) -> None:
    """End a rehearsal and everything that runs in it; --everything ends all of this clone."""
    with rehearsed() as control:
        told = control.stop(name, everything=everything)
    if json:
        print(document.dumps(told, indent=1))
        return
    print(f"stopped {', '.join(told['stopped']) or 'nothing: none ran'}")
    if "AWS_ENDPOINT_URL" in os.environ:
        print("a shell that still points there is led back by: unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID "
              "AWS_SECRET_ACCESS_KEY AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE")  # fmt: skip


@verb
def rehearsal_status(c: Context, name: str = "default", json: bool = False) -> None:
    """Say whether a rehearsal runs, where, what its clock shows, and its nodes."""
    with rehearsed() as control:
        told = control.status(name)
    lines = (f"{key}: {value}" for key, value in told.items())
    print(document.dumps(told, indent=1, default=str) if json else "\n".join(lines))


@verb
def rehearsal_env(c: Context, name: str = "default", json: bool = False) -> None:
    """Print what makes every AWS tool of this shell talk to the rehearsal: eval "$(fab rehearsal.env)"."""
    with rehearsed() as control:
        told = control.environment(name)
    # A profile or a session token of the shell's would win over, or mix with, the rehearsal's key.
    lines = ("unset AWS_PROFILE AWS_SESSION_TOKEN", *(f"export {key}={quote(value)}" for key, value in told.items()))
    print(document.dumps(told, indent=1) if json else "\n".join(lines))


@verb
def rehearsal_advance(c: Context, name: str = "default", seconds: str = "3600", json: bool = False) -> None:
    """Move the rehearsal's clock forward; the guard's ticks that fall due are run."""
    with rehearsed() as control:
        told = control.advance(name, number("seconds", seconds) or 0.0)
    if json:
        print(document.dumps(told, indent=1, default=str))
        return
    for tick in told["ticks"]:
        said = [
            f"{lab['stack']}: {'; '.join(lab['did'])}"
            for lab in (tick["value"] or {}).get("labs", ())
            if lab.get("did")
        ]
        said += [f"failed: {tick['error']}"] if tick["error"] else []
        for line in said:
            print(f"{tick['time']}  guard, {line}")
    print(f"{told['now']}  {len(told['ticks'])} ticks of the guard so far, {len(told['nodes'])} nodes are up")


@verb
def rehearsal_link(c: Context, rate: str, name: str = "default", json: bool = False) -> None:
    """Change how fast the links of all nodes are: 100mbit, 1gbit, unlimited; of a rehearsal started with --link."""
    with rehearsed() as control:
        told = control.link(name, rate)
    print(document.dumps(told, indent=1, default=str) if json else f"every node's link: {told['link']}, each way")


@verb
def rehearsal_fault(
    c: Context,
    fault: str,
    name: str = "default",
    at: str = "now",
    seed: str = "0",
    options: str = "",
    list: bool = False,
    clear: bool = False,
    json: bool = False,
) -> None:
    """Let something go wrong: fab rehearsal.fault no-capacity --at ec2:RunInstances; --list names all there is."""
    with rehearsed() as control:
        if list:
            lines = control.faults()
        elif clear:
            lines = control.clear(name)["faults"]
        else:
            given = control.options(options)
            lines = control.fault(name, fault, at=at, seed=int(number("seed", seed) or 0), **given)["faults"]
        print(document.dumps(lines, indent=1) if json else control.told(lines))


namespace = Collection(
    preflight,
    up,
    bake,
    types,
    nodes,
    doctor,
    run_lab,
    run,
    logs,
    attach,
    stop,
    ssh,
    tunnel,
    put,
    get,
    cost,
    fits,
    advise,
    extend,
    teardown,
    audit,
    report,
    compare,
)
namespace.add_collection(
    Collection(
        "rehearsal",
        start=rehearsal_start,
        stop=rehearsal_stop,
        status=rehearsal_status,
        env=rehearsal_env,
        advance=rehearsal_advance,
        link=rehearsal_link,
        fault=rehearsal_fault,
    )
)
