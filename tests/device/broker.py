"""A tiny MQTT 3.1.1 broker for tests: takes one client after the other, with or without a password, and keeps what was published."""

import socket
import threading


class Broker:
    """messages: [(topic, payload)]; behaviour: "good", "mute" (takes all, answers nothing), "http" (is none), or a CONNACK code."""

    def __init__(self, password=b"", behaviour="good"):
        self.password, self.behaviour, self.messages, self.clients = password, behaviour, [], []

    def __enter__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.close()

    def _serve(self):
        while True:
            try:
                line, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line):
        with line, line.makefile("rb") as stream:
            while (packet := _packet(stream)) is not None:
                kind, body = packet
                if self.behaviour == "mute":
                    continue
                if self.behaviour == "http":
                    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                if kind == 0x10:
                    line.sendall(bytes([0x20, 2, 0, self._connect(body)]))
                elif kind == 0x32:
                    length = int.from_bytes(body[:2], "big")
                    self.messages.append((body[2 : 2 + length].decode(), body[4 + length :]))
                    line.sendall(bytes([0x40, 2]) + body[2 + length : 4 + length])
                elif kind == 0xE0:
                    return

    def _connect(self, body):
        assert body[:7] == b"\x00\x04MQTT\x04"
        flags, rest, fields = body[7], body[10:], []
        while rest:
            length = int.from_bytes(rest[:2], "big")
            fields.append(rest[2 : 2 + length])
            rest = rest[2 + length :]
        self.clients.append(fields[0].decode())
        if isinstance(self.behaviour, int):
            return self.behaviour
        given = fields[2] if flags & 0xC0 == 0xC0 else b""
        return 0 if given == self.password else 4


def _packet(stream):
    """(first byte, body), None at the end."""
    first = stream.read(1)
    if not first:
        return None
    length, shift = 0, 0
    while True:
        digit = stream.read(1)[0]
        length |= (digit & 127) << shift
        shift += 7
        if not digit & 128:
            return first[0], stream.read(length)
