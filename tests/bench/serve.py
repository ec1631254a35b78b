"""Speed of the REST service, against calls in this process and `mlflow models serve` as shipped.

All serve the same model in the same run.

    python tests/bench/serve.py [FOLDER]        # 2 minutes on 2 cores; FOLDER of JPEGs, else simulated ones

vs_stock_4_clients   images/s with 4 clients that send one image at a time, over stock's; the middle of TURNS turns,
                     each with both services
p50_vs_in_process    middle latency of one client over that of the loaded pyfunc's predict() in this process, which
                     decodes too, in alternating order

Stock is `mlflow models serve --env-manager local`, default workers, and gets what its users send: base64 in JSON. Ours
gets the JPEG itself if one image is sent, and the same JSON for 16. Both have uvloop and httptools, which are
installed. The model is the default one (small_cnn, width 24, 96 px), its weights are random. Clients are threads of
this process that write prepared bytes to sockets, so that they take little of the cores that they share with the
service; what they take is printed (client_cpu, share of all cores). Memory is resident, of all processes of a service.
The last line is JSON.
"""

import base64
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
SECONDS, TURNS, SIDE, WIDTH = 4.0, 3, 96, 24


def photographs(folder):
    if folder:
        return [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    from device.simulation import porch

    return [porch.jpeg(scene) for scene in porch.plan(64)]


def registered(scratch, photos):
    """Config of a lakehouse whose registry holds the default model as champion."""
    import mlflow

    from lakevision.platform import config, workspace
    from lakevision.registry import model_registry, tracking
    from lakevision.training import networks

    cfg = config.load("local", [f"storage.root={scratch / 'lake'}"])
    experiment = tracking.start(cfg, workspace.places(cfg))
    card = {"classes": ["empty", "package"], "transform": f"decode|upright|rgb|resize({SIDE})", "threshold": 0.5}
    with mlflow.start_run(experiment_id=experiment):
        uri = model_registry.log(networks.build("small_cnn", SIDE, 2, WIDTH, 0.0, 3), card, photos[0])
    model_registry.set_alias(cfg, "champion", model_registry.register(cfg, uri, {}))
    return cfg


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """A command that serves, as a context: its port, and the resident memory of all its processes."""

    def __init__(self, command, port, log):
        self.port, self.log = port, open(log, "w")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "notebooks"), "TF_CPP_MIN_LOG_LEVEL": "2"}
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def __enter__(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5).read()
                return self
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"{self.log.name}: {Path(self.log.name).read_text()[-2000:]}")

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)
        self.log.close()

    def megabytes(self):
        import psutil

        parent = psutil.Process(self.process.pid)
        return round(sum(one.memory_info().rss for one in [parent, *parent.children(recursive=True)]) / 2**20)


def post(kind, body):
    return (
        b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        % (kind, len(body))
        + body
    )


def raw(images):
    return [post(b"image/jpeg", image) for image in images]


def table(images, batch):
    """Requests of MLflow's JSON, `batch` images in each."""
    texts = [[base64.b64encode(image).decode()] for image in images]
    groups = [
        [texts[(start + offset) % len(texts)] for offset in range(batch)] for start in range(0, len(texts), batch)
    ]
    return [
        post(b"application/json", json.dumps({"dataframe_split": {"columns": ["image"], "data": group}}).encode())
        for group in groups
    ]


