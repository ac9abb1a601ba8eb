"""An HTTP/2 client on python3-h2: argv is port, requests, bytes of each body, window. Prints ok."""
import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived, ConnectionTerminated
from h2.settings import SettingCodes

port, count, size, window = (int(word) for word in sys.argv[1:5])
sock = socket.create_connection(("127.0.0.1", port))
sock.settimeout(30)
conn = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
conn.initiate_connection()
conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0})
sock.sendall(conn.data_to_send())
body = bytes(i % 251 for i in range(size))
left = {}
got = {}
trailers = {}
ended = set()
opened = 0


def feed():
    for stream in list(left):
        while left[stream]:
            room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, len(left[stream]))
            if room <= 0:
                break
            piece, left[stream] = left[stream][:room], left[stream][room:]
            conn.send_data(stream, piece, end_stream=not left[stream], pad_length=None)
        if not left[stream]:
            del left[stream]


def handle(data):
    for event in conn.receive_data(data):
        if isinstance(event, DataReceived):
            got[event.stream_id] += event.data
            if event.flow_controlled_length:
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            trailers[event.stream_id] = dict(event.headers)
        elif isinstance(event, StreamEnded):
            ended.add(event.stream_id)
        elif isinstance(event, (StreamReset, ConnectionTerminated)):
            sys.exit(f"unexpected {event}")


while len(ended) < count:
    while opened < count and opened - len(ended) < 50:
        stream = conn.get_next_available_stream_id()
        conn.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", f"/echo/{opened % 7}"),
                (":authority", "localhost"),
                ("content-type", "application/grpc"),
                ("x-count", str(opened)),
            ],
        )
        left[stream] = body
        got[stream] = b""
        opened += 1
    feed()
    out = conn.data_to_send()
    if out:
        sock.sendall(out)
    if len(ended) < count:
        data = sock.recv(65536)
        if not data:
            sys.exit("the server closed the connection")
        handle(data)
for stream, answer in got.items():
    if answer != body:
        sys.exit(f"stream {stream}: {len(answer)} bytes instead of {len(body)}")
    if trailers.get(stream, {}).get("grpc-status") != "0":
        sys.exit(f"stream {stream}: no trailers")
conn.close_connection()
sock.sendall(conn.data_to_send())
print("ok")
