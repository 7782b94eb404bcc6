"""Virtual time for a whole cluster in one thread: a heap of timers, a bag of ready callbacks, and one event loop a process.

Owns time, order and life and death of simulated processes. Must not know what they run. Nothing here does real I/O or
starts a thread, and every choice comes from the seed, so that a run can be repeated.

A `Process` is an event loop of its own on the shared scheduler, so that a kill is what kill -9 is: from one step to the
next none of its callbacks runs again, no `finally` is honoured; and a stop (SIGSTOP) keeps them all waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import warnings
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

STEP_S = 2e-6
"""What one callback costs, so that a loop without a timer cannot hold time still."""

AWAITS_IN_FINALLY_MAX = 50


class Stuck(Exception):
    """Nothing is ready and no timer runs, or the limits of the run are reached: the simulated cluster hangs."""


class Handle(msgspec.Struct, eq=False):
    """A Struct because it is made in C: a run makes a hundred thousand."""

    process: Process
    callback: Callable[..., object] | None
    args: tuple[Any, ...]
    context: contextvars.Context | None
    due_s: float

    def cancel(self) -> None:
        self.callback = None
        self.args = ()
        self.context = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.due_s


class NumberedTask(asyncio.Task[T]):
    """A set of tasks is gone through in an order that comes from the run, not from where they are in memory."""

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, T], **options: Any) -> None:
        self.number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number


class Scheduler:
    """`shuffled`: ready callbacks run in random order; else in the order in which asyncio promises to run them."""

    def __init__(self, random: Random, *, shuffled: bool) -> None:
        self.random = random
        self.now_s = 0.0
        self.steps = 0
        self.tasks = 0
        self.failures: list[str] = []
        self.processes: list[Process] = []
        self._shuffled = shuffled
        self._ready: deque[Handle] = deque()
        self.ready = self._ready.append
        """Takes a callback that is due now."""
        self._timers: list[tuple[float, int, Handle]] = []
        self._timer_number = 0

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self.processes.append(process)
        return process

    def at(self, handle: Handle) -> None:
        self._timer_number = number = self._timer_number + 1
        heappush(self._timers, (handle.due_s, number, handle))

    def run(self, main: asyncio.Task[T], *, until_s: float, steps_max: int) -> T:
        """Runs all processes until `main` is done. Raises Stuck, and what `main` raises."""
        ready, timers, random, is_done = self._ready, self._timers, self.random.random, main.done
        shuffled, take, set_running = self._shuffled, ready.popleft, events._set_running_loop
        current: Process | None = None
        sweep_at = 20_000
        try:
            while not is_done():
                while timers and timers[0][0] <= self.now_s:
                    handle = heappop(timers)[2]
                    if handle.callback is not None:
                        ready.append(handle)
                if not ready:
                    while timers and timers[0][2].callback is None:
                        heappop(timers)
                    if not timers:
                        raise Stuck("nothing is ready and no timer runs")
                    self.now_s = timers[0][0]
                    continue
                if shuffled and len(ready) > 1:
                    ready.rotate(-int(random() * len(ready)))
                handle = take()
                callback = handle.callback
                if callback is None:
                    continue
                process = handle.process
                if process.is_stopped:
                    process.take(handle)
                    continue
                self.steps += 1
                self.now_s += STEP_S
                if process is not current:
                    current = process
                    set_running(process)  # type: ignore[arg-type]
                try:
                    if handle.context is None:
                        callback(*handle.args)
                    else:
                        handle.context.run(callback, *handle.args)
                except Exception as error:
                    self.failures.append(f"{process.name}: a callback raised {type(error).__name__}: {error}")
                if self.steps & 0xFFF == 0:
                    if self.steps > steps_max or self.now_s > until_s:
                        raise Stuck(f"after {self.steps} steps and {self.now_s:.0f} s of virtual time")
                    if len(timers) > sweep_at:
                        timers[:] = [t for t in timers if t[2].callback is not None]
                        heapify(timers)
        finally:
            events._set_running_loop(None)
        return main.result()

    def close(self) -> None:
        """Ends every task of every process, so that nothing is destroyed while it is pending."""
        for process in self.processes:
            process.kill()
        self._ready.clear()
        self._timers.clear()


class Process:
    """One process's event loop: what asyncio asks of a loop, without sockets, signals and threads."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.is_alive = True
        self.is_stopped = False
        self._kept: list[Handle] = []
        self._ready = scheduler.ready
        self._at = scheduler.at

    # life and death

    def kill(self) -> None:
        """Not from a task of its own. What its coroutines have in their `finally` finds a process that reaches nothing."""
        self.is_alive = False
        self.is_stopped = True
        self._kept.clear()
        hook, sys.unraisablehook = sys.unraisablehook, _unheard
        running = events._get_running_loop()
        events._set_running_loop(self)  # type: ignore[arg-type]
        buried: set[NumberedTask[Any]] = set()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a coroutine that was never begun
                while tasks := self.tasks() - buried:
                    for task in sorted(tasks, key=hash):
                        _bury(task)
                    buried |= tasks
        finally:
            events._set_running_loop(running)
            sys.unraisablehook = hook

    def tasks(self) -> set[NumberedTask[Any]]:
        """Those that are not done."""
        found = asyncio.all_tasks(self)  # type: ignore[arg-type]
        return {task for task in found if isinstance(task, NumberedTask)}

    def stop(self) -> None:
        self.is_stopped = True

    def go_on(self) -> None:
        if self.is_alive:
            self.is_stopped = False
            for handle in self._kept:
                self.scheduler.ready(handle)
            self._kept.clear()

    def take(self, handle: Handle) -> None:
        """A callback that is due while the process stands."""
        if self.is_alive:
            self._kept.append(handle)

    # what asyncio asks of a loop

    def time(self) -> float:
        return self.scheduler.now_s

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(self, callback, args, context, 0.0)
        if self.is_alive:
            self._ready(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay_s: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(self, callback, args, context, self.scheduler.now_s + delay_s)
        if self.is_alive:
            self._at(handle)
        return handle

    def call_at(
        self,
        when_s: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(self, callback, args, context, when_s)
        if self.is_alive:
            self._at(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(self, coroutine: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:
        self.scheduler.tasks += 1
        return NumberedTask(self.scheduler.tasks, coroutine, loop=self, **options)

    def run_in_executor(
        self, _executor: object, function: Callable[..., T], *args: object
    ) -> asyncio.Future[T]:
        """A thread: it works at some moment, and its result is seen at a later one; a kill may fall between."""
        future: asyncio.Future[T] = self.create_future()
        random = self.scheduler.random.random

        def work() -> None:
            try:
                result = function(*args)
            except Exception as error:
                self.call_later(random() * 3e-4, _fail, future, error)
            else:
                self.call_later(random() * 3e-4, _succeed, future, result)

        self.call_later(random() * 2e-3, work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.is_alive:
            error = context.get("exception")
            where = context.get("task", context.get("future", ""))
            self.scheduler.failures.append(
                f"{self.name}: {context.get('message')}: {type(error).__name__}: {error} {where}"
            )

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False


def _unheard(_: object) -> None:
    pass


def _bury(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    for _ in range(AWAITS_IN_FINALLY_MAX):
        try:
            coroutine.close()  # type: ignore[union-attr]
            return
        except Exception:  # its `finally` awaits something, or finds the world closed
            continue


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
