"""The process: says on its first line where it listens. The secret of the test that orders it about comes from the environment."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from warehouse.engine import Engine
from warehouse.front import Door, Server
from warehouse.service import Service


def main() -> None:
    warnings.simplefilter("ignore")  # of its libraries; nobody reads this process's errors unless it does not start
    engine = Engine(Path(sys.argv[1]))
    with Server(Door(engine, Service(engine), os.environ["WAREHOUSE_ORDERS"])) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
