"""Publishes one MQTT message with quality of service 1, with the standard library alone.

MQTT 3.1.1 (OASIS, 2014): connect, publish, wait for the acknowledgement, disconnect.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field

REFUSED = {
    1: "it does not support this MQTT version",
    2: "it rejects the client id",
    3: "it is not available",
    4: "user or password are wrong",
    5: "this client has no right to connect",
}  # section 3.2.2.3
CONNECT, CONNACK, PUBLISH_QOS_1, PUBACK, DISCONNECT = 0x10, 0x20, 0x32, 0x40, 0xE0
KEEP_ALIVE_S = 60
PACKET_ID = (1).to_bytes(2, "big")  # a connection sends only one message


class Refused(Exception):
    """The broker refuses, or the server is no MQTT broker; the message gives the reason."""


@dataclass(frozen=True)
class Broker:
    """Address and credentials of a broker. port: 0 takes MQTT's standard port. Without a user, login is anonymous."""

    host: str
    port: int = 0
    tls: bool = False
    client: str = "lakevision"
    user: str = ""
    password: str = field(default="", repr=False)


def publish(broker: Broker, topic: str, payload: bytes, timeout_s: float = 10.0) -> None:
    """Publishes a message; returns when the broker has acknowledged it.

    Raises Refused; OSError if there is no connection, or if everything together takes longer than timeout_s seconds.
    """
    end = time.monotonic() + timeout_s
    port = broker.port or (8883 if broker.tls else 1883)
    with socket.create_connection((broker.host, port), timeout=timeout_s) as plain:
        context = ssl.create_default_context() if broker.tls else None
        connection = context.wrap_socket(plain, server_hostname=broker.host) if context else plain
        with connection:
            connection.sendall(_packet(CONNECT, _connect_body(broker)))
            answer = _read(connection, CONNACK, "CONNECT", end)
            if answer[1]:
                raise Refused(f"the broker {broker.host} refuses: {REFUSED.get(answer[1], f'code {answer[1]}')}")
            connection.sendall(_packet(PUBLISH_QOS_1, _string(topic) + PACKET_ID + payload))
            answer = _read(connection, PUBACK, "PUBLISH", end)
            if answer != PACKET_ID:
                raise Refused(f"the broker {broker.host} acknowledges a message that was not sent: {answer!r}")
            connection.sendall(_packet(DISCONNECT, b""))


def _connect_body(broker: Broker) -> bytes:
    clean_session, has_user, has_password = 2, 128 if broker.user else 0, 64 if broker.password else 0
    fields = [broker.client, *filter(None, [broker.user, broker.password])]
    header = bytes([4, clean_session | has_user | has_password, 0, KEEP_ALIVE_S])  # 4: protocol level of MQTT 3.1.1
    return _string("MQTT") + header + b"".join(map(_string, fields))


def _string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(kind: int, body: bytes) -> bytes:
    rest, length = len(body), b""
    while True:  # section 2.2.3: seven bits a byte, the lowest first
        rest, digit = rest // 128, rest % 128
        length += bytes([digit | (128 if rest else 0)])
        if not rest:
            return bytes([kind]) + length + body


def _read(connection: socket.socket, expected: int, request: str, end: float) -> bytes:
    """The two bytes of the packet that answers `request`. Raises Refused if the packet is not of the expected kind."""
    kind, length = _exactly(connection, 2, end)
    if (kind, length) != (expected, 2):
        raise Refused(f"{kind:#x} {length:#x} is no answer to {request}: is it an MQTT broker?")
    return _exactly(connection, 2, end)


def _exactly(connection: socket.socket, count: int, end: float) -> bytes:
    data = b""
    while len(data) < count:
        connection.settimeout(max(0.001, end - time.monotonic()))
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the broker closed the connection")
        data += piece
    return data
