"""The process: `python -m cosmosdb [PORT]` says where it listens, and serves until it is ended."""

import sys

from cosmosdb.web import Server

if __name__ == "__main__":
    server = Server(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(f"Running on {server.url}", flush=True)
    server.serve_forever()
