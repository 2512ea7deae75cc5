"""What torchrun gets from the node's roster."""

import asyncio
from pathlib import Path

from operate.peers import Events
from operate.ranks import SAVE_S, Ranks


def test_ranks_that_are_started_again_meet_in_a_store_of_their_own_and_have_time_to_save(tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    async def start() -> None:
        events = Events()
        ranks = Ranks("node0", ["sh"], events)
        await ranks.start(["-c", f'env > "{seen}"'], {"ROOFLAB_GENERATION": "1"}, generation=1)
        assert (await events.next(60))[0] == "ended"

    asyncio.run(start())
    found = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert found["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert found["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == str(SAVE_S)
    assert found["ROOFLAB_GENERATION"] == "1"
