"""One MQTT message with quality of service 1, by MQTT 3.1.1 (OASIS, 2014) in the standard library: connect, publish, wait for the receipt, leave."""

import socket
import ssl
import time

REFUSED = {
    1: "it speaks another version of MQTT",
    2: "it does not like our client id",
    3: "it is not available",
    4: "user or password are wrong",
    5: "we have no right to connect",
}  # section 3.2.2.3
PACKET = 1  # our packet id: there is one packet


class Refused(Exception):
    """The broker says no, or something that is no MQTT; the message says which."""


def publish(host, port, topic, payload, client="lakevision", user="", password="", tls=False, timeout_s=10.0):
    """Returns when the broker has acknowledged the message (bytes). Raises Refused; OSError without a connection, or none within timeout_s in all."""
    end = time.monotonic() + timeout_s
    with socket.create_connection((host, port or (8883 if tls else 1883)), timeout=timeout_s) as plain:
        line = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if tls else plain
        with line:
            flags = 2 | (128 if user else 0) | (64 if password else 0)  # clean session, user, password
            given = [client] + ([user] if user else []) + ([password] if password else [])
            line.sendall(_packet(0x10, _string("MQTT") + bytes([4, flags, 0, 60]) + b"".join(map(_string, given))))
            body = _read(line, 0x20, "CONNECT", end)
            if body[1]:
                raise Refused(f"the broker {host} refuses: {REFUSED.get(body[1], f'code {body[1]}')}")
            line.sendall(_packet(0x32, _string(topic) + PACKET.to_bytes(2, "big") + payload))  # PUBLISH, QoS 1
            body = _read(line, 0x40, "PUBLISH", end)
            if body != PACKET.to_bytes(2, "big"):
                raise Refused(f"the broker {host} acknowledges another message than ours: {body!r}")
            line.sendall(_packet(0xE0, b""))


def _string(text):
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(kind, body):
    left, length = len(body), b""
    while True:  # section 2.2.3: seven bits a byte, the lowest first
        left, digit = left // 128, left % 128
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([kind]) + length + body


def _read(line, wanted, what, end):
    """The two bytes of the packet that answers `what`. Raises Refused where it is another one."""
    kind, length = _exactly(line, 2, end)
    if (kind, length) != (wanted, 2):
        raise Refused(f"{kind:#x} {length:#x} answers our {what}: is it an MQTT broker?")
    return _exactly(line, 2, end)


def _exactly(line, count, end):
    data = b""
    while len(data) < count:
        line.settimeout(max(0.001, end - time.monotonic()))
        piece = line.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the broker hung up")
        data += piece
    return data
