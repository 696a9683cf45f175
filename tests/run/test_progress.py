"""Progress as a bar in a terminal and as lines in a file."""

import sys

import pytest

from tinyjax.run import progress


def steps(bar):
    for k in range(3):
        bar.set_description_str(f"part {k}")
        bar.update()
        bar.set_postfix_str(f"loss {k}")
    bar.close()


def test_lines_when_not_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
    steps(progress.progress_bar(total=4, initial=1, unit="step"))
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    lines = err.splitlines()
    assert lines[0].startswith("1 of 4 steps, 00:00 elapsed, ")
    assert lines[1].startswith("part 0 2 of 4 steps, 00:00 elapsed, ")
    assert "part 2 4 of 4 steps, 00:00 elapsed, 00:00 left, loss 2" in lines
    assert lines[2].endswith("left, loss 0")  # the postfix of the previous step


def test_no_line_before_the_first_interval(capsys):
    steps(progress.progress_bar(total=3, unit="step"))
    assert [*progress.progress_bar("abc", unit="letter")] == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    steps(progress.progress_bar(total=3, unit="step"))
    assert "\rpart 2" in capsys.readouterr().err


def test_lines_without_a_total(monkeypatch, capsys):
    """The length of a video may be unknown."""
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
    bar = progress.progress_bar(total=None, unit="image")
    bar.update(5)
    bar.close()
    assert "5 of ? images, " in capsys.readouterr().err


@pytest.mark.parametrize("num_steps", [1, 1000])
def test_lines_are_written_at_intervals(monkeypatch, capsys, num_steps):
    """tqdm does not read the clock at every step, so that lines cost almost nothing."""
    bar = progress.progress_bar(total=num_steps, unit="step")
    bar.start_t -= 2 * progress.LINE_INTERVAL
    bar.last_print_t -= 2 * progress.LINE_INTERVAL
    for _ in range(num_steps):
        bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_restored_steps_count_as_finished_but_not_as_progress(capsys):
    """After 100 s, 50 steps of the 450 that were not restored are finished."""
    bar = progress.progress_bar(total=1000, unit="step")
    progress.add_finished(bar, 550)
    bar.start_t -= 100
    bar.update(50)
    assert (bar.n, progress.current_rate(bar)) == (600, pytest.approx(0.5, rel=0.01))
    bar.refresh()
    assert "600 of 1000 steps, 01:40 elapsed, 13:2" in capsys.readouterr().err  # 13:20, or 13:21


def test_a_disabled_bar_has_no_rate():
    bar = progress.progress_bar(total=10, disable=True)
    progress.add_finished(bar, 5)
    assert progress.current_rate(bar) == 0


def test_time_of_compiling_does_not_count_for_the_speed(capsys):
    """Ten minutes of compiling, then 100 steps in 100 s: the other 900 need 15 minutes."""
    bar = progress.progress_bar(total=1000, unit="step")
    bar.start_t -= 600
    bar.last_print_t -= 600
    progress.restart_clock(bar)
    bar.update(2)
    assert capsys.readouterr().err == ""
    bar.start_t -= 100
    bar.last_print_t -= 100
    bar.update(98)
    assert progress.current_rate(bar) == pytest.approx(1, rel=0.01)
    assert "100 of 1000 steps, 11:40 elapsed, 15:0" in capsys.readouterr().err
