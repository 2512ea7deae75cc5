"""What makes a function a verb of `fab`: its errors are one line, its words after `--` are its own."""

import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from fabric import Executor as FabricExecutor
from invoke import Argument, Exit, Task, UnexpectedExit, task

from operate import laptop
from operate.account import explain
from operate.problem import Problem

HELP = {
    "lab": "The lab's number, 0 to 4.",
    "name": "The lab's name, where it was deployed with -c name=; a rehearsal's name in rehearsal verbs.",
    "node": "node0, node1, …; node0 is the head.",
    "run": "A run's name, as under results/; the newest where it is left out.",
    "workload": "One of the run's workloads.",
    "context": "Overrides as for cdk -c, with commas between them: nodes=4,capacity=spot.",
    "json": "One JSON document on stdout and nothing else.",
    "on": "local: run on this machine; no stack, no SSH.",
    "hosts": "Your own machines, as user@a,user@b: run there; no stack.",
    "only": "Workloads of the lab to run, with commas between them; else all.",
    "allow_tcp": "Go on where nodes with EFA do not use it; else collectives fails, and says what is broken.",
    "env": "Variables to pass to the processes, with commas between them. HF_TOKEN and WANDB_API_KEY go by themselves.",
    "wait": "Longest wait for the nodes to answer, in seconds.",
    "everywhere": "One plain process on every node instead of torchrun over all.",
    "launcher": "torchrun, which goes on without a lost node, or slurm, whose queue starts the run again without it.",
    "restarts": "How often a .py file is started again after a rank or a node was lost; it resumes what it saved.",
    "everything": "All rehearsals of this clone.",
    "all": "All labs of the account and region, then GuardStack, its bucket with all results, and its parameters.",
    "yes": "Do not ask.",
    "all_regions": "Every region that the account has enabled.",
    "hours": "Hours to add to the deadline; 1 where it is left out.",
    "link": "How fast each node's own link is: 100mbit, 1gbit, unlimited; none where it is left out. Linux, as root.",
    "rate": "How fast: 100mbit, 1gbit, unlimited.",
    "seed": "Fixes ids, placement and the timing of faults.",
    "seconds": "How far, in seconds; an hour where it is left out.",
    "instance_type": "Which type, for example g6.12xlarge; all where it is left out.",
    "zone": "Which availability zone; all where it is left out.",
    "fault": "The fault's name; fab rehearsal.fault --list shows them all.",
    "at": "When: now, ec2:RunInstances:2, call, tick:3 or AWS::EC2::VPC:CREATE_COMPLETE.",
    "options": "The fault's options, with commas between them: instance_type=g6.12xlarge,left=1.",
    "clear": "Forget all faults, and let what they hold up go on.",
    "list": "Show what there is.",
    "limit": "Most seconds that it may take; a day where it is left out.",
    "hang_s": "Seconds without a sign of life that end a job over all nodes; 120 where it is left out, 0: never.",
    "on_hang": "stop ends a job that hung, teardown its lab as well; stop where it is left out.",
    "port": "The node's port; 8888 where it is left out.",
    "local_port": "This machine's port; the same where it is left out.",
    "to": "Where the copy goes: on a node below the home, here below this folder.",
    "source": "The file or folder to copy.",
    "owner": "Who answers for the bill, a tag on everything; whoever the credentials belong to where it is left out.",
    "budget": "Dollars that the lab may cost: its deadline is where they are spent.",
    "notify": "A mail address that the guard writes to before and after it ends a lab.",
    "fallback": "on-demand: where spot is short everywhere, take on-demand nodes.",
    "remove": "gpu or cpu: take that image, its snapshots and its parameter away instead.",
    "refresh": "Ask EC2 what its types are today, and show what changed.",
    "write": "Put what EC2 says into labs/instances.json.",
    "force": "Go on although the preflight failed.",
    "base": "Runs of one thing: names with commas between them, a commit, or a stack.",
    "other": "Runs of the other, named likewise.",
    "quiz": "Guess the numbers before they are shown, here and on a page, quiz.html, that hides them.",
    "floor": "Further runs of the first side: they tell how much runs of one thing differ on that machine.",
    "model": "A shape of labs/models.py, for example mistral-7b.",
    "train_tokens": "Tokens to train on, for example 2e9.",
    "serve_tokens": "Tokens to make, for example 1e9.",
    "sequence": "Tokens of a sequence that is trained on; 4096 where it is left out.",
    "purpose": "train or serve; both where it is left out.",
    "batch": "Sequences at once on a device; 1 where it is left out.",
    "prompt": "Tokens of a request's prompt; 512 where it is left out.",
    "answer": "Tokens of its answer; 128 where it is left out.",
    "ttft": "Longest time to the first token, in seconds; any where it is left out.",
    "tpot": "Longest time for each later token, in seconds; any where it is left out.",
    "types": "Instance types or families, with commas between them: g6,p5.48xlarge; all where it is left out.",
}
"""What `fab --help VERB` says of each flag; a flag means the same in every verb."""

