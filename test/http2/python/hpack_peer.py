"""Checks header blocks with python3-hpack: lines of JSON in, lines of JSON out.

{"decode": hex} answers the list; {"encode": [[name, value]...], "huffman": bool} answers hex;
{"table": n} sets the encoder's table. Strings hold one character per byte.
"""
import json
import sys

from hpack import Decoder, Encoder

decoder = Decoder(max_header_list_size=1 << 24)
encoder = Encoder()
for line in sys.stdin:
    order = json.loads(line)
    if "decode" in order:
        fields = decoder.decode(bytes.fromhex(order["decode"]), raw=True)
        answer = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields]
    elif "table" in order:
        encoder.header_table_size = order["table"]
        answer = True
    else:
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in order["encode"]]
        answer = encoder.encode(fields, huffman=order["huffman"]).hex()
    print(json.dumps(answer), flush=True)
