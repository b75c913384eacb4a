"""Who holds up whom, and how many cores encoding needs."""

import threading
import time
from collections.abc import Iterator

import pytest

from gpu_worker.benchmarks.encoders import measure, report
from gpu_worker.contract import Output
from gpu_worker.engine.capacity import DECODE, ENCODE, NETWORKS, Occupancy, encoder_cores


def test_the_encoder_is_named_when_the_rest_waits_for_it() -> None:
    occupancy = Occupancy()
    occupancy.add(DECODE, 2.0)
    occupancy.add(NETWORKS, 5.0)
    occupancy.add(ENCODE, 9.5)
    assert occupancy.shares(10.0) == {DECODE: 0.2, NETWORKS: 0.5, ENCODE: 0.95}
    sentence = occupancy.bottleneck(10.0)
    assert "encoder of the result" in sentence
    assert "95%" in sentence
    assert "more CPU cores" in sentence


def test_nobody_is_named_when_nothing_stands_out() -> None:
    occupancy = Occupancy()
    assert occupancy.bottleneck(1.0) == ""
    occupancy.add(NETWORKS, 5.0)
    assert occupancy.bottleneck(10.0) == ""


def test_waiting_for_the_consumer_is_not_busy() -> None:
    occupancy = Occupancy()

    def items() -> Iterator[int]:
        yield from range(3)

    found = []
    for item in occupancy.counted(DECODE, items()):
        time.sleep(0.05)
        found.append(item)
    assert found == [0, 1, 2]
    assert occupancy.seconds[DECODE] < 0.1


def test_threads_add_up() -> None:
    occupancy = Occupancy()

    def add() -> None:
        for _ in range(1000):
            occupancy.add(ENCODE, 0.001)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert occupancy.seconds[ENCODE] == pytest.approx(4.0)


def test_an_error_is_counted_and_passed_on() -> None:
    occupancy = Occupancy()
    with pytest.raises(KeyError), occupancy.busy(NETWORKS):
        raise KeyError
    assert NETWORKS in occupancy.seconds


def test_cores_grow_with_pixels_and_rate_and_are_never_none() -> None:
    assert encoder_cores(Output.H264, 64, 48, 1.0) == 1
    small, large = (encoder_cores(Output.H265, *size, 13.5) for size in ((1280, 720), (2560, 1440)))
    assert 1 < small < large


def test_every_output_is_measured_in_one_run() -> None:
    costs = measure([(64, 48)], num_frames=4, repeats=1)
    assert [cost.output for cost in costs] == [output.value for output in Output]
    assert costs[0].ratio == 1.0
    assert all(cost.core_seconds_per_frame > 0 and cost.megabits_per_second > 0 for cost in costs)
    assert report(costs, num_frames=4, repeats=1).count("| 64x48 |") == len(Output)
