"""A cluster of Ray on this machine that loses a node while a sweep is trained on it."""

import os
import threading
import time
from pathlib import Path

# Before ray is imported.
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import ray
from ray.cluster_utils import Cluster

from launch import __main__ as launch


def main(folder: str, config: str) -> int:
    memory = 100 * 2**20
    first = {"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=first)
    other = cluster.add_node(num_cpus=1, object_store_memory=memory)
    ray.init(address=cluster.address, log_to_driver=False)

    def lose():
        while len([*Path(folder).glob("populations/*/metrics.csv")]) < 2:
            time.sleep(0.1)
        cluster.remove_node(other, allow_graceful=False)
        print("a node is gone", flush=True)
        cluster.add_node(num_cpus=1, object_store_memory=memory)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    argv = ["--engine", "ray", "--config", config, "--workdir", folder, "--shards", "4"]
    code = launch.main(argv)
    thread.join(1)
    ray.shutdown()
    cluster.shutdown()
    return code
