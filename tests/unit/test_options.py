"""Options of single calls."""

import threading

import pytest

from semcache.errors import ConfigurationError
from semcache.options import Options, current_options, options_in_force


def test_inner_options_win_tags_add_up_and_the_higher_bar_holds():
    with options_in_force(Options(namespace="a", tags=("x",), min_similarity=0.97, ttl=5)):
        with options_in_force(Options(namespace="b", tags=("y", "x"), min_similarity=0.9)):
            assert current_options() == Options(namespace="b", tags=("x", "y"), min_similarity=0.97, ttl=5)
        assert current_options() == Options(namespace="a", tags=("x",), min_similarity=0.97, ttl=5)
    assert current_options() is None


def test_bypass_holds_inside_too():
    with options_in_force(Options(bypass=True)), options_in_force(Options(ttl=1)):
        assert current_options() == Options(bypass=True, ttl=1)


def test_options_end_with_the_block_when_it_raises():
    with pytest.raises(KeyError), options_in_force(Options(bypass=True)):
        raise KeyError
    assert current_options() is None


def test_options_are_the_threads_own():
    seen = []
    with options_in_force(Options(bypass=True)):
        thread = threading.Thread(target=lambda: seen.append(current_options()))
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": float("nan")},
        {"min_similarity": 1.1},
        {"tags": "x"},
        {"tenant": ""},
        {"namespace": ""},
    ],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ConfigurationError):
        Options(**bad)
