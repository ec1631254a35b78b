"""Replaces libcamera's Python binding and the sensor, so that picamera2's own code runs.

This is the lowest layer in Python: C++, the kernel's driver and the ribbon cable are below it. The sensor is an imx219
that shows a grey ramp. Its automatic exposure settles over 20 frames, and it can be held. Faults by environment:
FAKE_CAMERA=none (nothing is connected), stall:N (the sensor stops after N frames, as with a loose cable), busy (another
program holds the camera).
"""

import enum
import mmap
import os
import sys
import threading
import time
import types

FAULT, _, STALL_AFTER = os.environ.get("FAKE_CAMERA", "").partition(":")
FRAME_S = float(os.environ.get("FAKE_CAMERA_FRAME_S", "0.01"))
sys.modules["libcamera._libcamera"] = _libcamera = types.ModuleType("libcamera._libcamera")
__path__ = []


class Transform:
    def __init__(self, hflip=0, vflip=0, transpose=0, rotation=0):
        self.hflip, self.vflip, self.transpose = bool(hflip), bool(vflip), bool(transpose)

    def __hash__(self):
        return hash((self.hflip, self.vflip, self.transpose))

    def __str__(self):
        return f"<Transform {self.hflip} {self.vflip} {self.transpose}>"


class ColorSpace:
    YcbcrEncoding = enum.Enum("YcbcrEncoding", "Null Rec601 Rec709")
    Range = enum.Enum("Range", "Full Limited")

    def __init__(self, other=None, primaries="Rec709", transfer="Srgb"):
        self.primaries = other.primaries if other else primaries
        self.transferFunction = other.transferFunction if other else transfer
        self.ycbcrEncoding, self.range = ColorSpace.YcbcrEncoding.Rec601, ColorSpace.Range.Full

    def __hash__(self):
        return hash((self.primaries, self.transferFunction))

    def __str__(self):
        return f"<ColorSpace {self.primaries}/{self.transferFunction}>"

    @classmethod
    def Sycc(cls):
        return cls()

    @classmethod
    def Smpte170m(cls):
        return cls(primaries="Smpte170m", transfer="Rec709")

    @classmethod
    def Rec709(cls):
        return cls(transfer="Rec709")

    @classmethod
    def Raw(cls):
        return cls(primaries="Raw", transfer="Linear")


_libcamera.ColorSpace, _libcamera.Transform = ColorSpace, Transform
Orientation = enum.Enum("Orientation", "Rotate0 Rotate0Mirror Rotate180 Rotate180Mirror Rotate90Mirror Rotate270 Rotate270Mirror Rotate90")
ControlType = enum.Enum("ControlType", "Null Bool Integer32 Float Rectangle Size")
StreamRole = enum.Enum("StreamRole", "StillCapture Raw VideoRecording Viewfinder")


class Size:
    def __init__(self, width=0, height=0):
        self.width, self.height = width, height

    def to_tuple(self):
        return (self.width, self.height)


class Rectangle:
    def __init__(self, x=0, y=0, width=0, height=0):
        self.x, self.y, self.width, self.height = x, y, width, height

    def to_tuple(self):
        return (self.x, self.y, self.width, self.height)


class PixelFormat:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


class SensorConfiguration:
    """bit_depth, output_size"""


class ControlId:
    def __init__(self, name, type=ControlType.Float):
        self.name, self.type = name, type


_NAMES = ("AeEnable", "AwbEnable", "ExposureTime", "AnalogueGain", "ColourGains", "ExposureTimeMode", "AnalogueGainMode", "DigitalGain",
          "SensorTimestamp", "Lux", "FrameDurationLimits", "NoiseReductionMode", "FrameDuration", "ScalerCrop")
controls = types.SimpleNamespace(**{name: ControlId(name) for name in _NAMES})
controls.draft = types.SimpleNamespace(NoiseReductionModeEnum=enum.Enum("NoiseReductionModeEnum", "Off Fast HighQuality Minimal"))
properties = types.SimpleNamespace(draft=types.SimpleNamespace(ColorFilterArrangementEnum=enum.Enum("Cfa", "RGGB MONO")))
sys.modules["libcamera.controls"] = controls


class FrameBuffer:
    class Plane:
        fd = offset = length = 0

    def __init__(self, planes):
        self.planes = planes
        self.metadata = types.SimpleNamespace(status=FrameMetadata.Status.Success, planes=[types.SimpleNamespace(bytes_used=plane.length) for plane in planes])


class FrameMetadata:
    Status = enum.Enum("FrameStatus", "Success Error Cancelled")


class StreamConfiguration:
    def __init__(self):
        self.size, self.pixel_format, self.buffer_count, self.color_space, self.stride, self.stream = Size(), PixelFormat("BGR888"), 1, None, 0, object()
        self.formats = types.SimpleNamespace(pixel_formats=[PixelFormat("SBGGR10_CSI2P")], sizes=lambda _: [Size(640, 480), Size(1640, 1232), Size(3280, 2464)])

    @property
    def frame_size(self):
        return self.stride * self.size.height