Body = TypeVar("Body", bound=Callable[..., None])


class Executor(FabricExecutor):  # type: ignore[misc]  # Fabric ships no types
    """Fabric's executor without its own use of `--`: there it would demand -H hosts. fabric.yaml names this class."""

    def expand_calls(self, calls: Any, apply_hosts: bool = True) -> Any:
        """See `invoke.Executor.expand_calls`."""
        self.core.remainder = ""
        return super().expand_calls(calls, apply_hosts=apply_hosts)


class _Word(Argument):  # type: ignore[misc]  # invoke's is Any to mypy beside Fabric's
    """A word that its verb cannot do without, unless a flag asks for something else than the verb's usual work."""

    instead: tuple[Argument, ...] = ()

    @property
    def value(self) -> Any:
        """See `invoke.Argument.value`; None sends the parser looking for the word."""
        return "" if self._value is None and any(flag.value for flag in self.instead) else self._value

    @value.setter
    def value(self, given: str) -> None:
        self.set_value(given)


class Verb(Task):  # type: ignore[misc]  # invoke ships no types
    """A task of which --list and --clear need none of the words."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """See `invoke.Task.get_arguments`."""
        given: list[Argument] = super().get_arguments(ignore_unknown_help)
        instead = tuple(flag for flag in given if flag.name in ("list", "clear"))
        for place, word in enumerate(given):
            if word.positional and instead:
                given[place] = _Word(names=word.names, help=word.help, positional=True, attr_name=word.attr_name)
                given[place].instead = instead
        return given


def words() -> tuple[str, ...]:
    """What the user wrote after `--`, word by word as the shell gave it (invoke joins it with spaces)."""
    return tuple(sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else ()


def number(flag: str, text: str) -> float | None:
    """The number that a flag gives, at least 0; None where it was left out.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return None
    if not text.replace(".", "", 1).isdecimal():
        raise ValueError(f"{flag}={text!r} is not a number: write for example --{flag} 30")
    return float(text)


def verb(body: Body) -> Body:
    """`body` as a task of `fab` whose failures end in one line on stderr and an exit code that is not 0."""

    @wraps(body)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except (Exit, UnexpectedExit):
            raise
        except KeyboardInterrupt:
            fail(Problem("interrupted", "run the same command again", exit_code=130))
        except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
            sys.stdout = None  # so that the interpreter does not flush into it at its end
            raise SystemExit(0) from None
        except Exception as error:
            fail(as_problem(error))

    flags = list(signature(body).parameters)[1:]
    return cast(Body, task(guarded, klass=Verb, auto_shortflags=False, help={flag: HELP[flag] for flag in flags}))


def as_problem(error: Exception) -> Problem:
    """What `error` is to the user. What nobody foresaw leaves its traceback in .rooflab/tracebacks."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BotoCoreError | ClientError):
        return explain(error)
    if isinstance(error, ValueError) and _ours(error):
        cause, _, remedy = str(error).partition(": ")
        return Problem(cause, remedy or "see fab --help VERB")
    saved = _save(error)
    return Problem(
        f"unexpected {type(error).__name__}: {error}", f"the traceback is in {saved}; please report it with that"
    )


def fail(problem: Problem) -> None:
    """Say `problem` on stderr and end with its exit code."""
    for line in problem.details:
        print(f"  {line}", file=sys.stderr)
    print(f"problem: {problem}", file=sys.stderr, flush=True)
    raise SystemExit(problem.exit_code)


def _ours(error: ValueError) -> bool:
    """Whether our own code raised it about what the user gave; any other ValueError is a bug."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).parent in (laptop.ROOT / "labs", laptop.ROOT / "operate")


def _save(error: Exception) -> Path:
    folder = laptop.state("tracebacks")
    path = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.txt"
    path.write_text("".join(traceback.format_exception(error)))
    return path
