"""libmmal.so and libbcm_host.so in Python, so that picamera 1.13's own code runs without a Pi.

Call install() before importing picamera. picamera uses only these two C libraries, through ctypes. Components, ports,
pools, queues and parameters are those of the firmware. To capture, the camera component passes JPEG bytes to the
encoder's port in chunks of its buffers. FAKE_CAMERA: none (the firmware finds no camera), hang (the encoder never
responds).
"""

import collections
import ctypes as ct
import io
import os
import threading
import time

FAULT = os.environ.get("FAKE_CAMERA", "")
CHUNK = 4096
alive, ports, parameters, queues, pools, links = [], {}, {}, {}, {}, {}
state = {"exposure": 60, "captures": 0}


def install():
    """Makes ctypes.CDLL find both libraries."""
    real = ct.CDLL
    ct.CDLL = lambda name, *a, **k: Library() if name in ("libmmal.so", "libbcm_host.so") else real(name, *a, **k)


class Function:
    """One C function: calls the Python function of its name, or succeeds. picamera sets argtypes and restype."""

    def __init__(self, name):
        self.call = globals().get(name, lambda *_: 0)

    def __call__(self, *arguments):
        return self.call(*arguments)


class Library:
    def __getattr__(self, name):
        function = Function(name)
        setattr(self, name, function)
        return function


def address(pointer):
    return ct.addressof(pointer.contents) if hasattr(pointer, "contents") else ct.addressof(getattr(pointer, "_obj", pointer))


def keep(thing):
    alive.append(thing)
    return thing


def mmal():
    import picamera.mmal
    return picamera.mmal


class Port:
    def __init__(self, name, kind, index, es_type):
        m = mmal()
        es = keep(m.MMAL_ES_SPECIFIC_FORMAT_T())
        form = keep(m.MMAL_ES_FORMAT_T(type=es_type, es=ct.pointer(es)))
        self.c = keep(m.MMAL_PORT_T(name=name, type=kind, index=index, format=ct.pointer(form), buffer_num_min=2, buffer_size_min=CHUNK,
                                    buffer_num_recommended=2, buffer_size_recommended=CHUNK, buffer_num=2, buffer_size=CHUNK))
        self.callback, self.buffers = None, collections.deque()
        ports[ct.addressof(self.c)] = self


SHAPES = {b"vc.ril.camera": (0, 3), b"vc.camera_info": (0, 0), b"vc.null_sink": (1, 0), b"vc.ril.video_splitter": (1, 4), b"vc.ril.image_encode": (1, 1),
          b"vc.ril.resize": (1, 1)}


def mmal_component_create(name, out):
    m = mmal()
    if FAULT == "none" and name == b"vc.ril.camera":
        return m.MMAL_ENOMEM
    inputs, outputs = SHAPES[name]

    def make(count, kind, word):
        made = [Port(name + b":%s:%d" % (word, index), kind, index, m.MMAL_ES_TYPE_VIDEO) for index in range(count)]
        return keep((ct.POINTER(m.MMAL_PORT_T) * max(1, count))(*(ct.pointer(port.c) for port in made)))

    control = Port(name + b":ctr:0", m.MMAL_PORT_TYPE_CONTROL, 0, m.MMAL_ES_TYPE_CONTROL)
    component = keep(m.MMAL_COMPONENT_T(name=name, control=ct.pointer(control.c), input_num=inputs, output_num=outputs))
    component.input = ct.cast(make(inputs, m.MMAL_PORT_TYPE_INPUT, b"in"), ct.POINTER(ct.POINTER(m.MMAL_PORT_T)))
    component.output = ct.cast(make(outputs, m.MMAL_PORT_TYPE_OUTPUT, b"out"), ct.POINTER(ct.POINTER(m.MMAL_PORT_T)))
    for group, count in ((component.input, inputs), (component.output, outputs)):
        for index in range(count):
            group[index].contents.component = ct.pointer(component)
    out.contents = component
    return 0


def mmal_component_enable(component):
    component.contents.is_enabled = 1
    return 0


def mmal_component_disable(component):
    component.contents.is_enabled = 0
    return 0


# ---- parameters

def mmal_port_parameter_set(port, header):
    header = getattr(header, "_obj", header)
    parameters[address(port), header.id] = ct.string_at(ct.addressof(header), header.size)
    _react(port, header.id, parameters[address(port), header.id])
    return 0


def mmal_port_parameter_get(port, header):
    m = mmal()
    header = getattr(header, "_obj", header)
    place, size = ct.addressof(header), header.size
    if header.id == m.MMAL_PARAMETER_CAMERA_INFO:
        if size < ct.sizeof(m.MMAL_PARAMETER_CAMERA_INFO_V2_T):
            return m.MMAL_EINVAL
        info = m.MMAL_PARAMETER_CAMERA_INFO_V2_T.from_address(place)
        info.num_cameras = 1
        info.cameras[0].max_width, info.cameras[0].max_height, info.cameras[0].camera_name = 3280, 2464, b"imx219"
    elif header.id == m.MMAL_PARAMETER_SUPPORTED_ENCODINGS:
        encodings = m.MMAL_PARAMETER_ENCODING_T.from_address(place)
        for index, encoding in enumerate((m.MMAL_ENCODING_OPAQUE, m.MMAL_ENCODING_I420, m.MMAL_ENCODING_RGB24, m.MMAL_ENCODING_BGR24, m.MMAL_ENCODING_JPEG)):
            encodings.encoding[index] = encoding
    elif header.id == m.MMAL_PARAMETER_CAMERA_SETTINGS:
        held = parameters.get((address(port), m.MMAL_PARAMETER_SHUTTER_SPEED), 0)
        state["exposure"] = held or state["exposure"] + (8000 - state["exposure"]) // 2
        settings = m.MMAL_PARAMETER_CAMERA_SETTINGS_T.from_address(place)
        settings.exposure = state["exposure"]
        for gain, value in (("analog_gain", 512), ("digital_gain", 256), ("awb_red_gain", 384), ("awb_blue_gain", 320)):
            getattr(settings, gain).num, getattr(settings, gain).den = value, 256
    elif (address(port), header.id) in parameters:
        stored = parameters[address(port), header.id]
        if isinstance(stored, bytes):
            ct.memmove(place, stored[:size], min(size, len(stored)))
    return 0


