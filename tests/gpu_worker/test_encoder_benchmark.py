"""How many cores encoding needs, what reading costs, and how both are measured."""

from gpu_worker.benchmarks import reading
from gpu_worker.benchmarks.encoders import encoder_cores, measure, report
from gpu_worker.contract import Output


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


def test_reading_is_measured_both_ways_in_one_run() -> None:
    (cost,) = reading.measure([(64, 48)], num_frames=4, repeats=1)
    assert cost.passed_by > 0
    assert cost.made > 0
    assert "| 64x48 |" in reading.report([cost], num_frames=4, repeats=1)
