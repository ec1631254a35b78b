"""How many frames upload has under way: one until the store takes it, then two; after a no, on a slow line and under a cap, one."""

import threading
import time

import pytest
from harness import reckon, until
from s3 import s3_error


@pytest.fixture
def watched(agent, bucket, proxy):
    """Holds each request for proxy.seconds; gives the proxy and a list: for each request, how many were there as it came, itself among them."""
    there, seen, lock = [0], [], threading.Lock()

    def follow(rule):
        def hold(method, path, number):
            with lock:
                there[0] += 1
                seen.append(there[0])
            time.sleep(proxy.seconds)
            with lock:
                there[0] -= 1
            return rule(method, path, number)

        proxy.rule = hold

    proxy.follow, proxy.seconds = follow, 0.05
    follow(lambda *_: "pass")
    agent.use_bucket(bucket, proxy.port)
    return proxy, seen


def fails_first(answer, *sequences):
    """A rule that answers so to the first request for each of these frames, and passes the others on."""
    left = {f"_{sequence:06d}.jpg" for sequence in sequences}

    def rule(method, path, number):
        name = path[-len("_000001.jpg") :]
        if name not in left:
            return "pass"
        left.remove(name)
        return answer

    return rule


@pytest.mark.parametrize(
    "seconds, cap, most",
    [
        pytest.param(0.05, 0.0, 2, id="quick"),
        pytest.param(0.05, 1000.0, 1, id="capped"),
        pytest.param(0.6, 0.0, 1, id="slow"),
    ],
)
def test_the_first_alone_then_two(agent, bucket, watched, seconds, cap, most):
    """Slow is more than a quarter of upload.timeout_s."""
    proxy, seen = watched
    proxy.seconds = seconds
    agent.configure(upload={"max_kb_s": cap, "timeout_s": 2.0})
    agent.run("capture", "--frames", "8")
    agent.run("upload", "--once")
    assert seen[:2] == [1, 1] and max(seen) == most and len(seen) == 8
    assert reckon(agent, bucket.objects()) == 8


def test_denied_in_the_middle_leaves_one_request_a_pause(agent, bucket, watched):
    """The credentials expire while two frames are under way."""
    proxy, seen = watched
    denied = [True]
    proxy.follow(lambda method, path, number: (403, s3_error("ExpiredToken")) if denied[0] and number >= 5 else "pass")
    agent.run("capture", "--frames", "20")
    upload = agent.start("upload")
    until(lambda: agent.journal("upload").count("DENIED") >= 4, "upload asks again")
    asked, pauses = len(seen), agent.journal("upload").count("DENIED")
    # Four that were accepted, one a pause, one that was under way with the first no, and one that may be in the air.
    assert asked <= 4 + pauses + 1 + 1 and seen[6:asked] == [1] * (asked - 6)
    denied[0] = False
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) == 20 and max(seen[asked:]) == 2


def test_two_failures_at_once_count_as_one(agent, bucket, watched):
    """Otherwise the waiting would double twice for one breath of the network."""
    proxy, _ = watched
    proxy.follow(fails_first((500, s3_error("InternalError")), 5, 6))
    agent.run("capture", "--frames", "12")
    upload = agent.start("upload")
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert agent.journal("upload").count("InternalError") == 2
    assert agent.counters("upload")["failures"] == 1 == agent.journal("upload").count("trying again")
    assert reckon(agent, bucket.objects()) == 12


def test_one_accepted_beside_one_that_failed(agent, bucket, watched):
    """The one that was accepted is done with; the pause for the other stands."""
    proxy, seen = watched
    proxy.follow(fails_first((429, "too many"), 5))
    agent.run("capture", "--frames", "12")
    upload = agent.start("upload")
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert len(seen) == 13 and seen[6:8] == [1, 1], "after the pause, one alone"
    assert reckon(agent, bucket.objects()) == 12


def test_stopped_with_two_under_way(agent, bucket, watched):
    """Both are finished, and nothing is begun."""
    _, seen = watched
    agent.run("capture", "--frames", "30")
    upload = agent.start("upload")
    until(lambda: 2 in seen, "two are under way")
    assert agent.stop(upload) == 0
    stored = bucket.objects()
    assert len(seen) == len(stored) == agent.journal("upload").count("uploaded ") == 30 - len(agent.waiting()) < 30
    agent.run("upload", "--once")
    assert reckon(agent, bucket.objects()) == 30 and "already there" not in agent.journal("upload")
