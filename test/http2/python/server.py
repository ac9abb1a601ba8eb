"""An HTTP/2 echo server on python3-h2 for one connection: argv is the window. Prints its port."""
import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, WindowUpdated, ConnectionTerminated
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes

window = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
conn = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
conn.initiate_connection()
conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_CONCURRENT_STREAMS: 10})
sock.sendall(conn.data_to_send())
bodies = {}
answers = {}


def pump():
    for stream in list(answers):
        try:
            while answers[stream]:
                room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, len(answers[stream]))
                if room <= 0:
                    break
                piece, answers[stream] = answers[stream][:room], answers[stream][room:]
                conn.send_data(stream, piece)
            if not answers[stream]:
                conn.send_headers(stream, [("grpc-status", "0")], end_stream=True)
                del answers[stream]
        except StreamClosedError:
            del answers[stream]


while True:
    data = sock.recv(65536)
    if not data:
        break
    for event in conn.receive_data(data):
        if isinstance(event, RequestReceived):
            bodies[event.stream_id] = b""
        elif isinstance(event, DataReceived):
            bodies[event.stream_id] += event.data
            if event.flow_controlled_length:
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            conn.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
            answers[event.stream_id] = bodies.pop(event.stream_id)
    pump()
    out = conn.data_to_send()
    if out:
        sock.sendall(out)
