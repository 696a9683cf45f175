"""A local Ray cluster that loses a node while a sweep is trained on it."""

import os
import threading
import time
from pathlib import Path

# Set before the import of ray.
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import ray
from ray.cluster_utils import Cluster

from launch import __main__ as launch


def main(folder: str, config: str) -> int:
    """Launch the sweep in four shards and remove a node after two populations have started."""
    memory = 100 * 2**20
    head = {"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1, object_store_memory=memory)
    ray.init(address=cluster.address, log_to_driver=False)

    def remove_node():
        while len([*Path(folder).glob("populations/*/metrics.csv")]) < 2:
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)
        print("a node was removed", flush=True)
        cluster.add_node(num_cpus=1, object_store_memory=memory)

    thread = threading.Thread(target=remove_node, daemon=True)
    thread.start()
    argv = ["--engine", "ray", "--config", config, "--workdir", folder, "--shards", "4"]
    code = launch.main(argv)
    thread.join(1)
    ray.shutdown()
    cluster.shutdown()
    return code
