"""A virtual clock: event loops and threads that sleep move the time on instead of waiting."""

import asyncio
import contextlib
import heapq
import itertools
import math
import selectors
import threading


class Clock:
    """The time of event loops and threads. It moves on when all of them wait."""

    def __init__(self):
        self.now = 50_000.0
        self.time_of_day = 1.7e9
        """What `time.time` adds to `now`."""
        self._is_closed = False
        self._running_threads = 0
        self._idle = threading.Condition()
        self._sleepers: list[tuple[float, int, threading.Event]] = []
        self._numbers = itertools.count()

    def install(self, monkeypatch):
        """Let programs go by this clock."""
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.time", lambda: self.time_of_day + self.now)
        monkeypatch.setattr("time.sleep", self.sleep)
        monkeypatch.setattr("threading.Thread", lambda **options: Thread(self, **options))

    def wait_for_threads(self):
        """Wait until no thread runs."""
        with self._idle:
            self._idle.wait_for(lambda: self._running_threads == 0)

    def move_on(self, loop_time):
        """Move on to *loop_time*, or to when a thread wakes before."""
        thread_time = self._sleepers[0][0] if self._sleepers else math.inf
        self.now = min(loop_time, thread_time)
        if self.now == math.inf:
            raise RuntimeError("the loop and all threads wait for ever")
        if thread_time <= loop_time:
            self._wake()

    def _wake(self):
        *_, event = heapq.heappop(self._sleepers)
        self._running_threads += 1
        event.set()

    def sleep(self, seconds):
        """Sleep in a thread, or move the time on in a program without a loop."""
        if not isinstance(threading.current_thread(), Thread):
            self.now += seconds
            return
        event = threading.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), event))
        self.note_thread(-1)
        event.wait()
        if self._is_closed:
            raise Ended

    def note_thread(self, change):
        """Count a thread that begins or ends to run."""
        with self._idle:
            self._running_threads += change
            self._idle.notify()

    def run(self, main):
        """Run *main* as `asyncio.run` does."""
        loop = asyncio.SelectorEventLoop(Selector(self))
        try:
            return loop.run_until_complete(main)
        finally:
            while tasks := asyncio.all_tasks(loop):  # wait_for may overlook a cancellation
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def end_threads(self):
        """End the threads that sleep."""
        self._is_closed = True
        while self._sleepers:
            self._wake()


class Selector(selectors.SelectSelector):
    """The selector of an event loop, which moves the time on instead of waiting."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def select(self, timeout=None):
        self.clock.wait_for_threads()
        self.clock.now += 1e-6  # a round of the loop takes time
        events = super().select(0)
        if not events and timeout != 0:
            self.clock.move_on(math.inf if timeout is None else self.clock.now + timeout)
        return events


class Ended(BaseException):
    """The test is over, so its threads end."""


class Thread(threading.Thread):
    """A thread that goes by a virtual clock."""

    def __init__(self, clock, **options):
        super().__init__(**options)
        self.clock, self.is_running = clock, False

    def start(self):
        self.is_running = True
        self.clock.note_thread(+1)
        super().start()

    def run(self):
        try:
            with contextlib.suppress(Ended):
                super().run()
        finally:
            self.is_running = False
            self.clock.note_thread(-1)

    def is_alive(self):
        return self.is_running  # exact: a real thread is alive for a moment after its end