def _set_number(port, key, value):
    parameters[address(port), key] = value
    _react(port, key, value)
    return 0


def _get_number(port, key, out):
    out.value = parameters.get((address(port), key), 0)
    return 0


mmal_port_parameter_set_boolean = mmal_port_parameter_set_uint32 = mmal_port_parameter_set_int32 = _set_number
mmal_port_parameter_set_uint64 = mmal_port_parameter_set_int64 = _set_number
mmal_port_parameter_get_boolean = mmal_port_parameter_get_uint32 = mmal_port_parameter_get_int32 = _get_number
mmal_port_parameter_get_uint64 = mmal_port_parameter_get_int64 = _get_number


def mmal_port_parameter_set_rational(port, key, value):
    parameters[address(port), key] = (value.num, value.den)
    return 0


def mmal_port_parameter_get_rational(port, key, out):
    out.num, out.den = parameters.get((address(port), key), (0, 1))
    return 0


def mmal_format_copy(target, source):
    es = target.contents.es.contents
    ct.memmove(ct.addressof(es), address(source.contents.es), ct.sizeof(es))
    target.contents.encoding, target.contents.encoding_variant = source.contents.encoding, source.contents.encoding_variant


# ---- queues, pools and buffers

def mmal_queue_create():
    token = keep(ct.create_string_buffer(8))
    queues[ct.addressof(token)] = (collections.deque(), threading.Condition())
    return ct.cast(token, ct.POINTER(mmal().MMAL_QUEUE_T))


def mmal_queue_put(queue, buffer):
    line, change = queues[address(queue)]
    with change:
        line.append(address(buffer))
        change.notify()


def mmal_queue_length(queue):
    return len(queues[address(queue)][0])


def _take(queue, seconds):
    line, change = queues[address(queue)]
    kind = ct.POINTER(mmal().MMAL_BUFFER_HEADER_T)
    with change:
        if not change.wait_for(lambda: line, seconds):
            return kind()
        return ct.cast(line.popleft(), kind)


def mmal_queue_get(queue):
    return _take(queue, 0)


def mmal_queue_wait(queue):
    return _take(queue, None)


def mmal_queue_timedwait(queue, milliseconds):
    return _take(queue, milliseconds / 1000)


def mmal_port_pool_create(port, count, size):
    m = mmal()
    queue = mmal_queue_create()
    headers = keep((ct.POINTER(m.MMAL_BUFFER_HEADER_T) * count)())
    for index in range(count):
        memory = keep((ct.c_uint8 * size)())
        header = keep(m.MMAL_BUFFER_HEADER_T(data=ct.cast(memory, ct.POINTER(ct.c_uint8)), alloc_size=size))
        headers[index] = ct.pointer(header)
        pools[ct.addressof(header)] = queue
        mmal_queue_put(queue, ct.pointer(header))
    return ct.pointer(keep(m.MMAL_POOL_T(queue=queue, headers_num=count, header=ct.cast(headers, ct.POINTER(ct.POINTER(m.MMAL_BUFFER_HEADER_T))))))


def mmal_buffer_header_release(buffer):
    mmal_queue_put(pools[address(buffer)], buffer)


def mmal_port_enable(port, callback):
    port.contents.is_enabled = 1
    ports[address(port)].callback = callback
    return 0


def mmal_port_disable(port):
    port.contents.is_enabled = 0
    ports[address(port)].buffers.clear()
    return 0


def mmal_port_send_buffer(port, buffer):
    ports[address(port)].buffers.append(buffer)
    return 0


# ---- connections, and what flows through them

def mmal_connection_create(out, source, target, flags):
    out.contents = keep(mmal().MMAL_CONNECTION_T(flags=flags))
    links[address(source)] = target
    return 0


def mmal_connection_enable(connection):
    connection.contents.is_enabled = 1
    return 0


def mmal_connection_disable(connection):
    connection.contents.is_enabled = 0
    return 0


def _react(port, key, value):
    if key == mmal().MMAL_PARAMETER_CAPTURE and value and FAULT != "hang":
        encoder = links[address(port)].contents.component.contents.output[0]
        width, height = port.contents.format.contents.es.contents.video.crop.width, port.contents.format.contents.es.contents.video.crop.height
        threading.Thread(target=_encode, args=(encoder, (width, height)), daemon=True).start()


def _encode(port, size):
    from PIL import Image
    m = mmal()
    state["captures"] += 1
    out = io.BytesIO()
    Image.radial_gradient("L").resize(size).save(out, "JPEG", quality=90)
    data = out.getvalue()
    for start in range(0, len(data), CHUNK):
        while not ports[address(port)].buffers:
            time.sleep(0.001)
        buffer = ports[address(port)].buffers.popleft()
        piece = data[start:start + CHUNK]
        header = buffer.contents
        ct.memmove(header.data, piece, len(piece))
        header.length, header.offset = len(piece), 0
        header.flags = m.MMAL_BUFFER_HEADER_FLAG_FRAME_END if start + CHUNK >= len(data) else 0
        ports[address(port)].callback(port, buffer)
