"""Of two ways to set up a peer the faster one is taken, however noisy the machine is."""

from itertools import chain, repeat

import numpy as np

from benchmarks.peers import trials
from benchmarks.peers.trials import fastest


class Clock:
    """Stands for the clock: time goes by as the ways say."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(trials.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(trials.time, "monotonic", lambda: self.now)

    def takes(self, seconds):
        def once():
            self.now += next(seconds)

        return once


def test_of_two_ways_the_faster_one_is_taken(monkeypatch):
    clock = Clock(monkeypatch)
    slow_but_for_the_warm_up = chain([0.0, 0.0], repeat(0.05))
    once_disturbed = chain([0.09, 0.09, 0.99], repeat(0.04))
    ways = [
        ("slow", clock.takes(slow_but_for_the_warm_up)),
        ("fast", clock.takes(once_disturbed)),
    ]
    assert fastest(ways) == "fast"
    assert clock.now < 3, "it is clear before the 15 seconds have gone"


def test_of_two_ways_that_differ_by_less_than_the_noise_the_faster_one_is_taken(monkeypatch):
    taken = []
    for seed in range(30):
        clock = Clock(monkeypatch)
        noise = np.random.default_rng(seed).lognormal(0, 0.07, 2000)
        ways = [("slow", clock.takes(iter(0.0315 * noise[:1000])))]
        ways += [("fast", clock.takes(iter(0.03 * noise[1000:])))]
        taken.append(fastest(ways))
        assert clock.now < 16
    assert taken.count("fast") >= 29
