"""The folders of the distribution: launch/ and configs/ become tinyjax.launch and tinyjax.configs,
because installed packages share one folder, where other projects have a `launch`, too.
"""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages(include=["tinyjax*"]),
        *(f"tinyjax.{name}" for name in find_namespace_packages(include=["launch*", "configs*"])),
    ],
    package_dir={"tinyjax.launch": "launch", "tinyjax.configs": "configs"},
)
