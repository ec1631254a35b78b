"""One MQTT message, sent to a small broker that runs in a thread."""

import pytest
from broker import BrokerServer
from harness import until

from device.score import mqtt


def test_long_message_arrives_whole():
    """70,000 bytes need a length field of three bytes."""
    with BrokerServer() as server:
        mqtt.publish(mqtt.Broker("127.0.0.1", server.port), "t", b"x" * 70000)
        until(lambda: server.messages, "the message arrives")
    assert server.messages == [("t", b"x" * 70000)]


def test_broker_receives_user_password_and_client_id():
    with BrokerServer(password=b"pa55-word") as server:
        broker = mqtt.Broker("127.0.0.1", server.port, client="porch", user="me", password="pa55-word")
        mqtt.publish(broker, "t", b"x")
        until(lambda: server.messages, "the message arrives")
    assert server.clients == ["porch"] and "pa55-word" not in repr(broker)


@pytest.mark.parametrize(
    "behaviour, error, words",
    [
        pytest.param(5, mqtt.Refused, "no right", id="no right"),
        pytest.param(4, mqtt.Refused, "password", id="wrong password"),
        pytest.param("http", mqtt.Refused, "is it an MQTT broker", id="web server"),
        pytest.param("mute", OSError, "", id="no answer"),
    ],
)
def test_refusal_raises_error_with_reason(behaviour, error, words):
    with BrokerServer(behaviour=behaviour) as server, pytest.raises(error, match=words):
        mqtt.publish(mqtt.Broker("127.0.0.1", server.port), "t", b"x", timeout_s=0.5)


@pytest.mark.parametrize(
    "size, length", [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001")], ids=str
)
def test_length_field_follows_the_specification(size, length):
    """The limits of table 2.4 of MQTT 3.1.1."""
    assert mqtt._packet(0x30, bytes(size)) == b"\x30" + bytes.fromhex(length) + bytes(size)
