"""How many frames upload sends at once: one until the store accepts, then two.

After a failure upload sends one again.
"""

import threading
import time

import pytest
from harness import reckon, until
from s3 import s3_error

pytestmark = pytest.mark.service


@pytest.fixture
def watched(agent, bucket, proxy):
    """Holds each request for proxy.seconds. (the proxy, the number of open requests at each arrival)."""
    current, counts, lock = [0], [], threading.Lock()

    def follow(rule):
        def hold(method, path, number):
            with lock:
                current[0] += 1
                counts.append(current[0])
            time.sleep(proxy.seconds)
            with lock:
                current[0] -= 1
            return rule(method, path, number)

        proxy.rule = hold

    proxy.follow, proxy.seconds = follow, 0.05
    follow(lambda *_: "pass")
    agent.use_bucket(bucket, proxy.port)
    return proxy, counts


def fails_first(answer, *sequences):
    """A rule that gives `answer` to the first request for each of these frames, and passes the others on."""
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
def test_first_frame_goes_alone_then_two_at_once(agent, bucket, watched, seconds, cap, most):
    """A line is slow if a frame takes more than a quarter of upload.timeout_s."""
    proxy, counts = watched
    proxy.seconds = seconds
    agent.configure(upload={"max_kb_s": cap, "timeout_s": 2.0})
    agent.run("capture", "--frames", "8")
    agent.run("upload", "--once")
    assert counts[:2] == [1, 1] and max(counts) == most and len(counts) == 8
    assert reckon(agent, bucket.objects()) == 8


def test_denied_upload_sends_one_request_per_pause(agent, bucket, watched):
    """The credentials expire while two frames are under way."""
    proxy, counts = watched
    denied = [True]
    proxy.follow(lambda method, path, number: (403, s3_error("ExpiredToken")) if denied[0] and number >= 5 else "pass")
    agent.run("capture", "--frames", "20")
    upload = agent.start("upload")
    until(lambda: agent.journal("upload").count("DENIED") >= 4, "upload asks again")
    asked, pauses = len(counts), agent.journal("upload").count("DENIED")
    # Four accepted, one per pause, one under way at the first refusal, and one that may be on its way.
    assert asked <= 4 + pauses + 1 + 1 and counts[6:asked] == [1] * (asked - 6)
    denied[0] = False
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) == 20 and max(counts[asked:]) == 2


def test_two_failures_at_once_count_as_one(agent, bucket, watched):
    """Otherwise one short network failure would double the pause twice."""
    proxy, _ = watched
    proxy.follow(fails_first((500, s3_error("InternalError")), 5, 6))
    agent.run("capture", "--frames", "12")
    upload = agent.start("upload")
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert agent.journal("upload").count("InternalError") == 2
    assert agent.counters("upload")["failures"] == 1 == agent.journal("upload").count("trying again")
    assert reckon(agent, bucket.objects()) == 12


def test_accepted_frame_does_not_end_pause_of_failed_one(agent, bucket, watched):
    """The accepted frame is finished; the pause for the failed one stays."""
    proxy, counts = watched
    proxy.follow(fails_first((429, "too many"), 5))
    agent.run("capture", "--frames", "12")
    upload = agent.start("upload")
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert len(counts) == 13 and counts[6:8] == [1, 1], "after the pause, a single request"
    assert reckon(agent, bucket.objects()) == 12


def test_stop_finishes_both_frames_under_way(agent, bucket, watched):
    """Both frames are finished, and no other is started."""
    _, counts = watched
    agent.run("capture", "--frames", "30")
    upload = agent.start("upload")
    until(lambda: 2 in counts, "two are under way")
    assert agent.stop(upload) == 0
    stored = bucket.objects()
    assert len(counts) == len(stored) == agent.journal("upload").count("uploaded ") == 30 - len(agent.waiting()) < 30
    agent.run("upload", "--once")
    assert reckon(agent, bucket.objects()) == 30 and "already there" not in agent.journal("upload")
