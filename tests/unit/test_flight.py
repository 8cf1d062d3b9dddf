"""Collapsed calls."""

import asyncio
import threading

import pytest

from semcache.flight import Flights, Landed, wait, wait_async

ANSWER = Landed(b"answer")
ME = (threading.get_ident(), None)


def test_the_first_leads_and_the_others_follow():
    flights = Flights()
    leader, leads = flights.join(b"k", ME)
    follower, follows = flights.join(b"k", ME)
    assert leads
    assert not follows
    assert follower is leader
    leader.land(ANSWER)
    assert wait(follower, 0) == ANSWER
    assert len(flights) == 0


def test_other_keys_fly_by_themselves():
    flights = Flights()
    assert flights.join(b"a", ME)[1]
    assert flights.join(b"b", ME)[1]


def test_landing_is_final():
    flights = Flights()
    flight, _ = flights.join(b"k", ME)
    flight.land(ANSWER)
    flight.fail()
    assert wait(flight, 0) == ANSWER
    _, leads = flights.join(b"k", ME)
    assert leads


def test_an_ended_flight_does_not_end_the_next_one():
    flights = Flights()
    first, _ = flights.join(b"k", ME)
    first.fail()
    second, leads = flights.join(b"k", ME)
    assert leads
    first.land(ANSWER)
    with pytest.raises(TimeoutError):
        wait(second, 0)


def test_waiting_is_bounded():
    flight, _ = Flights().join(b"k", ME)
    with pytest.raises(TimeoutError):
        wait(flight, 0.01)


async def test_waiting_on_a_loop_is_bounded():
    flight, _ = Flights().join(b"k", ME)
    with pytest.raises(TimeoutError):
        await wait_async(flight, 0.01)


async def test_a_cancelled_follower_leaves_the_others_alone():
    flight, _ = Flights().join(b"k", ME)
    followers = [asyncio.create_task(wait_async(flight, 5)) for _ in range(3)]
    await asyncio.sleep(0.01)
    followers[0].cancel()
    await asyncio.sleep(0.01)
    flight.land(ANSWER)
    results = await asyncio.gather(*followers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [ANSWER, ANSWER]


async def test_a_thread_wakes_tasks():
    flight, _ = Flights().join(b"k", ME)
    task = asyncio.create_task(wait_async(flight, 5))
    await asyncio.sleep(0.01)
    await asyncio.to_thread(flight.land, ANSWER)
    assert await task == ANSWER