class CameraConfiguration:
    Status = enum.Enum("ConfigurationStatus", "Valid Adjusted Invalid")

    def __init__(self, roles):
        self.streams, self.orientation, self.sensor_config = [StreamConfiguration() for _ in roles], Orientation.Rotate0, None

    def at(self, index):
        return self.streams[index]

    def __iter__(self):
        return iter(self.streams)

    def validate(self):
        for stream in self.streams:
            stream.stride = -(-stream.size.width * 3 // 64) * 64  # the hardware pads its lines
        return CameraConfiguration.Status.Adjusted


class Request:
    Status = enum.Enum("RequestStatus", "Pending Complete Cancelled")

    def __init__(self, cookie):
        self.cookie, self.buffers, self.metadata, self.asked, self.status = cookie, {}, {}, {}, Request.Status.Pending

    def add_buffer(self, stream, buffer):
        self.buffers[stream] = buffer

    def set_control(self, control, value):
        self.asked[control.name] = value

    def reuse(self):
        self.metadata, self.asked, self.status = {}, {}, Request.Status.Pending


class Camera:
    """The sensor: takes one queued request every FRAME_S, fills its buffer and returns it."""

    id = "/base/soc/i2c0mux/i2c@1/imx219@10"
    log = []  # the calls, for tests

    def __init__(self):
        limits = {"ExposureTime": (60, 11_000_000, 20_000), "AnalogueGain": (1.0, 10.7, 1.0), "AeEnable": (False, True, True), "AwbEnable": (False, True, True),
                  "ColourGains": (0.0, 32.0, 1.0), "FrameDurationLimits": (33_333, 120_000, 33_333), "NoiseReductionMode": (0, 4, 0)}
        self.controls = {getattr(controls, name): types.SimpleNamespace(min=low, max=high, default=usual) for name, (low, high, usual) in limits.items()}
        self.properties = {ControlId("Model"): "imx219", ControlId("ColorFilterArrangement"): 0, ControlId("Rotation"): 0, ControlId("Location"): 2}
        self.queue, self.running, self.frames, self.exposure, self.automatic = [], False, 0, 60, True
        self.lock = threading.Lock()

    def acquire(self):
        if FAULT == "busy":
            raise RuntimeError("Failed to acquire camera: Device or resource busy")

    def release(self):
        Camera.log.append("release")

    def generate_configuration(self, roles):
        return CameraConfiguration(roles)

    def configure(self, configuration):
        Camera.log.append("configure")
        self.size = configuration.at(0).size
        self.stride = configuration.at(0).stride
        return 0

    def create_request(self, cookie):
        return Request(cookie)

    def start(self, asked):
        self._obey({control.name: value for control, value in asked.items()})
        self.running = True
        threading.Thread(target=self._expose, daemon=True).start()

    def stop(self):
        self.running = False

    def queue_request(self, request):
        with self.lock:
            self.queue.append(request)

    def _obey(self, asked):
        self.automatic = asked.get("AeEnable", self.automatic)
        if not self.automatic:
            self.exposure = asked.get("ExposureTime", self.exposure)

    def _expose(self):
        while self.running:
            began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            time.sleep(FRAME_S)
            if FAULT == "stall" and self.frames >= int(STALL_AFTER):
                continue
            with self.lock:
                request = self.queue.pop(0) if self.queue else None
            if request is None:
                continue
            self._obey(request.asked)
            if self.automatic:
                self.exposure += (8000 - self.exposure) // 3
            self.frames += 1
            buffer = next(iter(request.buffers.values()))
            with mmap.mmap(buffer.planes[0].fd, buffer.planes[0].length) as memory:
                line = bytes(value * 255 // (self.size.width * 3) for value in range(self.size.width * 3)).ljust(self.stride, b"\xee")
                memory[:] = line * self.size.height
            metadata = {"ExposureTime": self.exposure, "AnalogueGain": 2.0, "DigitalGain": 1.0, "ColourGains": (1.7, 1.3), "Lux": 212.4,
                        "SensorTimestamp": began + self.exposure * 1000, "FrameDuration": 33_333}
            request.metadata = {getattr(controls, name): value for name, value in metadata.items()}
            request.status = Request.Status.Complete
            CameraManager.singleton().complete(request)


class CameraManager:
    _one = None

    @classmethod
    def singleton(cls):
        cls._one = cls._one or cls()
        return cls._one

    def __init__(self):
        self.cameras = [] if FAULT == "none" else [Camera()]
        self.event_fd, self._writes = os.pipe()
        os.set_blocking(self.event_fd, False)
        self.ready, self.lock = [], threading.Lock()

    def complete(self, request):
        with self.lock:
            self.ready.append(request)
        os.write(self._writes, b"x")

    def get_ready_requests(self):
        try:
            os.read(self.event_fd, 4096)
        except BlockingIOError:
            return []
        with self.lock:
            ready, self.ready = self.ready, []
        return ready
