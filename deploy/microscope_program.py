"""How a microscope's own program drives the lab over REST, with nothing but Python's standard library:

    python microscope_program.py LINK FOLDER

LINK is what `eclips up` prints. The same with the client, for instance in a notebook:

    from service.client import connect

    with connect(LINK) as lab, lab.control("notebook"):
        if "stop" in lab.status().permitted:
            lab.stop()
        lab.wait_until(lambda status: status.state == "idle", timeout_s=60)
        run = lab.start(name="ramp", notes="heated step by step")
        lab.heater.arm()
        for current_a in (0.3, 0.6, 0.9):
            lab.heater.set(current_a=current_a)
        lab.stage.set(x_m=2e-6)
        lab.wait_until(lambda status: status.run.heights, timeout_s=60)
        height = next(run.heights())
        Path(FOLDER, "height.png").write_bytes(height.png())
        run.save_tiff(height.sequence, Path(FOLDER, "height.tif"))
        lab.heater.off()
        lab.stop()
        run.wait()
        run.export(Path(FOLDER, "ramp.npz"), "npz")
"""

import json
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

BASE, KEY = sys.argv[1].split("/?key=")
FOLDER = Path(sys.argv[2])


def call(method, path, body=None, accept="application/json"):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Accept": accept}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(f"{BASE}/api/v1/{path}", data, headers, method=method), timeout=20) as answer:
            content = answer.read()
    except HTTPError as refused:
        sys.exit(f"{method} {path}: {json.load(refused)['detail']}")
    return json.loads(content) if accept == "application/json" else content


def wait_for(path, holds, patience_s=60):
    for _ in range(patience_s * 5):
        if holds(found := call("GET", path)):
            return found
        time.sleep(0.2)
    sys.exit(f"{path} stays {found}")


if "stop" in call("GET", "status")["permitted"]:
    call("POST", "run:stop")
wait_for("status", lambda status: status["state"] == "idle")
run = call("POST", "run", {"name": "ramp", "notes": "heated step by step"})["run_id"]
try:
    call("POST", "devices/heater:arm")
    for current_a in (0.3, 0.6, 0.9):
        call("POST", "devices/heater/setpoints", {"current_a": current_a})
    call("POST", "devices/stage/setpoints", {"x_m": 2e-6})
    frames = wait_for(f"runs/{run}/frames", lambda frames: any(frame["has_height"] for frame in frames))
    number = next(frame["sequence"] for frame in frames if frame["has_height"])
    for kind, name in (("image/tiff", "height.tif"), ("image/png", "height.png")):
        FOLDER.joinpath(name).write_bytes(call("GET", f"runs/{run}/heights/{number}", accept=kind))
finally:
    call("POST", "devices/heater:off")
call("POST", "run:stop")
wait_for(f"runs/{run}", lambda found: found["status"] == "complete")
task = call("POST", f"runs/{run}/export", {"format": "npz"})["id"]
wait_for(f"tasks/{task}", lambda found: found["state"] == "done")
FOLDER.joinpath("ramp.npz").write_bytes(call("GET", f"tasks/{task}/file", accept="application/octet-stream"))
