"""The REST service's ASGI app around MLflow's scoring server. Each worker runs one.

POST /invocations     an image file (Content-Type image/* or application/octet-stream),
                      or MLflow's JSON or CSV with base64 in a column `image`
GET  /health, /ping   200, or 503 if this worker is about to stop
GET  /version         the model's name, version, alias, run, transform, classes and threshold

Every response is JSON. An error is {"error_code", "message"} and quotes nothing from the request.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

from lakevision.serving.rest import loaded_model
from lakevision.serving.rest.batcher import Batcher

ROUTES = {"/invocations": "POST", "/health": "GET", "/ping": "GET", "/version": "GET"}
TABLES = ("application/json", "text/csv")
FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")
# This many times the limit of a body that is too large is read and dropped, so the client can receive the 413 response.
DRAINED = 4


@dataclass
class State:
    """State shared by a worker's requests. current: replaced as a whole; each request reads it once."""

    current: loaded_model.Loaded
    batcher: Batcher
    limit: int  # bytes
    max_rows: int  # of a table
    timeout: float  # seconds
    stopping: threading.Event = field(default_factory=threading.Event)


class Refused(Exception):
    """A request without a prediction: HTTP status and message for the client."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class Gone(Exception):
    """The client has hung up."""


def app(state: State, threads: int) -> Callable:
    """Returns the ASGI app. threads: number of MLflow's requests in progress at a time."""

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            # MLflow calls asyncio.to_thread, which uses the default executor.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http":
            await request(state, scope, receive, send)

    return asgi


async def request(state: State, scope: dict, receive: Callable, send: Callable) -> None:
    """Sends the response to one HTTP request, within state.timeout seconds."""
    headers = {}
    try:
        async with asyncio.timeout(state.timeout):
            status, body = await answer(state, scope, receive)
    except Refused as refused:
        status, body, headers = refused.status, problem(refused.status, str(refused)), refused.headers
    except TimeoutError:
        status, headers = 504, {"connection": "close"}
        body = problem(status, f"took longer than serve.timeout_seconds, {state.timeout:g} s")
    except Gone:
        return
    except Exception as error:
        loaded_model.log_failure(error)
        status, body = 500, problem(500, "internal error: the service's log says where")
    if state.stopping.is_set():
        # The client's next connection then goes to a service that still listens.
        headers = {**headers, "connection": "close"}
    sent = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(key.encode(), value.encode()) for key, value in sent.items()],
        }
    )
    if status == 413:
        await drain(state, receive)
    await send({"type": "http.response.body", "body": body})


