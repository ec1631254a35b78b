"""A small MQTT 3.1.1 broker for tests. It keeps the published messages and checks the password, if it has one."""

import socket
import threading

CONNECT, CONNACK, PUBLISH_QOS_1, PUBACK, DISCONNECT = 0x10, 0x20, 0x32, 0x40, 0xE0


class BrokerServer:
    """A broker in a thread, at .port. messages: [(topic, payload)]. clients: the client ids.

    behaviour: "good", "mute" (reads everything, answers nothing), "http" (a web server) or a CONNACK code.
    """

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
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with connection, connection.makefile("rb") as stream:
            while (packet := _packet(stream)) is not None:
                kind, body = packet
                if self.behaviour == "mute":
                    continue
                if self.behaviour == "http":
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                if kind == CONNECT:
                    connection.sendall(bytes([CONNACK, 2, 0, self._connect(body)]))
                elif kind == PUBLISH_QOS_1:
                    length = int.from_bytes(body[:2], "big")
                    self.messages.append((body[2 : 2 + length].decode(), body[4 + length :]))
                    connection.sendall(bytes([PUBACK, 2]) + body[2 + length : 4 + length])
                elif kind == DISCONNECT:
                    return

    def _connect(self, body):
        """The CONNACK code: 0 if the client is accepted."""
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
    """(first byte, body), or None at the end of the connection."""
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
