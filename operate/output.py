"""What a person sees of a run while it goes: of a few nodes every line, of many the first one's and whatever fails."""

from collections.abc import Sequence

from operate import crowd
from operate.hang import HUNG
from operate.screen import Screen, clock

MOST = 8
"""With more nodes than these only the first one's lines are shown as they come: nobody reads 64 logs at once."""


class Output:
    """Shows a run's lines and how its workloads end. All logs come home, shown or not."""

    def __init__(self, screen: Screen, nodes: Sequence[str]) -> None:
        self._screen = screen
        self._nodes = tuple(nodes)
        self._shown = set(nodes if len(nodes) <= MOST else nodes[:1])
        self._last: dict[tuple[str, str], str] = {}
        """By node that is not shown, and workload: the last line that tells something."""
        self._done: dict[str, dict[str, int]] = {}
        """By workload and node: the seconds it took; told together."""
        self._failed: dict[str, int] = {}
        """By workload: how many nodes."""
        self._warnings: dict[str, str] = {}
        if len(nodes) > MOST:
            screen.aside(
                f"{len(nodes)} nodes: what {nodes[0]} writes is shown, of the others what fails; "
                f"fab logs --node {nodes[1]} shows one of them"
            )

    def lines(self, node: str, workload: str, lines: Sequence[str]) -> None:
        """What a node wrote."""
        for line in lines:
            if node in self._shown:
                self._screen.output(node, line)
            elif any(character.isalnum() for character in line):
                self._last[node, workload] = line.strip()

    def ended(self, node: str, workload: str, code: int, seconds: int) -> None:
        """A workload ended on a node."""
        if len(self._nodes) <= MOST:
            self._screen.note(f"[{node}] {workload}: {_how(code)} after {clock(seconds)}")
        elif code == 0:
            self._done.setdefault(workload, {})[node] = seconds
        else:
            self._fail(node, workload, code, seconds)
        if len(self._done.get(workload, ())) + self._failed.get(workload, 0) == len(self._nodes):
            self._tell(workload)

    def warn(self, node: str, text: str) -> None:
        """Something is wrong with a node; many of them lose their connections at once, and are told at the next
        `pause`."""
        if len(self._nodes) <= MOST:
            self._screen.warn(text)
        else:
            self._warnings[node] = f"{self._warnings[node]}; {text}" if node in self._warnings else text

    def pause(self) -> None:
        """Nothing has come for a moment: tell the warnings that were kept."""
        for line in crowd.lines(self._warnings):
            self._screen.warn(line)
        self._warnings.clear()

    def close(self) -> None:
        """Tell what was kept to be told together: where a node was lost, not all of them end."""
        self.pause()
        for workload in tuple(self._done):
            self._tell(workload)

    def _fail(self, node: str, workload: str, code: int, seconds: int) -> None:
        before = self._failed.get(workload, 0)
        self._failed[workload] = before + 1
        if before < crowd.LINES:
            last = self._last.get((node, workload))
            said = f": {last}" if last else ""
            self._screen.output(node, f"{workload}: {_how(code)} after {clock(seconds)}{said}")
        elif before == crowd.LINES:
            self._screen.note(f"{workload}: fails on more nodes, which are named at the end")

    def _tell(self, workload: str) -> None:
        done = self._done.pop(workload, {})
        if done:
            took = " to ".join(dict.fromkeys(clock(seconds) for seconds in (min(done.values()), max(done.values()))))
            which = f"all {len(done)}" if len(done) == len(self._nodes) else f"{len(done)} of {len(self._nodes)}"
            self._screen.note(f"{workload}: done on {which} nodes after {took}")


def _how(code: int) -> str:
    return {0: "done", 124: "over its time limit", HUNG: "hung"}.get(code, f"failed with exit code {code}")
