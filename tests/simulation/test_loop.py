"""Virtual time, killed and stopped processes: what the rest of the simulation stands on."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.simulation.loop import Process, Scheduler, Stuck


def scheduler(*, shuffled: bool = False) -> Scheduler:
    return Scheduler(Random(1), shuffled=shuffled)


def test_hours_pass_at_once_and_in_order() -> None:
    world = scheduler()
    process = world.process("p")
    seen: list[int] = []

    async def sleeper(hours: int) -> None:
        await asyncio.sleep(hours * 3600)
        seen.append(hours)

    async def main() -> None:
        await asyncio.gather(*(sleeper(hours) for hours in (3, 1, 2)))

    world.run(process.create_task(main()), until_s=1e6, steps_max=10_000)
    assert seen == [1, 2, 3]
    assert 3 * 3600 <= world.now_s < 3 * 3600 + 1


def test_a_killed_process_runs_nothing_more_not_even_what_is_in_finally() -> None:
    world = scheduler()
    driver, victim = world.process("driver"), world.process("victim")
    seen: list[str] = []

    async def live() -> None:
        try:
            while True:
                seen.append("lives")
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0)
            seen.append("never")

    async def main() -> None:
        await asyncio.sleep(2.5)
        victim.kill()
        await asyncio.sleep(10)

    victim.create_task(live())
    world.run(driver.create_task(main()), until_s=1e6, steps_max=10_000)
    world.close()
    assert seen == ["lives"] * 3
    assert world.failures == []


def test_a_stopped_process_goes_on_where_it_was() -> None:
    world = scheduler()
    driver, stopped = world.process("driver"), world.process("stopped")
    at_s: list[float] = []

    async def live() -> None:
        await asyncio.sleep(1)
        at_s.append(world.now_s)

    async def main() -> None:
        stopped.stop()
        await asyncio.sleep(60)
        assert at_s == []
        stopped.go_on()
        await asyncio.sleep(1)

    stopped.create_task(live())
    world.run(driver.create_task(main()), until_s=1e6, steps_max=10_000)
    assert 60 < at_s[0] < 62


def test_the_seed_alone_decides_the_order() -> None:
    def order(seed: int) -> list[int]:
        world = Scheduler(Random(seed), shuffled=True)
        process: Process = world.process("p")
        seen: list[int] = []

        async def note(number: int) -> None:
            seen.append(number)

        async def main() -> None:
            await asyncio.gather(*(note(number) for number in range(20)))

        world.run(process.create_task(main()), until_s=1e6, steps_max=10_000)
        return seen

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(20))


def test_a_set_of_tasks_is_gone_through_as_they_were_made() -> None:
    world = scheduler()
    process = world.process("p")

    async def wait() -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        tasks = [process.create_task(wait()) for _ in range(50)]
        assert list({*tasks[1:], tasks[0]}) == tasks
        await asyncio.wait(tasks)

    world.run(process.create_task(main()), until_s=1e6, steps_max=10_000)


def test_a_cluster_that_hangs_is_told() -> None:
    world = scheduler()
    process = world.process("p")

    async def main() -> None:
        await process.create_future()

    with pytest.raises(Stuck):
        world.run(process.create_task(main()), until_s=1e6, steps_max=10_000)
    world.close()
