"""Sends scans to a push source from any program. Python 2.7 (IronPython too) or 3, its standard library alone.

python push_sender.py 127.0.0.1:8620 KEY [SCANS]
"""

import array
import json
import sys
import time

try:
    from http.client import HTTPConnection
except ImportError:
    from httplib import HTTPConnection


def send(address, key, header, images):
    """`images`: bytes of each segment's image, little-endian uint16, row by row. Waits while the last one is used."""
    body = json.dumps(header).encode("ascii") + b"\n" + b"".join(images)
    while True:
        connection = HTTPConnection(address, timeout=60)
        connection.request("POST", "/frames", body, {"Authorization": "Bearer " + key})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8")
        connection.close()
        if answer.status == 200:
            return json.loads(text)
        if answer.status != 503:
            raise RuntimeError(str(answer.status) + ": " + text)
        time.sleep(float(answer.getheader("Retry-After", "1")))


if __name__ == "__main__":
    width, height = 64, 48
    for number in range(int(sys.argv[3]) if len(sys.argv) > 3 else 1):
        header = {"segments": ["A", "B", "C", "D"], "width_px": width, "height_px": height, "dtype": "uint16"}
        header.update(number=number, time_ns=int(time.time() * 1e9), pixel_size_m=5e-9, dwell_time_s=1e-6)
        shades = [array.array("H", [1000 * (place + 1) + number] * (width * height)) for place in range(4)]
        images = [(shade.tobytes if hasattr(shade, "tobytes") else shade.tostring)() for shade in shades]
        sys.stdout.write(json.dumps(send(sys.argv[1], sys.argv[2], header, images)) + "\n")