async def answer(state: State, scope: dict, receive: Callable) -> tuple[int, bytes]:
    """Returns (status, JSON). Raises Refused, Gone."""
    path, current = scope["path"], state.current
    allowed = ROUTES.get(path)
    if allowed is None:
        raise Refused(404, f"there is {', '.join(f'{method} {route}' for route, method in ROUTES.items())}")
    if scope["method"] not in (allowed, "HEAD" if allowed == "GET" else allowed):
        raise Refused(405, f"{path} takes {allowed}", allow=allowed)
    if path == "/version":
        return 200, json.dumps(current.info).encode()
    if allowed == "GET":
        if state.stopping.is_set():
            raise Refused(503, "stopping")
        return 200, json.dumps({"status": "ok", "version": current.number}).encode()
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    raw = kind.startswith("image/") or kind == "application/octet-stream"
    if not raw and kind not in TABLES:
        raise Refused(
            415,
            f"Content-Type is image/jpeg, another image/*, application/octet-stream, or MLflow's {', '.join(TABLES)}",
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(415, "a compressed body (Content-Encoding) is not taken: images are compressed already")
    body = await read(state, headers, receive)
    return await (one(state, current, body) if raw else table(current, scope, body, kind, state.max_rows))


async def read(state: State, headers: dict, receive: Callable) -> bytes:
    """Reads the body. Raises Refused as soon as its size or Content-Length exceeds the limit."""
    announced = headers.get(b"content-length", b"")
    too_large = Refused(
        413, f"the body is larger than serve.max_request_mb, {state.limit / 2**20:g} MB", connection="close"
    )
    if announced.isdigit() and int(announced) > state.limit:
        raise too_large
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > state.limit:
            raise too_large
    if not size:
        raise Refused(400, "the body is empty")
    return b"".join(parts)


async def drain(state: State, receive: Callable) -> None:
    """Reads and drops the rest of a body. If the connection closed now, the client would get a broken pipe."""
    dropped = 0
    try:
        async with asyncio.timeout(min(10, state.timeout)):
            while dropped < DRAINED * state.limit:
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def one(state: State, current: loaded_model.Loaded, body: bytes) -> tuple[int, bytes]:
    """Returns (status, JSON) for a single image file. Raises Refused."""
    row = await state.batcher.ask(asyncio.get_running_loop(), current.rows, body)
    made = loaded_model.answers([row])
    if made[0]["error"]:
        raise Refused(422, made[0]["error"])
    return 200, json.dumps({"predictions": made}).encode()


def endless(body: bytes, kind: str, max_rows: int) -> bool:
    """Returns True if a table certainly has too many rows, without parsing. Parsing 16 MB of zeros took 40 s and 3 GB.

    Base64 has no commas or line ends. A row has at most four, with the punctuation of its format and an index.
    """
    return any(
        body.count(mark) > 4 * max_rows + 100 for mark in ((b",", b"\n", b"\r") if kind == "text/csv" else (b",",))
    )


def unpadded(body: bytes) -> bytes:
    """Converts JSON's `inputs` or `instances` to `dataframe_split`. Raises loaded_model.BadInput.

    MLflow makes a NumPy array of `inputs`. In the array each text takes the space of the longest, at 4 bytes a
    character: a photograph of 3 MB and 200 empty texts took 3 GB. A body that MLflow refuses anyway is unchanged.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return body
    present = [name for name in FORMATS if isinstance(found, dict) and name in found]
    if present not in (["inputs"], ["instances"]):
        return body
    given = found.pop(present[0])
    if present == ["instances"] and isinstance(given, list) and given and all(isinstance(row, dict) for row in given):
        if any(list(row) != ["image"] for row in given):
            raise loaded_model.BadInput("expected one column, image, in each row of instances")
        given = [row["image"] for row in given]
    rows = [[image] for image in loaded_model.images(given)]
    return json.dumps({**found, "dataframe_split": {"columns": ["image"], "data": rows}}).encode()


async def table(current: loaded_model.Loaded, scope: dict, body: bytes, kind: str, max_rows: int) -> tuple[int, bytes]:
    """Returns (status, JSON) of MLflow's scoring server. Replaces its error messages, which quote the data."""
    if endless(body, kind, max_rows):
        raise Refused(400, loaded_model.too_many(max_rows))
    # A name can be spelt with escapes, such as \u0069.
    if kind == "application/json" and any(mark in body for mark in (b'"inputs"', b'"instances"', b"\\u")):
        try:
            body = await asyncio.to_thread(unpadded, body)
        except loaded_model.BadInput as error:
            raise Refused(400, str(error)) from None
    parts: list[bytes] = []
    status = 500

    async def receive():
        if parts:
            await asyncio.Event().wait()  # MLflow's middleware checks for a disconnect: none before the response
        parts.append(b"")
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    try:
        await current.app(scope, receive, send)
    # Errors outside MLflow's handler, such as JSON of a thousand levels. Starlette has sent 500 and raises.
    except Exception as error:
        reason = why(body, kind)
        if not reason:
            loaded_model.log_failure(error)
            raise Refused(500, "internal error: the service's log says where") from None
        raise Refused(400, reason) from None
    content = b"".join(parts)
    if status < 400:
        return status, content
    if status >= 500:
        raise Refused(status, "internal error: the service's log says where")
    mlflows = _message(content)
    _, known, ours = mlflows.rpartition("\nError: ")
    if mlflows.startswith("Failed to predict data") and known:
        raise Refused(status, ours)  # the message of loaded_model.BadInput
    raise Refused(status, why(body, kind) or "MLflow can't read this request")


def _message(content):
    try:
        return json.loads(content).get("message", "")
    except ValueError:
        return ""


def why(body: bytes, kind: str) -> str:
    """Explains why MLflow refused a body, without quoting the body. Returns "" if no cause is found."""
    if kind != "application/json":
        return "expected CSV, in UTF-8, with one column, image, of base64 text"
    try:
        found = json.loads(body)
    except json.JSONDecodeError as error:
        return f"the body is not JSON: {error.msg} at character {error.pos}"
    except UnicodeDecodeError:
        return "the body is not JSON: it is not UTF-8"
    except RecursionError:
        return "the body is nested too deeply"
    if not isinstance(found, dict) or sum(name in found for name in FORMATS) != 1:
        return f"expected a JSON object with exactly one of {', '.join(FORMATS)}"
    name = next(name for name in FORMATS if name in found)
    return f"{name} holds no table that can be read: expected one column, image, of base64 text"


def problem(status: int, message: str) -> bytes:
    """Returns the JSON of an error."""
    return json.dumps({"error_code": HTTPStatus(status).name, "message": message}).encode()