def answer(connection):
    """Status and body of one response."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += (more := connection.recv(65536))
        assert more, "the service hung up"
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(lines[0].split()[1]), body


def load(port, requests, clients, seconds=SECONDS):
    """Latencies in seconds of all requests that clients, each waiting for its answer before it asks again, made; and
    the seconds it took.
    """
    latencies, faults = [[] for _ in range(clients)], []
    begin = threading.Barrier(clients + 1)
    ends = []

    def client(number):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin.wait()
            turn = number * 5
            while time.perf_counter() < ends[0]:
                began = time.perf_counter()
                connection.sendall(requests[turn % len(requests)])
                status, body = answer(connection)
                latencies[number].append(time.perf_counter() - began)
                if status != 200 or b'"label": "' not in body:
                    faults.append((status, body[:200]))
                turn += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    ends.append(began + seconds)
    begin.wait()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]
    return [one for many in latencies for one in many], time.perf_counter() - began


def figures(latencies, seconds, images):
    ordered = sorted(latencies)
    at = {
        f"p{q}_ms": round(1000 * ordered[min(len(ordered) - 1, int(q / 100 * len(ordered)))], 2) for q in (50, 90, 99)
    }
    return {"images_per_s": round(len(ordered) * images / seconds), **at}


def in_process(predict, frames, seconds=SECONDS):
    latencies, began, turn = [], time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        predict(frames[turn % len(frames)])
        latencies.append(time.perf_counter() - start)
        turn += 1
    return latencies, time.perf_counter() - began


def commands(cfg, ports):
    """{name: command} of both services. Sets the environment that stock reads."""
    from lakevision.platform import workspace
    from lakevision.registry import model_registry

    places = workspace.places(cfg)
    os.environ.update(MLFLOW_TRACKING_URI=places.mlflow_uri, MLFLOW_REGISTRY_URI=places.registry_uri)
    # mlflow starts `uvicorn` by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = [sys.executable, "-m", "lakevision.serving.rest.main", "--set", f"storage.root={cfg.storage.root}"]
    stock = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local", "-m"]
    stock.append(f"models:/{model_registry.name(cfg)}@champion")
    pairs = (("ours", ours), ("stock", stock))
    return {name: [*command, "--port", str(ports[name])] for name, command in pairs}


def compared_in_turns(ports, sent, predict, frames):
    """({ratio: values of each turn}, {way: figures of the last turn}): both services and this process, in turns."""
    rows, ratios = {}, {"vs_stock_4_clients": [], "p50_vs_in_process": []}
    for turn in range(TURNS):
        here = in_process(predict, frames)
        one = load(ports["ours"], sent["ours", 1], 1)
        ratios["p50_vs_in_process"].append(statistics.median(one[0]) / statistics.median(here[0]))
        cpu = time.process_time()
        order = list(ports) if turn % 2 else list(reversed(ports))
        four = {name: load(ports[name], sent[name, 1], 4) for name in order}
        share = (time.process_time() - cpu) / sum(seconds for _, seconds in four.values()) / os.cpu_count()
        rates = {name: len(latencies) / seconds for name, (latencies, seconds) in four.items()}
        ratios["vs_stock_4_clients"].append(rates["ours"] / rates["stock"])
        last = {name: round(values[-1], 2) for name, values in ratios.items()}
        shown = {name: round(rate) for name, rate in rates.items()}
        print(f"turn {turn + 1}", last, shown, f"images/s, client_cpu {share:.3f}", flush=True)
        rows |= {"in process": figures(*here, 1), "ours, 1 client": figures(*one, 1)}
        rows |= {f"{name}, 4 clients": figures(*four[name], 1) for name in four}
    return ratios, rows


def other_loads(ports, sent, predict, frames):
    """{way: figures} of batches, of 16 clients and of JSON, once each."""
    rows = {"in process, batch 16": figures(*in_process(predict, frames), 16)}
    rows["stock, 1 client"] = figures(*load(ports["stock"], sent["stock", 1], 1), 1)
    for name, port in ports.items():
        rows[f"{name}, 16 clients"] = figures(*load(port, sent[name, 1], 16), 1)
        for clients in (1, 4, 16):
            way = f"{name}, {clients} client{'s' if clients > 1 else ''}, batch 16"
            rows[way] = figures(*load(port, sent[name, 16], clients), 16)
    rows["ours, 4 clients, JSON of one"] = figures(*load(ports["ours"], sent["stock", 1], 4), 1)
    return rows


def main(folder=None):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    photos = photographs(folder)
    with rig.scratch_folder() as scratch:
        import pandas as pd

        from lakevision.registry import model_registry

        cfg = registered(scratch, photos)
        model = model_registry.load(cfg, "champion")
        ports = {"ours": free_port(), "stock": free_port()}
        command = commands(cfg, ports)
        frames = {}
        for batch in (1, 16):
            starts = range(0, len(photos), batch)
            groups = [[photos[(start + k) % len(photos)] for k in range(batch)] for start in starts]
            frames[batch] = [pd.DataFrame({"image": group}) for group in groups]
        sent = {
            ("ours", 1): raw(photos),
            ("stock", 1): table(photos, 1),
            ("ours", 16): table(photos, 16),
            ("stock", 16): table(photos, 16),
        }
        with (
            Service(command["ours"], ports["ours"], f"{scratch}/ours.log") as mine,
            Service(command["stock"], ports["stock"], f"{scratch}/stock.log") as theirs,
        ):
            for name, port in ports.items():
                load(port, sent[name, 1], 4, 2.0)
            in_process(model.predict, frames[1], 1.0)
            ratios, rows = compared_in_turns(ports, sent, model.predict, frames[1])
            rows |= other_loads(ports, sent, model.predict, frames[16])
            memory = {"ours_mb": mine.megabytes(), "stock_mb": theirs.megabytes()}
    for name, row in rows.items():
        print(f"{name:<32}", *(f"{key} {value:>8}" for key, value in row.items()))
    print(memory)
    rig.print_result(
        "serve",
        {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        **memory,
        jpeg_kb=round(sum(map(len, photos)) / len(photos) / 1000),
        images_per_s={name: row["images_per_s"] for name, row in rows.items()},
        p50_ms={name: row["p50_ms"] for name, row in rows.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
